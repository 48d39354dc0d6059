"""Rectified stereo: the disparity of every pixel of the left view, with the model of optical flow.

Nobody has published a Perceiver on these sets, so there is no figure to reproduce. The model is
that of the released optical flow (configs/flow.py) with a window and an answer for stereo; two
views instead of one widen its first projection and change nothing else.

| variant      | what                                                                             |
|--------------|----------------------------------------------------------------------------------|
| `sceneflow`  | trains on FlyingThings3D, clean; evaluates on its test split (EPE)               |
| `kitti`      | KITTI 2015, the first 160 pairs to fine-tune on, the last 40 to evaluate (D1)    |
| `middlebury` | evaluates on the 15 training scenes of the third evaluation, quarter size (bad)  |

Each also with `:tiny`. Published stereo networks, for scale: Scene Flow EPE 1.09, KITTI 2015 D1-all
2.32 % (PSMNet, Chang and Chen 2018).

    python -m experiments.run --config=configs/stereo.py:sceneflow --workdir=runs/sceneflow \\
        --config.data.data_dir=/data/sceneflow --config.model.dtype=bfloat16
    python -m experiments.run --config=configs/stereo.py:middlebury --workdir=runs/middlebury \\
        --mode=eval --config.start.weights=runs/sceneflow --config.data.data_dir=/data/MiddEval3

`data_dir` is the unpacked set; an error says what must be in it and where it is obtained.
Controls: `--config.model.input.eyes=left` or `=left_twice` reads one eye alone.
`--config.model.input.module=stereo.SeparateEyes` gives each eye tokens of its own. The optimizer is
that of the optical flow (Perceiver IO, app. H), batch and steps are ours and untuned.
"""

from configs import common

# Source, split to train on, split to evaluate, largest image, whether occlusions are known.
VARIANTS = {
    "sceneflow": ("sceneflow_clean", "train", "test", (540, 960), False),
    "kitti": ("kitti2015_stereo", "training[:160]", "training[160:]", (376, 1242), True),
    "middlebury": ("middlebury", "trainingQ", "trainingQ", (500, 750), True),
}


def get_config(variant: str = ""):
    name, tiny = common.parse(variant, tuple(VARIANTS))
    source, split, eval_split, largest, occluded = VARIANTS[name]
    tile, min_overlap = (368, 496), 20
    if tiny:
        tile, largest, min_overlap = (16, 24), (20, 32), 4
        split, eval_split = split.partition("[")[0], eval_split.partition("[")[0]
    config = common.base(batch_size=32, steps=200_000)
    config.experiment = "dense"
    config.eval_every = 20_000
    config.data = common.pairs(
        source, split, window=tile, largest=largest, eval_split=eval_split, occluded=occluded
    )
    config.data.eval_batch_size = 1
    config.dense = common.dense(min_overlap=min_overlap)
    config.model = {
        "dtype": "float32",
        "input": {
            "module": "stereo.StackedEyes",
            "channels": 64,
            "num_bands": 64,
            "max_resolution": tile,
            "eyes": "both",
        },
        "encoder": common.encoder(
            num_latents=2048,
            latent_channels=512,
            num_blocks=1,
            num_self_attends_per_block=24,
            num_self_attend_heads=16,
        ),
        "decoder": common.decoder(query_residual=False),
        "output": {
            "module": "stereo.Disparity",
            "shape": tile,
            "scale": 20 / 100,
            "num_bands": 0,  # of Fourier queries; 0: the queries are the left view's tokens
            "max_resolution": (),
        },
    }
    config.optimizer = common.optimizer(
        "lamb", 4e-4, {"name": "cosine", "end_value": 0.0}, reference_batch_size=512
    )
    return common.shrink(config) if tiny else config
