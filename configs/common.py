"""The sections that configs share. Defaults of the model come from the modules' own fields.

One file, so that a config imports its sections from one place.

A config file defines `VARIANTS` and `get_config(variant="")`. A variant is `name`, `tiny` or
`name:tiny`; `tiny` keeps every switch of its experiment and shrinks the sizes until two steps take
seconds.
"""

import dataclasses
import importlib
from collections.abc import Sequence

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from perceiver_jax import perceiver
from perceiver_jax.datasets.images import Options


def base(*, batch_size: int, steps: int) -> ConfigDict:
    """Returns the fields of the loop; the config file adds `data`, `model` and `optimizer`."""
    config = ConfigDict()
    config.experiment = "image"  # experiments/tasks/image.py makes the task
    config.seed = 0
    config.batch_size = batch_size  # over all devices and processes
    config.steps = steps
    config.accumulate = 1  # microbatches per step
    config.eval_every = 0  # steps; 0 is only at the end
    config.log_every = 50
    config.checkpoint_every = 1000
    config.checkpoints_kept = 2
    config.tensorboard = False
    # Where a new run starts: the whole state of another workdir; or weights only, of a workdir or
    # released ones, by name, file, folder or address (conv_kernel: see `pretrained.load`).
    config.start = ConfigDict(
        {"run": "", "weights": "", "conv_kernel": "", "fresh": (), "resize_positions": False}
    )
    config.parallel = parallel()
    return config


def parallel() -> ConfigDict:
    """Returns the `parallel` section: how the work is spread over devices; see `sharding`."""
    return ConfigDict(
        {
            "mode": "jit",  # or "pmap": the same step, which can spread the batch alone
            "model": 1,  # devices along the mesh's axis 'model'; the others are along 'data'
            "shard_params_above": 0,  # numbers: larger parameters are spread over all; 0 is none
            "shard_inputs": False,  # the tokens of each example over 'model': one huge input
            "latents": "batch",  # or "width": the latent layers' channels over 'model'
        }
    )


def reading(source: str, *, train: str, evaluate: str, train_split="train", eval_split="test"):
    """Returns the `data` section that every experiment has: the source and its transforms."""
    return ConfigDict(
        {
            "source": source,
            "data_dir": "",  # of TFDS, where '' is its own default; else the set's folder
            "in_memory": False,  # decode all of it once at the start
            "readers": "auto",  # or 'threads:N', 'workers:N'; never changes a batch
            "train_split": train_split,  # '' to evaluate only
            "eval_split": eval_split,
            "train": train,
            "eval": evaluate,
            "eval_batch_size": 256,
            "source_options": {},  # of the source, where it has any
            "train_source_options": {},  # more of them, in training only
        }
    )


def data(source: str, **fields) -> ConfigDict:
    """Returns the `data` section of labelled images: `source` is `digits` or a TFDS name."""
    section = reading(source, **fields)
    section.update(
        {
            "mean": (0.0,),  # of the channels, in 0..255
            "std": (255.0,),
            "label_smoothing": 0.0,
            "mix_alpha": 0.0,  # of mixup and CutMix; 0 is neither
        }
    )
    return section


def images(source: str, **fields) -> ConfigDict:
    """Returns the `data` section of images of one's own: `source` is `folder` or `table`."""
    section = data(source, **fields)
    section.classes = ()  # the data's; a run writes them here
    section.source_options = ConfigDict(dataclasses.asdict(Options()))
    return section


def section(module: str, *, without: Sequence[str] = (), **fields) -> ConfigDict:
    """Returns the section of an input or output module: its fields with their defaults.

    Args:
      module: its name in `perceiver_jax.modalities`, as `image.Pixels`.
      without: fields to leave out.
      fields: values in place of the defaults.
    """
    file, _, name = module.partition(".")
    found = getattr(importlib.import_module(f"perceiver_jax.modalities.{file}"), name)
    known = {key: value for key, value in defaults(found).items() if key not in without}
    return ConfigDict({"module": module, **known, **fields})


