"""ImageNet at 224x224 (TFDS `imagenet2012`): the classifiers of both papers.

| variant     | paper                                  | top-1 | parameters | GFLOP |
|-------------|----------------------------------------|-------|------------|-------|
| `fourier`   | Perceiver IO, Table 7, config A, 2D FF | 79.0  | 48,440,627 | 407   |
| `learned`   | the same, learned positions            | 72.7  | 62,255,848 | 407   |
| `conv`      | the same, conv + max-pool              | 82.1  | 48,646,522 | 369   |
| `perceiver` | Perceiver (2021), Table 1              | 78.0  | 44,912,254 | 707   |
| `permuted`  | `fourier` on permuted pixels           | none  | 48,440,627 | 407   |

Configuration B (Perceiver IO, Table 7 and app. A.2) is pretrained on JFT, then fine-tuned:

| variant           |                                           | top-1 | parameters  | printed    |
|-------------------|-------------------------------------------|-------|-------------|------------|
| `b`               | 16 layers, RGB projected to 256, 2D FF    |       | 230,507,618 |            |
| `b_conv`          | the same, conv + max-pool                 |       | 229,800,930 |            |
| `b_finetune`      | `b` with a last layer of 1,000 classes    | 84.5  | 213,082,618 | 212M, 213B |
| `b_conv_finetune` | `b_conv` likewise                         | 86.4  | 212,375,930 | 212M, 176B |

The 2021 paper (Table 2) reports 78.0 for its own model on permuted pixels, as on plain ones.

`fourier_1pct`, `fourier_10pct`, `conv_1pct`, `conv_10pct` train as long on so many of the images
(TFDS `imagenet2012_subset`, 12,811 and 128,116): what a convolution is worth in examples.

Each also with `:tiny`. The figures are the papers' (GFLOP forward, multiply and add apart); we have
not run these to the end. The papers: batch 1024 on 64 TPU v3, 4.85 steps/s for `fourier`, 8 hours.

    tfds build imagenet2012 --file_format=array_record --data_dir=DATA --manual_dir=FOLDER
    python -m experiments.run --config=configs/imagenet.py:fourier --workdir=runs/fourier \\
        --config.data.data_dir=DATA --config.model.dtype=bfloat16 --config.batch_size=1024

The released weights are evaluated as they are; the validation images alone will do (6.7 GB):

    pip install -e '.[prepare]'     # FOLDER holds ILSVRC2012_img_val.tar
    tfds build imagenet2012 --file_format=array_record --data_dir=DATA --manual_dir=FOLDER
    python -m experiments.run --config=configs/imagenet.py:fourier --workdir=runs/released \\
        --mode=eval --config.start.weights=imagenet_fourier --config.data.data_dir=DATA \\
        --config.data.train_split=

Expect the table's top-1 as `accuracy`: 0.790; `learned` with `imagenet_learned` 0.727, `conv` with
`imagenet_conv` 0.821. Images are prepared as in the papers' own evaluation: the central 7/8 of the
short side, bicubic to 224 as TensorFlow interpolates, in float32 (`resize_tf`: 1e-4 of 255 from
it). JPEG decoding still differs: ours is the accurate DCT, TensorFlow's default a faster one, about
1 grey level apart. The weights also come from a file or folder or from
Hugging Face (`start.weights=deepmind/vision-perceiver-conv`, which needs `start.conv_kernel=OIWH`,
see `pretrained.load`), and without `--mode=eval` they are where training starts.

On TPU `model.dtype=float32`, the default, is the faithful setting; bfloat16 is for speed.

Recipe of `fourier`, `learned`, `conv`: Perceiver IO app. A.1 and the released training code, whose
label smoothing the paper does not mention. LAMB at 5e-4 x batch/256, constant for half the run,
then cosine, no warm-up (it often kept LAMB from training). Recipe of `perceiver`: 2021, section
4.1; the batch size and weight decay of its run are not stated, ours are Perceiver IO's.
"""

from ml_collections.config_dict import FieldReference

from configs import common

B = ("b", "b_conv", "b_finetune", "b_conv_finetune")
SUBSETS = ("fourier_1pct", "fourier_10pct", "conv_1pct", "conv_10pct")
VARIANTS = ("fourier", "learned", "conv", "perceiver", "permuted", *B, *SUBSETS)
JFT_IMAGES, JFT_CLASSES = 300_000_000, 18_000  # about
TRAIN_IMAGES = 1_281_167


