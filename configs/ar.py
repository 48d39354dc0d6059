"""Perceiver AR: predicting a sequence from all before it (Hawthorne et al. 2022).

| variant      | M       | N     | layers x width | of                                             |
|--------------|---------|-------|----------------|------------------------------------------------|
| `copy`       | 32      | 16    | 1 x 128        | random bytes and their mirror image            |
| `copy_512`   | 512     | 256   | 1 x 128        | the same                                       |
| `copy_131k`  | 131,072 | 1,024 | 6 x 1024       | the same                                       |
| `bytes`      | 8,192   | 1,024 | 12 x 768       | any files, as one stream of bytes              |
| `pg19`       | 4,096   | 1,024 | 60 x 1024      | the books of TFDS's `pg19`, as bytes           |
| `imagenet64` | 12,288  | 1,024 | 60 x 1024      | TFDS's `downsampled_imagenet/64x64`, rasters   |
| `digits`     | 64      | 32    | 2 x 64         | scikit-learn's digits, rasters                 |
| `small`      | 256     | 64    | 3 x 128        | the sources of Python's own standard library   |
| `small_64`   | 64      | 64    | 3 x 128        | the same                                       |
| `small_1024` | 1,024   | 64    | 3 x 128        | the same                                       |

Each also with `:tiny`. N latents are the last of M inputs.

    python -m experiments.run --config=configs/ar.py:copy --workdir=runs/copy
    python -m experiments.run --config=configs/ar.py:small --workdir=runs/ar
    python -m experiments.run --config=configs/ar.py:bytes --workdir=runs/tunes \\
        --config.data.data_dir=/data/abc --config.data.source_options.utf8=False \\
        --config.data.train_split='train/*.abc' --config.data.eval_split='test/*.abc'
    python -m experiments.run --config=configs/ar.py:imagenet64 --workdir=runs/imagenet64 \\
        --config.data.data_dir=/data/tfds   # with downsampled_imagenet/64x64: docs/data.md

Recipe of the released code (Apache-2.0, google-research/perceiver-ar): loss at the latents alone,
plus 1e-4 log(Z)^2; Adam 3e-4, 0.9, 0.999, 1e-8, clipped to norm 1, without decay; 10,000 steps of
warm-up, 1,000 in the copy task; then constant, a cosine in the copy task and in the last 50,000
steps of ImageNet. Batches of 2,048, of 4,096 in the copy task. Dropout 0.1. Crops that end anywhere
from N inputs on, in the copy task from half of the sequence. Figures of the paper: copying 131,072
positions 100 % after 25,000 steps; ImageNet 64 x 64 3.40 bits per dimension (750,000 steps); PG-19
28.9 word perplexity at M = 2,048 and 29.0 at 4,096 (974.6M parameters, of subwords).

Ours: `pg19` reads bytes, not subwords, so its perplexity would have to be converted; its sizes are
those that add up to the paper's number of parameters: 974.2M with 32,000 subwords. The paper drops
0.875 to 0.97 of its inputs there. An evaluation scores the last M bytes of each book. `imagenet64`
scores all values in passes that end 512 places apart. `bytes` has the sizes of flaxformer's base
model. None of these four has been run to the end.

Runs on one core that a dozen processes shared (jax 0.10.2, float32); CPU time with compiling. With
the inputs before the latents hidden, `copy` can know 2 of 16 ids: 12.8 % and 4.85 nats. Held-out
files of `small`: order-4 n-grams 2.107 bits, `bz2` 1.738 (experiments/results/README.md).

| variant, seed 0 | steps | CPU time | accuracy | nats   | bits per byte |
|-----------------|-------|----------|----------|--------|---------------|
| `copy`          | 2,000 | 83 s     | 100 %    | 0.0039 | 0.0056        |
| the same hidden | 1,500 | 60 s     | 12.9 %   | 4.8536 | 7.0022        |
| `copy_512`      | 900   | < 26 min | 99.99 %  | 0.0057 | 0.0082        |
| `small_64`      | 1,000 | 134 s    | 62.8 %   | 1.4045 | 2.0263        |
| `small`         | 1,000 | 155 s    | 63.2 %   | 1.3802 | 1.9912        |
| `small_1024`    | 1,000 | 309 s    | 63.1 %   | 1.3835 | 1.9959        |

    HIDE="byte_ids(ends=True) | last_ids(17) | keep('ids', 'num_ids', 'num_scored')"
    python -m experiments.run --config=configs/ar.py:copy --workdir=runs/hidden \\
        --config.data.train="$HIDE" --config.data.eval="$HIDE" --config.steps=1500
    python -m experiments.benchmark.ngrams   # n-grams and compressors on the same files
"""