def defaults(module: type) -> dict:
    """Returns the defaults of a module's fields, except those that `perceiver.build` sets.

    An optional number stays a number for the command line.
    """
    return {
        field.name: placeholder(int) if field.default is None else field.default
        for field in dataclasses.fields(module)
        if field.default is not dataclasses.MISSING
        and field.name not in ("dtype", "parent", "name")
    }


def encoder(**fields) -> ConfigDict:
    """Returns the `model.encoder` section, by default that of the released ImageNet models."""
    return ConfigDict({**defaults(perceiver.Encoder), **fields})


def decoder(**fields) -> ConfigDict:
    """Returns the `model.decoder` section of a query decoder."""
    return ConfigDict({"module": "Decoder", **defaults(perceiver.Decoder), **fields})


def pixels(*, num_bands: int) -> ConfigDict:
    """Returns the `model.input` section of raw pixels with Fourier positions."""
    return section("image.Pixels", num_bands=num_bands)


def conv_stem(*, channels: int, num_bands: int) -> ConfigDict:
    """Returns the `model.input` section of a convolutional stem with Fourier positions."""
    return section("image.ConvStem", channels=channels, num_bands=num_bands)


def classification(num_classes: int, query_channels: int) -> ConfigDict:
    """Returns the `model.output` section of classes from one learned query."""
    return section("label.Classification", num_classes=num_classes, query_channels=query_channels)


def optimizer(name: str, learning_rate: float, schedule: dict, **fields) -> ConfigDict:
    """Returns the `optimizer` section, by default as the papers train ImageNet."""
    section = ConfigDict(
        {
            "name": name,
            "learning_rate": learning_rate,
            "reference_batch_size": 256,  # the rate is times batch_size / this; 0 is not scaled
            "b1": 0.9,
            "b2": 0.999,
            "eps": 1e-6,
            "weight_decay": 0.1,
            "no_decay": ("bias$", "norm"),
            "clip_norm": 10.0,
            # (pattern, factor): of the updates of parameters; 0.0 is frozen. The longest match.
            "multipliers": (),
            "ema": 0.0,  # decay of the parameters' average, which is evaluated; 0 is none
            "schedule": {"warmup_steps": 0, **schedule},
        }
    )
    section.update(fields)
    return section


def adamw(
    learning_rate: float, *, warmup_steps: int, b2: float = 0.99, weight_decay: float = 0.05
) -> ConfigDict:
    """Returns the `optimizer` section of small models: a cosine to zero after a warm-up."""
    return optimizer(
        "adamw",
        learning_rate,
        {"name": "cosine", "warmup_steps": warmup_steps, "end_value": 0.0},
        reference_batch_size=0,
        b2=b2,
        weight_decay=weight_decay,
        clip_norm=1.0,
    )


def parse(variant: str, names: Sequence[str]) -> tuple[str, bool]:
    """Splits `name:tiny` into the name (by default the first of `names`) and whether tiny."""
    parts = variant.split(":") if variant else []
    tiny = parts[-1:] == ["tiny"]
    parts = parts[:-1] if tiny else parts
    name = ":".join(parts) or names[0]
    if name not in names:
        raise ValueError(f"variant {variant!r} is none of {list(names)}, each also with ':tiny'")
    return name, tiny


def shrink(config: ConfigDict) -> ConfigDict:
    """Makes every size tiny; what kind of experiment it is stays."""
    config.batch_size = 8
    config.steps = 2
    config.log_every = 1
    schedule = config.optimizer.schedule
    schedule.warmup_steps = min(schedule.warmup_steps, 1)
    config.data.eval_batch_size = 8
    config.data.readers = "threads:1"
    if "encoder" in config.model:
        encoder = config.model.encoder
        encoder.num_latents = 8
        encoder.latent_channels = 32
        encoder.num_blocks = encoder.num_cross_attends = min(encoder.num_cross_attends, 2)
        encoder.num_self_attends_per_block = 2
    if "num_bands" in config.model.get("input", {}):
        config.model.input.num_bands = 4
    if "query_channels" in config.model.get("output", {}):
        config.model.output.query_channels = 32
    if "embedding" in config.model:
        config.model.embedding.channels = 32
    if "dense" in config:
        config.dense.num_queries = 32
        config.dense.chunk_size = 100
    return config
