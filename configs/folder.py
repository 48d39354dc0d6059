"""Images of your own: a folder for each class, or a table of paths and labels.

    DIR/train/CLASS/*.jpg, DIR/val/CLASS/*.jpg    or DIR/CLASS/*.jpg, of which a fifth is held out
    python -m experiments.run --config=configs/folder.py --workdir=runs/mine \\
        --config.data.data_dir=DIR

| variant            | what                                                                    |
|--------------------|-------------------------------------------------------------------------|
| `small`            | trains from scratch at 32x32 pixels, on a CPU in minutes                |
| `tags`             | the same, several labels of an image (a table, `cup;plate`), scored by mAP |
| `finetune`         | starts from `imagenet_fourier` at 224x224, with a new last layer; for a GPU |
| `finetune_learned` | the same from `imagenet_learned`                                        |
| `finetune_conv`    | the same from `imagenet_conv`                                           |

The number of classes and their names are those of the data; both are in the workdir's config.json.
Any variant reads a table: `--config.data.source=table`, its folder (train.csv, val.csv) or one file
as `data_dir`. `data.source_options` are explained in `datasets.images.Options`. Images of any size
are read; `data.train` and `data.eval` say what is made of them. At another size than 32 set both.

`small` has the model of `configs/cifar10.py`. `finetune` prepares images as the released models
were evaluated. Its recipe is our choice, not a paper's; we have not run it to the end.

Expected: `small` on CIFAR-10 as a folder: see experiments/results/README.md.
"""

from ml_collections.config_dict import placeholder

from configs import cifar10, common, imagenet

VARIANTS = ("small", "tags", "finetune", "finetune_learned", "finetune_conv")
SIZE = 32
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of ImageNet


def get_config(variant: str = ""):
    name, tiny = common.parse(variant, VARIANTS)
    if name.startswith("finetune"):
        return finetune(name.removeprefix("finetune_").replace("finetune", "fourier"), tiny)
    tags = name == "tags"
    config = common.base(batch_size=64, steps=3000)
    config.eval_every = 500
    config.checkpoint_every = 500
    fields = "'labels', 'row', 'readable'" if tags else "'label', 'readable'"
    square = f"decode | central_crop({SIZE}, 0) | resize_area({SIZE})"
    config.data = common.images(
        "table" if tags else "folder",
        train=f"{square} | pad_crop(4) | flip | keep('image', {fields})",
        evaluate=f"{square} | keep('image', {fields})",
        eval_split="val",
    )
    config.data.mean, config.data.std = MEAN, STD
    config.data.source_options.short_side = 2 * SIZE
    config.model = cifar10.model(num_classes=placeholder(int))
    config.optimizer = common.adamw(1e-3, warmup_steps=300)
    if tags:
        config.experiment = "image_tags"
        config.data.source_options.multi_label = True
        del config.data.label_smoothing, config.data.mix_alpha
    else:
        config.data.label_smoothing = 0.1
    return common.shrink(config) if tiny else config


def finetune(kind: str, tiny: bool):
    """A released model of ImageNet with a new head; `tiny` ones have no released weights."""
    config = imagenet.get_config(f"{kind}:tiny" if tiny else kind)
    size = 32 if tiny else 224
    config.data = common.images(
        "folder",
        train=f"decode | inception_crop({size}) | flip | resize({size}) | "
        "keep('image', 'label', 'readable')",
        evaluate=f"decode | central_crop({size}) | resize_tf({size}) | "
        "keep('image', 'label', 'readable')",
        eval_split="val",
    )
    config.data.mean, config.data.std = MEAN, STD
    config.data.label_smoothing = 0.1
    config.batch_size, config.steps = 64, 2000
    config.eval_every = config.checkpoint_every = 250
    config.model.output.num_classes = placeholder(int)
    config.optimizer = common.adamw(1e-3, warmup_steps=100, b2=0.999)
    config.optimizer.multipliers = (("", 0.1), ("output/logits", 1.0))
    if tiny:
        return common.shrink(config)
    config.start.weights = f"imagenet_{kind}"
    config.start.fresh = ("output/logits",)  # the query stays
    return config