import sysconfig

from configs import common
from perceiver_jax.ar import PerceiverAR

VARIANTS = (
    "copy",
    "copy_512",
    "copy_131k",
    "bytes",
    "pg19",
    "imagenet64",
    "digits",
    "small",
    "small_64",
    "small_1024",
)
KEEP = "keep('ids', 'num_ids', 'num_scored')"


def get_config(variant: str = ""):
    name, tiny = common.parse(variant, VARIANTS)
    kind, _, size = name.partition("_")
    config = MAKERS[kind](size, tiny)
    config.experiment = "ar"
    return common.shrink(config) if tiny else config


def copies(size: str, tiny: bool):
    """Sequences of which the second half mirrors the first; M counts SOS and EOS."""
    long = size == "131k"
    length = {"": 32, "512": 512, "131k": 131_072}[size]
    fields = {"channels": 128, "num_layers": 1, "num_cross_attend_heads": 4}
    fields |= {"num_self_attend_heads": 4, "remat": "none"}
    if long:
        config = recipe(4096, 25_000, cosine(1000))
        fields = {"dropout_rate": 0.1, "dtype": "bfloat16", "remat": "full"}
    else:
        config = recipe(64, 900 if size else 2000, cosine(100), rate=2e-3)
    length = min(length, 32) if tiny else length
    latents = 1024 if long and not tiny else length // 2
    shortest = length // 2 + 1
    if size == "512":
        fields["num_cross_attend_heads"] = 1  # all frequencies of the places in one product
        shortest = length * 7 // 8 + 1  # fewer targets are random
    config.data = common.reading(
        "mirrored",
        train=f"byte_ids(ends=True) | crop_ids({length}, {shortest}) | {KEEP}",
        evaluate=f"byte_ids(ends=True) | last_ids({length}) | {KEEP}",
        eval_split="test[:1024]",
    )
    config.data.source_options = {"length": length}
    config.model = model(tiny, max_length=length, num_latents=latents, **fields)
    return config


def files(size: str, tiny: bool):
    """Any files as one stream of bytes; a model of flaxformer's base size."""
    del size
    config = recipe(128, 100_000, {"name": "constant", "warmup_steps": 10_000})
    config.data = stream(*(40, 8) if tiny else (8192, 1024))
    config.data.train_split, config.data.eval_split = "train/*.txt", "test/*.txt"
    config.model = model(
        tiny,
        max_length=40 if tiny else 8192,
        num_latents=8 if tiny else 1024,
        num_layers=12,
        channels=768,
        num_cross_attend_heads=12,
        num_self_attend_heads=12,
        positions="rotary",
        dropout_rate=0.1,
    )
    return config


def small(size: str, tiny: bool):
    """A size for one CPU core, on the sources of Python's own standard library."""
    length = 40 if tiny else int(size or 256)
    latents = 8 if tiny else 64
    config = recipe(32, 1000, cosine(100), rate=2e-3)
    config.data = stream(length, latents)
    config.data.data_dir = sysconfig.get_path("stdlib")
    config.data.train_split = "[!x-z]*.py"
    config.data.eval_split = "this.py" if tiny else "[x-z]*.py"
    config.model = model(
        tiny,
        max_length=length,
        num_latents=latents,
        num_layers=3,
        channels=128,
        num_cross_attend_heads=4,
        num_self_attend_heads=4,
        positions="rotary",
        remat="none",
    )
    return config


def stream(length: int, latents: int):
    """The `data` section of files: windows to train on, and each byte once to evaluate."""
    data = common.reading(
        "texts",
        train=f"byte_ids | crop_ids({length + 1}, {latents + 1}) | {KEEP}",
        evaluate=f"byte_ids | last_ids({length + 1}) | {KEEP}",
    )
    data.source_options = {"length": latents, "context": length + 1 - latents, "utf8": True}
    data.train_source_options = {"length": length + 1, "context": 0}
    return data


