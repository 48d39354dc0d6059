"""What every config has. Numbers only: nothing here imports the library.

A config file defines `get_config(variant="")`. A variant is `name`, `tiny` or `name:tiny`; `tiny`
keeps every switch of its experiment and shrinks the sizes until two steps take seconds.
"""

from collections.abc import Sequence

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


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
    config.start = ConfigDict({"run": "", "weights": "", "conv_kernel": ""})
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
    """Returns the part of the `data` section that says what is read; see `data/`."""
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


def pairs(
    source: str,
    split: str,
    *,
    window: tuple[int, int],
    largest: tuple[int, int],
    eval_split: str = "",
    occluded: bool = True,
    first: str = "",
) -> ConfigDict:
    """Returns the `data` section of flow and stereo, see `datasets/pairs.py`.

    Args:
      window: (height, width) that training cuts out: the model's.
      largest: of the whole images of an evaluation, all brought to this size.
      eval_split: if not `split`.
      occluded: whether the set tells what is occluded.
      first: a transform that makes pairs of the set's examples, where it has others.
    """
    first = f"{first} | " if first else ""
    fields = ["frames", "field", "valid", *["occluded"] * occluded]
    return reading(
        source,
        train=f"{first}crop_pair{window} | keep{tuple(fields)}",
        evaluate=f"{first}pad_pair{largest} | keep{(*fields, 'size')}",
        train_split=split,
        eval_split=eval_split or split,
    )


def dense(*, min_overlap: int) -> ConfigDict:
    """Returns the `dense` section: how a value for every pixel is learned and asked for."""
    return ConfigDict(
        {
            "num_queries": 4096,  # pixels of each example that a training step decodes; 0 is all
            "loss_epsilon": 0.01,  # pixels; of losses.robust_field, as is the power
            "loss_power": 0.5,
            "min_overlap": min_overlap,  # pixels that neighbouring tiles of an evaluation share
            "chunk_size": 0,  # queries decoded at once in an evaluation; 0 is all of a tile
        }
    )


def encoder(**fields) -> ConfigDict:
    """Returns the `model.encoder` section, by default that of the released ImageNet models."""
    section = ConfigDict(
        {
            "num_latents": 512,
            "latent_channels": 1024,
            "num_cross_attends": 1,
            "num_blocks": 8,
            "num_self_attends_per_block": 6,
            "share_weights": True,
            "num_cross_attend_heads": 1,
            "num_self_attend_heads": 8,
            "cross_attend_qk_channels": placeholder(int),
            "cross_attend_v_channels": placeholder(int),
            "cross_attend_widening": 1,
            "self_attend_qk_channels": placeholder(int),
            "self_attend_v_channels": placeholder(int),
            "self_attend_widening": 1,
            "dropout_rate": 0.0,
            "attention_dropout_rate": 0.0,
            "latent_init_scale": 0.02,
            "remat": "dots",
        }
    )
    section.update(fields)
    return section


def flow_encoder() -> ConfigDict:
    """Returns the `model.encoder` section of the released optical flow, which stereo has too."""
    return encoder(
        num_latents=2048,
        latent_channels=512,
        num_blocks=1,
        num_self_attends_per_block=24,
        num_self_attend_heads=16,
    )


def small_pair_encoder() -> ConfigDict:
    """Returns the `model.encoder` section of small models of flow and stereo, for a CPU."""
    return encoder(
        num_latents=64,
        latent_channels=64,
        num_blocks=1,
        num_self_attends_per_block=2,
        num_self_attend_heads=4,
        latent_init_scale=1.0,  # latents that look at different places from the start
        remat="none",
    )


def decoder(**fields) -> ConfigDict:
    """Returns the `model.decoder` section of a query decoder."""
    section = ConfigDict(
        {
            "module": "Decoder",
            "num_heads": 1,
            "qk_channels": placeholder(int),
            "v_channels": placeholder(int),
            "widening": 1,
            "query_residual": True,
        }
    )
    section.update(fields)
    return section


def pixels(*, num_bands: int) -> ConfigDict:
    """Returns the `model.input` section of raw pixels with Fourier positions."""
    return ConfigDict(
        {
            "module": "image.Pixels",
            "num_bands": num_bands,
            "max_resolution": (),  # of the Fourier bands; () is the image's own size
            "permutation_seed": placeholder(int),
        }
    )


def conv_stem(*, channels: int, num_bands: int) -> ConfigDict:
    """Returns the `model.input` section of a convolutional stem with Fourier positions."""
    return ConfigDict(
        {
            "module": "image.ConvStem",
            "channels": channels,
            "num_bands": num_bands,
            "max_resolution": (),  # of the Fourier bands; () is the stem's own size
            "permutation_seed": placeholder(int),
        }
    )


def classification(num_classes: int, query_channels: int) -> ConfigDict:
    """Returns the `model.output` section of classes from one learned query."""
    return ConfigDict(
        {
            "module": "label.Classification",
            "num_classes": num_classes,
            "query_channels": query_channels,
            "query_init_scale": 0.02,
        }
    )


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


def flow_optimizer() -> ConfigDict:
    """Returns the `optimizer` section of optical flow (Perceiver IO, app. H)."""
    schedule = {"name": "cosine", "end_value": 0.0}
    return optimizer("lamb", 4e-4, schedule, reference_batch_size=512)


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
    config.data.eval_batch_size = 8
    config.data.readers = "threads:1"
    encoder = config.model.encoder
    encoder.num_latents = 8
    encoder.latent_channels = 32
    encoder.num_blocks = encoder.num_cross_attends = min(encoder.num_cross_attends, 2)
    encoder.num_self_attends_per_block = 2
    if "num_bands" in config.model.input:
        config.model.input.num_bands = 4
    if "query_channels" in config.model.output:
        config.model.output.query_channels = 32
    if "embedding" in config.model:
        config.model.embedding.channels = 32
    if "dense" in config:
        config.dense.num_queries = 32
        config.dense.chunk_size = 100
    return config
