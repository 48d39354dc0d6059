"""Optical flow with the released Perceiver IO (41,057,134 parameters): Sintel and KITTI 2015.

| variant        | set                   | average EPE in the paper (Table 3) |
|----------------|-----------------------|------------------------------------|
| `sintel`       | MPI-Sintel, clean     | 1.81                               |
| `sintel_final` | MPI-Sintel, final     | 2.42                               |
| `kitti`        | KITTI 2015            | 4.98                               |

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

Training these variants fine-tunes on the set (from `start.weights`), with the paper's optimizer
(LAMB, cosine from 4e-4 at batch 512, app. H) at a batch and length for which there is no reference.
"""

from configs import common

# Source, largest image, overlap.
VARIANTS = {
    "sintel": ("sintel_clean", (436, 1024), 232),
    "sintel_final": ("sintel_final", (436, 1024), 232),
    "kitti": ("kitti2015_flow", (376, 1242), 123),
}


def get_config(variant: str = ""):
    name, tiny = common.parse(variant, tuple(VARIANTS))
    source, largest, min_overlap = VARIANTS[name]
    tile = (368, 496)
    if tiny:
        tile, largest, min_overlap = (16, 24), (20, 30), 4
    config = common.base(batch_size=8, steps=10_000)
    config.experiment = "dense"
    config.data = common.pairs(source, "training", window=tile, largest=largest)
    config.data.eval_batch_size = 1
    config.dense = common.dense(min_overlap=min_overlap)
    config.model = {
        "dtype": "float32",
        "input": {
            "module": "flow.FramePair",
            "channels": 64,
            "num_bands": 64,
            "max_resolution": tile,
        },
        "encoder": common.encoder(
            num_latents=2048,
            latent_channels=512,
            num_blocks=1,
            num_self_attends_per_block=24,
            num_self_attend_heads=16,
        ),
        "decoder": common.decoder(query_residual=False),
        "output": {"module": "flow.Flow", "shape": tile, "scale": 20 / 100},
    }
    config.optimizer = common.optimizer(
        "lamb",
        4e-4,
        {"name": "cosine", "end_value": 0.0},
        reference_batch_size=512,
    )
    return common.shrink(config) if tiny else config
