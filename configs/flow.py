"""Optical flow: the released Perceiver IO (41,057,134 parameters), its training, and a small one.

| variant           | set                   | average EPE in the paper (Table 3)     |
|-------------------|-----------------------|----------------------------------------|
| `sintel`          | MPI-Sintel, clean     | 1.81                                   |
| `sintel_final`    | MPI-Sintel, final     | 2.42                                   |
| `kitti`           | KITTI 2015            | 4.98                                   |
| `autoflow`        | AutoFlow              | the paper's training                   |
| `autoflow_recipe` | generated scenes      | the same where AutoFlow is not at hand |
| `synthetic`       | generated scenes      | small: minutes on a CPU                |

Each also with `:tiny`. The figures are the paper's, of weights trained on AutoFlow alone and
evaluated on the training splits, the only ones with public truth; nobody has run them here.

    python -m experiments.run --config=configs/flow.py:sintel --workdir=runs/sintel --mode=eval \\
        --config.start.weights=flow --config.data.data_dir=/data/sintel

`data_dir` is the unpacked set (sintel.is.tue.mpg.de; www.cvlibs.net/datasets/kitti), with the
folder `training` in it. `--config.dense.chunk_size=16384` decodes in chunks, in less memory. The
overlaps make the paper's six evenly spaced tiles (app. H): 2 x 3 of 368 x 496 on 436 x 1024 and on
375 x 1242. `epe` is the mean over all pixels, as the papers count; `epe_valid` leaves out those
that Sintel marks as invalid; `image_epe` is the mean of the images' means, which is how RAFT
reports KITTI. The paper says KITTI and no year; 2015 is what others evaluate after training on
AutoFlow.

Training the first three fine-tunes on the set (from `start.weights`), with the paper's optimizer
(LAMB, cosine from 4e-4 at batch 512, app. H) at a batch and length for which there is no reference.

    python -m experiments.run --config=configs/flow.py:autoflow --workdir=runs/autoflow \\
        --config.data.data_dir=/data/autoflow
    python -m experiments.run --config=configs/flow.py:autoflow_recipe --workdir=runs/recipe
    python -m experiments.run --config=configs/flow.py:synthetic --workdir=runs/synthetic

`synthetic` has EPE 0.32 (three seeds) where zero has 1.013; it still misses small shapes.
The recipe is that of app. H: RAFT's augmentation, after a first phase without any (nothing is
learned without that phase), then growing. In the first phase each pair is read in both directions;
AutoFlow's public pairs have the flow forward only, so the one back is approximated
(`reverse_pair`). `autoflow` trains on the 40,000 public pairs (static_40k_png_1_of_4.zip to
4_of_4, autoflow-google.github.io) but the first 200, which it evaluates on; the paper had 400,000.
`autoflow_recipe` has scenes of ours in their place, in both directions throughout. The paper does
not say how long each phase is: `grow` in `config.data.train`
says it in pairs read, here a tenth of the training and up to a half. Nobody has run it.
"""

from configs import common, pairs

# Source, largest image, overlap.
SETS = {
    "sintel": ("sintel_clean", (436, 1024), 232),
    "sintel_final": ("sintel_final", (436, 1024), 232),
    "kitti": ("kitti2015_flow", (376, 1242), 123),
}
VARIANTS = (*SETS, "autoflow", "autoflow_recipe", "synthetic")
FIELDS = ("frames", "field", "valid", "occluded")


def get_config(variant: str = ""):
    name, tiny = common.parse(variant, VARIANTS)
    if name == "synthetic":
        config = synthetic(tiny)
    elif name in SETS:
        config = from_files(*SETS[name], tiny)
    elif name == "autoflow":
        config = autoflow(tiny)
    else:
        config = autoflow_recipe(tiny)
    return common.shrink(config) if tiny else config


def from_files(source, largest, min_overlap, tiny):
    """The released model, on a set in a local directory."""
    tile = (368, 496)
    if tiny:
        tile, largest, min_overlap = (16, 24), (20, 30), 4
    config = common.base(batch_size=8, steps=10_000)
    config.experiment = "dense"
    config.data = pairs.data(
        source, "training", window=tile, largest=largest, known=source.startswith("sintel")
    )
    config.data.eval_batch_size = 1
    config.dense = pairs.dense(min_overlap=min_overlap)
    config.model = released_size(tile)
    config.optimizer = pairs.flow_optimizer()
    return config


def autoflow(tiny):
    """The paper's training (app. H), on the public pairs of AutoFlow."""
    tile, size = ((16, 24), (20, 28)) if tiny else ((368, 496), (448, 576))
    config = papers_training(tile, tiny)
    config.data = pairs.data(
        "autoflow",
        "train[200:]",
        window=tile,
        largest=size,
        eval_split="train[:200]",
        occluded=False,
    )
    config.data.train = augmented(
        config, tile, tiny, first="reverse_pair(0.5, first_phase=True) | ", fields=FIELDS[:3]
    )
    config.data.eval_batch_size = 1
    if tiny:
        config.data.train_split, config.data.eval_split = "train[1:]", "train[:2]"
    return config


def autoflow_recipe(tiny):
    """The paper's training (app. H), on 400,000 generated pairs."""
    tile, size, displacement = (368, 496), (448, 576), 64.0
    if tiny:
        tile, size, displacement = (16, 24), (20, 30), 2.0
    config = papers_training(tile, tiny)
    config.data = pairs.data(
        "scenes", "train[:400000]", window=tile, largest=size, eval_split="test[:200]"
    )
    config.data.train = augmented(config, tile, tiny)
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
    if tiny:
        config.data.eval_split = "test[:8]"
    return config


def papers_training(tile, tiny):
    """Everything but the data: 400,000 pairs 480 times, in batches of 512."""
    config = common.base(batch_size=512, steps=375_000)
    config.experiment = "dense"
    config.eval_every = 10_000
    config.dense = pairs.dense(min_overlap=4 if tiny else 20)
    config.model = released_size(tile)
    config.optimizer = pairs.flow_optimizer()
    return config


def augmented(config, tile, tiny, first="", fields=FIELDS):
    """A first phase without augmentation, then RAFT's, growing."""
    positions = 20 if tiny else config.steps * config.batch_size
    return (
        f"grow({positions // 10}, {positions // 2}) | {first}augment_pair{tile} | jitter_pair "
        f"| erase_second | keep{fields}"
    )


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