def get_config(variant: str = ""):
    name, tiny = common.parse(variant, VARIANTS)
    name, _, part = name.partition("_") if name in SUBSETS else (name, "", "")
    size = 32 if tiny else 224
    pretrains = name in ("b", "b_conv")
    epochs = 14 if pretrains else 120 if name == "perceiver" else 110
    batch_size = FieldReference(8192 if pretrains else 1024)
    images = JFT_IMAGES if pretrains else TRAIN_IMAGES
    config = common.base(batch_size=batch_size, steps=images * epochs // batch_size)
    config.eval_every = 5000
    config.log_every = 100
    config.data = common.data(
        "imagenet2012",
        train=f"decode | inception_crop({size}) | flip | randaugment(4, 5) | resize({size}) | "
        "keep('image', 'label')",
        evaluate=f"decode | central_crop({size}) | resize_tf({size}) | keep('image', 'label')",
        eval_split="validation",
    )
    config.data.mean = (123.675, 116.28, 103.53)
    config.data.std = (58.395, 57.12, 57.375)
    config.model = {
        "dtype": "float32",
        "input": common.pixels(num_bands=64),
        "encoder": common.encoder(),
        "decoder": common.decoder(query_residual=name != "learned"),
        "output": common.classification(num_classes=1000, query_channels=1024),
    }
    if name == "perceiver":
        config.model.encoder.num_cross_attends = 8
        config.model.decoder = {"module": "MeanPool"}
        config.model.output = {"module": "label.PooledClassification", "num_classes": 1000}
        config.optimizer = common.optimizer(
            "lamb",
            4e-3,
            {"name": "steps", "boundaries": (0.7, 0.85, 0.95), "factor": 0.1},
            reference_batch_size=0,
        )
    else:
        config.data.label_smoothing = 0.1
        config.data.mix_alpha = 0.2
        config.data.mix_partner = "fresh"  # reads twice the images; "batch": the batch's own
        config.optimizer = common.optimizer(
            "lamb", 5e-4, {"name": "constant_cosine", "constant_fraction": 0.5, "end_value": 0.0}
        )
    if name == "learned":
        config.model.input = common.section("image.LearnedPositions")
    if name == "conv":
        config.model.input = common.conv_stem(channels=64, num_bands=64)
    if name in B:
        configuration_b(config, name, size)
    if "max_resolution" in config.model.input:  # of the positions, also at other sizes of image
        side = size // 4 if "conv" in name else size
        config.model.input.max_resolution = (side, side)
    if name == "permuted":
        config.model.input.permutation_seed = 0
    if part:
        source = f"imagenet2012_subset/{part}"
        config.data.source = f"blank:{source}" if tiny else source
    return common.shrink(config) if tiny else config


def configuration_b(config, name: str, size: int) -> None:
    """Makes the larger model of `fourier`, and what differs in its training."""
    encoder = config.model.encoder
    encoder.num_blocks, encoder.num_self_attends_per_block = 1, 16
    encoder.self_attend_widening = 4
    if "conv" in name:
        config.model.input = common.conv_stem(channels=64, num_bands=64)
    else:
        config.model.input = common.section("image.ProjectedPixels")
    if name.endswith("finetune"):
        config.steps = 131_000
        config.optimizer = common.optimizer(
            "lamb",
            2e-4 if "conv" in name else 2e-3,
            {"name": "constant_cosine", "constant_fraction": 70 / 131, "end_value": 0.0},
            reference_batch_size=0,
        )
        return
    config.data.train = (
        f"decode | inception_crop({size}) | flip | resize({size}) | label_ids('label', 16) | "
        "keep('image', 'label_ids')"
    )
    config.data.eval = (
        f"decode | central_crop({size}) | resize_tf({size}) | label_ids('label', 16) | "
        "keep('image', 'label_ids')"
    )
    config.data.label_smoothing = config.data.mix_alpha = 0.0
    del config.data.mix_partner
    config.model.output.num_classes = JFT_CLASSES
    config.optimizer = common.optimizer(
        "lamb", 3e-4, {"name": "cosine", "end_value": 0.0}, reference_batch_size=0
    )
