"""MNIST with at most 1M parameters (TFDS `mnist`): a convolutional stem, or raw pixels.

A small published Perceiver IO with 0.9M parameters reaches 98.16 % on pixels in 30 epochs
(krasserm/perceiver-io, its training examples); a small convolutional network 99.2 %.

    tfds build mnist --file_format=array_record        # once; pip install -e '.[prepare]'
    python -m experiments.run --config=configs/mnist.py --workdir=runs/mnist

Variants: `conv` (the default) has 7x7 tokens; in `conv_permuted` the pixels of every image take one
fixed random order first. `pixels` has 28x28 tokens, `permuted` is the same after a permutation that
the model cannot notice (positions are built before it); both run 12 epochs.

Expected: see experiments/results/README.md.
"""

from configs import common

VARIANTS = ("conv", "conv_permuted", "pixels", "permuted")


def get_config(variant: str = ""):
    name, tiny = common.parse(variant, VARIANTS)
    config = common.base(batch_size=64, steps=6000)
    config.eval_every = 1000
    config.checkpoint_every = 1000
    config.data = common.data(
        "mnist",
        train="decode | affine(8, 0.08, 1.5) | keep('image', 'label')",
        evaluate="decode | keep('image', 'label')",
    )
    config.data.in_memory = True
    config.data.mean, config.data.std = (33.3,), (78.6,)
    config.model = {
        "dtype": "float32",
        "input": common.pixels(num_bands=6),
        "encoder": common.encoder(
            num_latents=32,
            latent_channels=128,
            num_blocks=1,
            num_self_attends_per_block=3,
            num_cross_attend_heads=4,
            num_self_attend_heads=4,
            cross_attend_qk_channels=32,
            cross_attend_v_channels=32,
            remat="full",
        ),
        "decoder": common.decoder(),
        "output": common.classification(num_classes=10, query_channels=128),
    }
    config.optimizer = common.adamw(1e-3, warmup_steps=300)
    if name in ("pixels", "permuted"):
        config.steps = 60_000 * 12 // 64
    else:
        config.model.input = common.conv_stem(channels=64, num_bands=4)
    if name.endswith("permuted"):
        config.model.input.permutation_seed = 0
    return common.shrink(config) if tiny else config
