"""Rectified stereo: the disparity of every pixel of the left view, or a pair's class.

No Perceiver on these sets has been published, so there is no figure to reproduce. The large
variants use the model of the released optical flow (configs/flow.py) with a window and an output
for stereo. The file is long because this docstring is the record of all variants.

| variant          | what                                                                         |
|------------------|------------------------------------------------------------------------------|
| `sceneflow`      | trains on FlyingThings3D, clean; evaluates on its test split (EPE)           |
| `kitti`          | KITTI 2015, the first 160 pairs to fine-tune on, the last 40 to evaluate     |
| `middlebury`     | evaluates on the 15 training scenes of the third evaluation, quarter size    |
| `cityscapes`     | TFDS cityscapes/stereo_disparity (its files are fetched by hand)             |
| `textured`       | trains on generated scenes of textured shapes; never run to the end          |
| `textured_small` | the same in 24 x 24, minutes on a CPU: EPE 0.210 after 2,266 steps (seed 0), |
|                  | where the best constant has 0.810 and StereoSGBM 0.319                       |
| `middlebury2014` | evaluates `textured_small` on photographs, shrunk to a fifteenth             |
| `rds`            | random-dot stereograms of 24 x 24, minutes on a CPU: EPE 0.170 (3 seeds),    |
|                  | where the best constant has 1.049, block matching 0.249, StereoSGBM 0.230    |
| `depth_digits`   | real digits cut out in depth in random dots, minutes on a CPU: 88.6 % (three |
|                  | seeds) with two eyes, 9.8 % with one                                         |
| `smallnorb`      | TFDS smallnorb: toys of five kinds, by two cameras                           |
| `smallnorb_mono` | the same with the left camera alone                                          |

Each also with `:tiny`. Published stereo networks, for scale: Scene Flow EPE 1.09, KITTI 2015 D1-all
2.32 % (PSMNet, Chang and Chen 2018). Published errors on smallNORB with both cameras: 5.2 % (a
convolutional network), 1.8 % (capsules, Hinton et al. 2018).

    python -m experiments.run --config=configs/stereo.py:sceneflow --workdir=runs/sceneflow \\
        --config.data.data_dir=/data/sceneflow --config.model.dtype=bfloat16
    python -m experiments.run --config=configs/stereo.py:middlebury --workdir=runs/middlebury \\
        --mode=eval --config.start.weights=runs/sceneflow --config.data.data_dir=/data/MiddEval3
    python -m experiments.run --config=configs/stereo.py:rds --workdir=runs/rds
    python -m experiments.plot --workdir=runs/rds

The last one also draws the error against interocular correlation, with the controls that vision
science uses, and writes the figures as a table. `data_dir` is the unpacked set, or TFDS's own; an
error says what must be in it and where it is obtained.

`middlebury2014` shows photographs to `textured_small`, shrunk until their disparities are those of
its training. Middlebury's Motorcycle at quarter size: error 8.68 pixels and 81.2 % of the pixels
wrong by more than 2, after 1,000 steps; the best constant has 14.79 and 96.3 %, StereoSGBM 2.48 and
13.4 %. So it finds the coarse layout. `plot` makes the picture and this table:

    python -m experiments.run --config=configs/stereo.py:middlebury2014 --workdir=runs/motorcycle \\
        --mode=eval --config.start.weights=runs/textured_small \\
        --config.data.data_dir=/data/middlebury2014
    python -m experiments.plot --workdir=runs/motorcycle

One eye against two, with the same model: `--config.model.input.eyes=left` reads one view (a
narrower projection), `=left_twice` the left one in both places (the same parameters).
`depth_digits` in dots has nothing for one eye; `--config.data.source_options.pattern=mix` shows the
digit's outline to one eye too (400 steps do not learn it), and
`--config.data.source_options.images=mnist` takes other digits. After 700 steps of `textured_small`
two eyes have EPE 0.346, the left one alone has 0.808.
`--config.model.input.module=stereo.SeparateEyes` gives each eye tokens of its own. The optimizer of
the large ones is that of the optical flow (Perceiver IO, app. H), batch and steps are ours and
untuned.
"""

from configs import common, pairs

# Source, split to train on, split to evaluate, largest image, whether occlusions are known, and
# what makes pairs of its examples.
SETS = {
    "sceneflow": ("sceneflow_clean", "train", "test", (540, 960), False, ""),
    "kitti": ("kitti2015_stereo", "training[:160]", "training[160:]", (376, 1242), True, ""),
    "middlebury": ("middlebury", "trainingQ", "trainingQ", (500, 750), True, ""),
    "cityscapes": (
        *("cityscapes/stereo_disparity", "train", "validation"),
        *((1024, 2048), False, "cityscapes_pair"),
    ),
}
SMALL_ON_REAL = "middlebury2014"
CLASSES = ("smallnorb", "smallnorb_mono", "depth_digits")
VARIANTS = (*SETS, "textured", "textured_small", SMALL_ON_REAL, "rds", *CLASSES)


def get_config(variant: str = ""):
    name, tiny = common.parse(variant, VARIANTS)
    if name == "rds":
        config = random_dots(tiny)
    elif name == "textured":
        config = textured(tiny)
    elif name == "textured_small":
        config = textured_small(tiny)
    elif name == SMALL_ON_REAL:
        config = small_on_real(tiny)
    elif name == "depth_digits":
        config = depth_digits(tiny)
    elif name in CLASSES:
        config = smallnorb(tiny, eyes="left" if name == "smallnorb_mono" else "both")
    else:
        config = from_files(*SETS[name], tiny)
    return common.shrink(config) if tiny else config