def books(size: str, tiny: bool):
    """The widest model: inputs of 4,096 channels, 128 heads of the cross-attend."""
    del size
    length, latents = (40, 8) if tiny else (4096, 1024)
    config = recipe(2048, 200_000, {"name": "constant", "warmup_steps": 10_000})
    config.ar.stride = latents
    config.data = common.reading(
        "pg19",
        train=f"byte_ids(ends=True) | crop_ids({length + 1}, {latents + 1}) | {KEEP}",
        evaluate=f"byte_ids(ends=True) | last_ids({length + 1}) | {KEEP}",
    )
    config.data.source_options = {"field": "book_text", "join": 1}
    config.data.eval_batch_size = 32
    config.model = model(
        tiny,
        max_length=length,
        num_latents=latents,
        num_layers=60,
        channels=1024,
        input_channels=4096,
        num_cross_attend_heads=128,
        positions="rotary",
        dropout_rate=0.1,
        input_dropout_rate=0.875,
        dtype="bfloat16",
        remat="full",
    )
    return config


def rasters(size: str, tiny: bool):
    """Images of 64 x 64 pixels, value by value; positions by row, column and channel."""
    del size
    side, latents = (4, 8) if tiny else (64, 1024)
    length = 3 * side**2
    schedule = {"name": "constant_cosine", "warmup_steps": 10_000, "end_value": 0.0}
    config = recipe(2048, 750_000, schedule | {"constant_fraction": 700 / 750})
    config.ar.stride, config.ar.unit = latents // 2, "dimension"
    first = f"decode | resize({side}) | raster_ids" if tiny else "decode | raster_ids"
    config.data = common.reading(
        "downsampled_imagenet/64x64",
        train=f"{first} | crop_ids({length + 1}, {latents + 1}) | {KEEP}",
        evaluate=f"{first} | last_ids({length + 1}) | {KEEP}",
        eval_split="validation",
    )
    config.data.eval_batch_size = 64
    config.model = model(
        tiny,
        max_length=length,
        num_latents=latents,
        num_layers=60,
        positions="learned",
        position_shape=(side, side, 3),
        dropout_rate=0.1,
        dtype="bfloat16",
        remat="full",
    )
    return config


def digits(size: str, tiny: bool):
    """Images of 8 x 8 values of 17 greys, which a CPU learns to complete in two minutes.

    Seed 0: 1.86 bits a value of the test images; greys alike would be 4.09.
    """
    del size
    latents = 8 if tiny else 32
    config = recipe(64, 1500, cosine(100), rate=2e-3)
    config.ar.stride, config.ar.unit = latents // 2, "dimension"
    config.data = common.reading(
        "digits",
        train=f"raster_ids | crop_ids(65, {latents + 1}) | {KEEP}",
        evaluate=f"raster_ids | last_ids(65) | {KEEP}",
    )
    config.data.in_memory = True
    config.model = model(
        tiny,
        max_length=64,
        num_latents=latents,
        num_layers=2,
        channels=64,
        num_cross_attend_heads=4,
        num_self_attend_heads=4,
        positions="learned",
        position_shape=(8, 8, 1),
        dropout_rate=0.1,
        remat="none",
    )
    return config


def model(tiny: bool, **fields):
    """The `model` section."""
    section = {"module": "ar.PerceiverAR", **common.defaults(PerceiverAR), "dtype": "float32"}
    section |= fields
    if tiny:
        section |= {"num_layers": 2, "channels": 32, "dtype": "float32"}
        section |= {"num_cross_attend_heads": 2, "num_self_attend_heads": 2}
        section |= {"input_channels": 48} if "input_channels" in fields else {}
    return section


def recipe(batch_size: int, steps: int, schedule: dict, *, rate: float = 3e-4):
    """The recipe of the released code: Adam without decay, gradients clipped to norm 1."""
    config = common.base(batch_size=batch_size, steps=steps)
    config.ar = {"z_loss": 1e-4, "stride": 0, "unit": "byte"}
    config.optimizer = common.optimizer(
        "adamw",
        rate,
        schedule,
        reference_batch_size=0,
        b2=0.999,
        eps=1e-8,
        weight_decay=0.0,
        clip_norm=1.0,
    )
    return config


def cosine(warmup_steps: int):
    """The schedule of short runs."""
    return {"name": "cosine", "warmup_steps": warmup_steps, "end_value": 0.0}


MAKERS = {
    "copy": copies,
    "bytes": files,
    "pg19": books,
    "imagenet64": rasters,
    "digits": digits,
    "small": small,
}
