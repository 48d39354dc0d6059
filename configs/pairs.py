"""The sections that optical flow and stereo share: both predict a value for every pixel."""

from ml_collections import ConfigDict

from configs import common
from perceiver_jax import pretrained


def data(
    source: str,
    split: str,
    *,
    window: tuple[int, int],
    largest: tuple[int, int],
    eval_split: str = "",
    occluded: bool = True,
    known: bool = False,
    first: str = "",
) -> ConfigDict:
    """Returns the `data` section of flow and stereo, see `datasets/pairs.py`.

    Args:
      source: name of the set.
      split: to train on.
      window: (height, width) that training cuts out: the model's.
      largest: (height, width) to which evaluation pads the whole images.
      eval_split: if not `split`.
      occluded: whether the set says which pixels are occluded.
      known: whether the set has values for pixels that it calls invalid; evaluation counts them.
      first: a transform that makes pairs of the set's examples, where it has others.
    """
    first = f"{first} | " if first else ""
    fields = ["frames", "field", "valid", *["occluded"] * occluded]
    return common.reading(
        source,
        train=f"{first}crop_pair{window} | keep{tuple(fields)}",
        evaluate=f"{first}pad_pair{largest} | keep{(*fields, *['known'] * known, 'size')}",
        train_split=split,
        eval_split=eval_split or split,
    )


def scenes(task: str, size: tuple[int, int], *, layers, radius, **fields) -> dict:
    """Returns the `source_options` of generated scenes; `fields` are those of the task."""
    return {
        "task": task,
        "size": size,
        "layers": layers,
        "radius": radius,
        **fields,
        "photometric": 0.0,
        "texture": "mix",
        "images": "",  # a TFDS name, whose images are the textures
        "seed": 0,
    }


def dense(*, min_overlap: int, num_queries: int = 4096) -> ConfigDict:
    """Returns the `dense` section: how training and evaluation ask for a value per pixel."""
    return ConfigDict(
        {
            "num_queries": num_queries,  # pixels per example that a training step decodes; 0: all
            "loss_epsilon": 0.01,  # pixels, of losses.robust_field
            "loss_power": 0.5,  # of losses.robust_field
            "min_overlap": min_overlap,  # pixels that neighbouring tiles of an evaluation share
            "chunk_size": 0,  # queries decoded at once in an evaluation; 0: a whole tile
            "shrink": 1,  # an evaluation predicts from images smaller by this factor
        }
    )


def released_size(input: ConfigDict, output: ConfigDict) -> dict:
    """Returns the `model` section of the released optical flow, with these ends."""
    return {
        "dtype": "float32",
        "input": input,
        "encoder": common.encoder(**pretrained.released("flow").spec["encoder"]),
        "decoder": common.decoder(query_residual=False),
        "output": output,
    }


def small_encoder() -> ConfigDict:
    """Returns the `model.encoder` section of small models of flow and stereo, for a CPU."""
    return common.encoder(
        num_latents=64,
        latent_channels=64,
        num_blocks=1,
        num_self_attends_per_block=2,
        num_self_attend_heads=4,
        latent_init_scale=1.0,  # latents that attend to different places from the start
        remat="none",
    )


def small(
    source: str, size: tuple[int, int], *, steps: int, input: ConfigDict, output: ConfigDict, tiny
) -> ConfigDict:
    """Returns the config of a small model on a generated source, for a CPU."""
    config = common.base(batch_size=32, steps=steps)
    config.experiment = "dense"
    config.eval_every = 1000
    eval_split = "test[:8]" if tiny else "test[:512]"
    config.data = data(source, "train", window=size, largest=size, eval_split=eval_split)
    config.data.readers = "threads:1"
    config.dense = dense(min_overlap=0, num_queries=192)
    config.model = {
        "dtype": "float32",
        "input": input,
        "encoder": small_encoder(),
        "decoder": common.decoder(),
        "output": output,
    }
    config.optimizer = small_optimizer()
    return config


def small_optimizer(warmup_steps: int = 200) -> ConfigDict:
    """Returns the `optimizer` section of small models of flow and stereo."""
    return common.adamw(2e-3, warmup_steps=warmup_steps, b2=0.999, weight_decay=0.01)


def flow_optimizer() -> ConfigDict:
    """Returns the `optimizer` section of optical flow (Perceiver IO, app. H)."""
    schedule = {"name": "cosine", "end_value": 0.0}
    return common.optimizer("lamb", 4e-4, schedule, reference_batch_size=512)