def from_files(source, split, eval_split, largest, occluded, first, tiny):
    """The released flow model's size, on a set in a local directory."""
    tile, min_overlap = (368, 496), 20
    if tiny:
        tile, largest, min_overlap = (16, 24), (20, 32), 4
        split, eval_split = split.partition("[")[0], eval_split.partition("[")[0]
    config = common.base(batch_size=32, steps=200_000)
    config.experiment = "dense"
    config.eval_every = 20_000
    config.data = pairs.data(
        source,
        split,
        window=tile,
        largest=largest,
        eval_split=eval_split,
        occluded=occluded,
        first=first,
    )
    config.data.eval_batch_size = 1
    config.dense = pairs.dense(min_overlap=min_overlap)
    config.model = released_size(tile)
    config.optimizer = pairs.flow_optimizer()
    return config


def textured(tiny):
    """The same model and optimizer on generated scenes, larger than its window."""
    tile, size, disparity = (368, 496), (416, 544), (0.0, 96.0)
    if tiny:
        tile, size, disparity = (16, 24), (20, 32), (0.0, 4.0)
    config = from_files("scenes", "train", "test[:200]", size, True, "", False)
    config.data.train = (
        f"augment_pair{(*tile, 1.0, (0, 0.1))} | jitter_pair | erase_second "
        "| keep('frames', 'field', 'valid', 'occluded')"
    )
    config.data.source_options = pairs.scenes(
        "stereo", size, layers=(3, 12), radius=(0.04, 0.35), disparity=disparity, slant=0.05
    )
    config.data.train_source_options = {"photometric": 0.5}
    if tiny:
        config.model = released_size(tile)
        config.dense.min_overlap = 4
        config.data.eval_split = "test[:8]"
    return config


def released_size(tile):
    return pairs.released_size(
        common.section("stereo.StackedEyes", max_resolution=tile),
        common.section("stereo.Disparity", shape=tile),
    )


def random_dots(tiny):
    """A small model whose patches are as wide as the disparities."""
    size = (12, 12) if tiny else (24, 24)
    config = small_disparity("stereograms", size, tiny)
    config.data.source_options = {
        "size": size,
        "density": 1.0,
        "dot_size": 1,
        "disparity": (-2.0, 2.0),
        "surface": "mix",
        "subpixel": 1,
        "correlation": 1.0,
        "reversed": 0.0,
        "vertical": 0,
        "eyes": "both",
        "seed": 0,
    }
    return config


def textured_small(tiny):
    """The small model of `rds` on textured scenes, with larger patches."""
    size, disparity = ((12, 12), (0.0, 2.0)) if tiny else ((24, 24), (0.0, 4.0))
    config = small_disparity("scenes", size, tiny)
    config.data.source_options = pairs.scenes(
        "stereo", size, layers=(1, 3), radius=(0.2, 0.5), disparity=disparity, slant=0.05
    )
    config.model.input.update({"channels": 48, "patch": (3, 7), "num_bands": 6})
    config.model.output.num_bands = 0  # queries from the left view's tokens, which have its edges
    return config


def small_on_real(tiny):
    """Evaluates `textured_small` on photographs, shrunk to the disparities of its training."""
    config = textured_small(tiny)
    fields = ("frames", "field", "valid")
    size, config.dense.shrink = ((32, 48), 2) if tiny else ((510, 750), 15)
    config.dense.min_overlap = 4 if tiny else 12
    window = tuple(config.model.output.shape)
    config.data = common.reading(
        "middlebury2014",
        train=f"crop_pair{window} | keep{fields}",
        evaluate=f"pad_pair{size} | keep{(*fields, 'size')}",
        train_split="real",
        eval_split="real",
    )
    config.data.eval_batch_size = 1
    return config


def small_disparity(source, size, tiny):
    output = common.section("stereo.Disparity", shape=size, scale=1.0, num_bands=12)
    return pairs.small(source, size, steps=4000, input=small_eyes(), output=output, tiny=tiny)


def small_eyes():
    return common.section("stereo.StackedEyes", channels=32, patch=(1, 7), num_bands=12)


def depth_digits(tiny):
    """The small model of `rds` that names a digit, in place of the disparities."""
    config = classes("depth_digits", 10, keep="keep('frames', 'label')")
    config.data.eval_split = "test[:8]" if tiny else "test[:2000]"
    config.data.readers = "threads:1"
    config.data.source_options = {
        "size": (12, 12) if tiny else (24, 24),
        "disparity": (0, 2),
        "shift": 2,
        "pattern": "dots",
        "images": "digits",
        "seed": 0,
    }
    return config


def smallnorb(tiny, eyes):
    """Five kinds of toys, photographed by two cameras (LeCun et al. 2004)."""
    side = 16 if tiny else 88
    pair = "decode | label_pair('image', 'image2', 'label_category')"
    keep = "keep('frames', 'label')"
    config = classes("smallnorb", 5, keep=keep)
    config.steps = 20_000
    config.eval_every = 1000
    config.data.train = f"{pair} | crop_pair({side}, {side}) | jitter_pair(0.5, 0.0) | {keep}"
    config.data.eval = f"{pair} | middle_pair({side}, {side}) | {keep}"
    config.model.input.update({"channels": 64, "patch": (3, 7), "num_bands": 32, "eyes": eyes})
    config.model.encoder.update(
        {"num_latents": 128, "latent_channels": 128, "num_self_attends_per_block": 4}
    )
    return config


def classes(source, num_classes, *, keep):
    config = common.base(batch_size=64, steps=800)
    config.data = common.data(source, train=keep, evaluate=keep)
    config.data.mean = config.data.std = (127.5,) * 3
    config.model = {
        "dtype": "float32",
        "input": small_eyes(),
        "encoder": pairs.small_encoder(),
        "decoder": common.decoder(),
        "output": common.classification(num_classes, query_channels=64),
    }
    config.optimizer = pairs.small_optimizer()
    return config
