"""CIFAR-10 (TFDS `cifar10`), a small Perceiver IO on a CPU.

No Perceiver figure for CIFAR-10 with a recipe is published.

    tfds build cifar10 --file_format=array_record      # once; pip install -e '.[prepare]'
    python -m experiments.run --config=configs/cifar10.py --workdir=runs/cifar10

Variants: `pixels` (the default) has 32x32 tokens; `conv` has 8x8, of a convolutional stem;
`permuted` and `conv_permuted` reorder the pixels of every image by one fixed permutation, which the
first kind of model cannot notice and the second must.

Expected: see experiments/results/README.md.
"""

from configs import common

VARIANTS = ("pixels", "permuted", "conv", "conv_permuted")


def get_config(variant: str = ""):
    name, tiny = common.parse(variant, VARIANTS)
    config = common.base(batch_size=64, steps=50_000 * 4 // 64)
    config.eval_every = 1000
    config.checkpoint_every = 1000
    config.data = common.data(
        "cifar10",
        train="decode | pad_crop(4) | flip | keep('image', 'label')",
        evaluate="decode | keep('image', 'label')",
    )
    config.data.in_memory = True
    config.data.mean, config.data.std = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)
    config.data.label_smoothing = 0.1
    config.model = model(num_classes=10)
    config.optimizer = common.adamw(1e-3, warmup_steps=300)
    if name.startswith("conv"):
        config.model.input = common.conv_stem(channels=64, num_bands=8)
    if name.endswith("permuted"):
        config.model.input.permutation_seed = 0
    return common.shrink(config) if tiny else config


def model(num_classes) -> dict:
    """Returns the `model` section: each pixel of a small image is a token."""
    return {
        "dtype": "float32",
        "input": common.pixels(num_bands=8),
        "encoder": common.encoder(
            num_latents=32,
            latent_channels=128,
            num_blocks=1,
            num_self_attends_per_block=3,
            num_cross_attend_heads=4,
            num_self_attend_heads=4,
            cross_attend_qk_channels=64,
            cross_attend_v_channels=64,
            remat="full",
        ),
        "decoder": common.decoder(),
        "output": common.classification(num_classes=num_classes, query_channels=128),
    }
