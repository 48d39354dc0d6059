"""Handwritten digits, 8x8 pixels, from scikit-learn: the first thing to run. No download.

A Perceiver IO on raw pixels; 1,437 images to train on, 360 held out (a fixed stratified split).

    python -m experiments.run --config=configs/digits.py --workdir=runs/digits

Variants: `permuted` reorders the pixels of every image by one fixed permutation (after their
positions are built). A Perceiver should not care; a convolutional network would.

Expected: see experiments/results/README.md.
"""

from configs import common

VARIANTS = ("standard", "permuted")


def get_config(variant: str = ""):
    name, tiny = common.parse(variant, VARIANTS)
    config = common.base(batch_size=64, steps=2000)
    config.eval_every = 500
    config.checkpoint_every = 500
    config.data = common.data(
        "digits",
        train="keep('image', 'label')",
        evaluate="keep('image', 'label')",
    )
    config.data.in_memory = True
    config.data.readers = "threads:1"
    config.data.mean, config.data.std = (78.0,), (96.0,)
    config.data.label_smoothing = 0.1
    config.model = {
        "dtype": "float32",
        "input": common.pixels(num_bands=4),
        "encoder": common.encoder(
            num_latents=16,
            latent_channels=64,
            num_blocks=1,
            num_self_attends_per_block=3,
            num_cross_attend_heads=8,
            num_self_attend_heads=4,
            cross_attend_qk_channels=64,
            cross_attend_v_channels=64,
            dropout_rate=0.1,
            remat="full",
        ),
        "decoder": common.decoder(),
        "output": common.classification(num_classes=10, query_channels=64),
    }
    config.optimizer = common.adamw(2e-3, warmup_steps=100)
    if name == "permuted":
        config.model.input.permutation_seed = 0
    return common.shrink(config) if tiny else config
