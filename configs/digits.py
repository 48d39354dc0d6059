"""Handwritten digits, 8x8 pixels, from scikit-learn: the first thing to run. No download.

A Perceiver IO on raw pixels; 1,437 images to train on, 360 held out (a fixed stratified split).

    python -m experiments.run --config=configs/digits.py --workdir=runs/digits

Variants: `permuted` reorders the pixels of every image by one fixed permutation (after their
positions are built). A Perceiver should not care; a convolutional network would.

`mnist` trains on MNIST (TFDS `mnist`) in the format of these digits, and `few` on ten labelled
ones, for example from there with all but the decoder frozen:

    python -m experiments.run --config=configs/digits.py:mnist --workdir=runs/digits_mnist
    python -m experiments.run --config=configs/digits.py:few --workdir=runs/digits_few \\
        --config.start.weights=runs/digits_mnist --config.start.fresh=output \\
        --config.optimizer.multipliers='(("^input|^encoder", 0.0),)'

`python -m experiments.transfer --study=digits` compares this with training from scratch.

Expected: see experiments/results/README.md.
"""

from configs import common

VARIANTS = ("standard", "permuted", "mnist", "few")


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
    if name == "mnist":
        # A digit's box of 20 pixels becomes the 8 pixels that scikit-learn's digits fill.
        small = "decode | central_crop(20, 8) | resize_area(8)"
        config.steps = 1500
        config.data.source = "mnist"
        config.data.train = f"{small} | affine(8, 0.08, 0.5) | keep('image', 'label')"
        config.data.eval = f"{small} | keep('image', 'label')"
    if name == "few":
        config.batch_size, config.steps, config.eval_every = 10, 300, 0
        config.data.source = "experiments.transfer.digits:few_digits"
        config.data.train_source_options = {"examples": 10, "draw": 0}
        config.data.train = "affine(8, 0.08, 0.5) | keep('image', 'label')"
        config.optimizer = common.adamw(1e-3, warmup_steps=30)
    return common.shrink(config) if tiny else config
