"""MNIST from raw pixels with at most 1M parameters (TFDS `mnist`).

A small published Perceiver IO with 0.9M parameters reaches 98.16 % (krasserm/perceiver-io, its
training examples); a small convolutional network 99.2 %.

    tfds build mnist --file_format=array_record        # once; pip install 'perceiver_jax[prepare]'
    python -m experiments.run --config=configs/mnist.py --workdir=runs/mnist

Variants: `permuted` reorders the pixels of every image by one fixed permutation (after their
positions are built).

Expected: see experiments/results/README.md.
"""

from configs import common

VARIANTS = ("standard", "permuted")


def get_config(variant: str = ""):
    name, tiny = common.parse(variant, VARIANTS)
    config = common.base(batch_size=64, steps=60_000 * 12 // 64)
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
    config.optimizer = common.optimizer(
        "adamw",
        2e-3,
        {"name": "cosine", "warmup_steps": 300, "end_value": 0.0},
        reference_batch_size=0,
        b2=0.99,
        weight_decay=0.05,
        clip_norm=10.0,
    )
    if name == "permuted":
        config.model.input.permutation_seed = 0
    return common.shrink(config) if tiny else config
