"""Optical flow: the released Perceiver IO (41,057,134 parameters), its training, and a small one.

| variant           | set                   | average EPE in the paper (Table 3)     |
|-------------------|-----------------------|----------------------------------------|
| `sintel`          | MPI-Sintel, clean     | 1.81                                   |
| `sintel_final`    | MPI-Sintel, final     | 2.42                                   |
| `kitti`           | KITTI 2015            | 4.98                                   |
| `autoflow_recipe` | generated scenes      | the paper's training, augmented        |
| `synthetic`       | generated scenes      | small: minutes on a CPU                |

Each also with `:tiny`. The figures are the paper's, of weights trained on AutoFlow alone and
evaluated on the training splits, the only ones with public truth; nobody has run them here.

    python -m experiments.run --config=configs/flow.py:sintel --workdir=runs/sintel --mode=eval \\
        --config.start.weights=flow --config.data.data_dir=/data/sintel

`data_dir` is the unpacked set (sintel.is.tue.mpg.de; www.cvlibs.net/datasets/kitti), with the
folder `training` in it. `--config.dense.chunk_size=16384` decodes in chunks, in less memory. The
overlaps make the paper's six evenly spaced tiles (app. H): 2 x 3 of 368 x 496 on 436 x 1024 and on
375 x 1242. `epe` is the mean over all pixels; `image_epe` the mean of the images' means, which is
how RAFT reports KITTI. Pixels that Sintel marks as invalid are left out. The paper says KITTI and
no year; 2015 is what others evaluate after training on AutoFlow.

Training the first three fine-tunes on the set (from `start.weights`), with the paper's optimizer
(LAMB, cosine from 4e-4 at batch 512, app. H) at a batch and length for which there is no reference.

    python -m experiments.run --config=configs/flow.py:autoflow_recipe --workdir=runs/recipe
    python -m experiments.run --config=configs/flow.py:synthetic --workdir=runs/synthetic

`synthetic` has EPE 0.32 (three seeds) where zero has 1.013; it still misses small shapes.
The recipe is that of app. H: RAFT's augmentation, after a first phase without any (nothing is
learned without that phase), then growing, each pair read forward or backward; the scenes are ours,
in AutoFlow's place. The paper does not say how long each phase is: `grow` in `config.data.train`
says it in pairs read, here a tenth of the training and up to a half. Nobody has run it.
"""

from configs import common, pairs

# Source, largest image, overlap.
SETS = {
    "sintel": ("sintel_clean", (436, 1024), 232),
    "sintel_final": ("sintel_final", (436, 1024), 232),
    "kitti": ("kitti2015_flow", (376, 1242), 123),
}
VARIANTS = (*SETS, "autoflow_recipe", "synthetic")
FIELDS = ("frames", "field", "valid", "occluded")


def get_config(variant: str = ""):
    name, tiny = common.parse(variant, VARIANTS)
    if name == "synthetic":
        config = synthetic(tiny)
    elif name in SETS:
        config = from_files(*SETS[name], tiny)
    else:
        config = autoflow(tiny)
    return common.shrink(config) if tiny else config


def from_files(source, largest, min_overlap, tiny):
    """The released model, on a set in a local directory."""
    tile = (368, 496)
    if tiny:
        tile, largest, min_overlap = (16, 24), (20, 30), 4
    config = common.base(batch_size=8, steps=10_000)
    config.experiment = "dense"
    config.data = pairs.data(source, "training", window=tile, largest=largest)
    config.data.eval_batch_size = 1
    config.dense = pairs.dense(min_overlap=min_overlap)
    config.model = released_size(tile)
    config.optimizer = pairs.flow_optimizer()
    return config


def autoflow(tiny):
    """The paper's training (app. H): 400,000 pairs 480 times, in batches of 512."""
    tile, size, displacement = (368, 496), (448, 576), 64.0
    if tiny:
        tile, size, displacement = (16, 24), (20, 30), 2.0
    config = common.base(batch_size=512, steps=375_000)
    config.experiment = "dense"
    config.eval_every = 10_000
    config.data = pairs.data(
        "scenes", "train[:400000]", window=tile, largest=size, eval_split="test[:200]"
    )
    positions = 20 if tiny else config.steps * config.batch_size
    config.data.train = (
        f"grow({positions // 10}, {positions // 2}) | augment_pair{tile} | jitter_pair "
        f"| erase_second | keep{FIELDS}"
    )
    config.data.eval_batch_size = 1
    config.data.source_options = pairs.scenes(
        "flow",
        size,
        layers=(3, 12),
        radius=(0.04, 0.35),
        displacement=displacement,
        rotation=10.0,
        scaling=0.1,
        direction="forward",
    )
    config.data.train_source_options = {"direction": "random"}
    config.dense = pairs.dense(min_overlap=20)
    config.model = released_size(tile)
    config.optimizer = pairs.flow_optimizer()
    if tiny:
        config.dense.min_overlap = 4
        config.data.eval_split = "test[:8]"
    return config


def released_size(tile):
    return pairs.released_size(frame_pair(max_resolution=tile), output(shape=tile))


def frame_pair(**fields):
    return common.section("flow.FramePair", without=("eyes",), **fields)


def output(**fields):
    return common.section("flow.Flow", without=("num_bands", "max_resolution"), **fields)


def synthetic(tiny):
    """A small model whose patches are as wide as the motions."""
    size = (12, 12) if tiny else (24, 24)
    config = pairs.small(
        "scenes",
        size,
        steps=8000,
        input=frame_pair(channels=48, patch=(5, 5), num_bands=6),
        output=output(shape=size, scale=1.0),
        tiny=tiny,
    )
    config.data.source_options = pairs.scenes(
        "flow",
        size,
        layers=(1, 3),
        radius=(0.2, 0.5),
        displacement=3.0,
        rotation=5.0,
        scaling=0.05,
        direction="forward",
    )
    config.data.train_source_options = {"direction": "random"}
    return config
