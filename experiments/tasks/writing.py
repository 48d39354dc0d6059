"""How a model of sequences goes on writing: prompts of texts and images, and what it reads of them.

A run tells by its evaluation line what its sequences are: `byte_ids` of texts, with a start and an
end or without; `raster_ids` of images.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from experiments.tasks import ask
from perceiver_jax import plots
from perceiver_jax.ar import PerceiverAR
from perceiver_jax.build import build
from perceiver_jax.config_types import ConfigError
from perceiver_jax.data import transforms
from perceiver_jax.data.sequence_transforms import (
    EOS,
    NUM_IDS,
    NUM_RESERVED,
    SOS,
    decode,
    encode,
)
from perceiver_jax.maps import CROSS_ATTEND, attention_maps

MATRIX = 64  # the longest sequence of which all is drawn as a matrix
WINDOWS = ("crop_ids", "last_ids", "keep")


def writer(config: ConfigDict) -> ask.Writer:
    """How the model of a run goes on with a text or an image.

    Raises:
      ConfigError: its evaluation makes ids of neither.
    """
    model, reading = build(config.model.to_dict()), image_reading(config)
    if reading is not None:
        prepare, shape = reading
        if math.prod(shape) > model.max_length:
            raise ConfigError(
                f"config.data.eval={config.data.eval!r} makes images of {math.prod(shape)} values, "
                f"but config.model.max_length={model.max_length}"
            )

        def read(path):
            image = prepare(ask.read_pixels(path, shape[-1]))
            ask.require_shapes({"image": image}, {"image": np.zeros(shape)}, config.data.eval)
            return np.concatenate([[SOS], encode(np.ascontiguousarray(image).tobytes())])

        return ask.Writer(model, read, bytes_only(model), None, shape)
    steps = transforms.parse(config.data.eval).steps
    found = next((step for step in steps if step[0] == "byte_ids"), None)
    if found is None:
        raise ConfigError(
            f"config.data.eval={config.data.eval!r} makes ids of neither texts (byte_ids) nor "
            "images (raster_ids): predict cannot tell what a prompt is"
        )
    _, args, kwargs = found
    ends = bool(args[0] if args else kwargs.get("ends", False))

    def read_text(text):
        if not text and not ends:
            raise ValueError(
                "the prompt is empty, and the run has seen no start of a sequence (byte_ids "
                "without ends=True): write at least one byte"
            )
        return np.concatenate([[SOS] if ends else [], encode(text.encode())]).astype(np.int32)

    allowed = bytes_only(model)
    allowed[EOS] = ends
    return ask.Writer(model, read_text, allowed, EOS if ends else None, None)


def image_reading(
    config: ConfigDict,
) -> tuple[Callable[[np.ndarray], np.ndarray], tuple[int, ...]] | None:
    """How a run prepares an image before it becomes ids, and its shape; None for other runs."""
    line = transforms.parse(config.data.eval)
    prepare = line.without("raster_ids", *WINDOWS)
    if "raster_ids" not in (name for name, _, _ in line.steps):
        return None
    blank = ask.stand_in(config)[0]

    def make(example):
        return prepare(ask.TRUTH | example, np.random.default_rng(0))["image"]

    return lambda image: make(blank | {"image": image}), make(blank).shape


def bytes_only(model: PerceiverAR) -> np.ndarray:
    """Which ids are bytes, bool `[num_ids]`."""
    ids = np.arange(model.num_ids)
    return (ids >= NUM_RESERVED) & (ids < NUM_IDS)


def draw_reading(
    model: PerceiverAR,
    variables: Any,
    ids: np.ndarray,
    first: int,
    shape: Sequence[int] | None = None,
) -> Figure:
    """Which past places the latents read that predicted the ids from place `first` on.

    A matrix of all of a short sequence; of a longer one, or an image, some latents, evenly spaced.

    Args:
      model, variables: the model.
      ids: `[L]`, at most `max_length + 1`, of which the last is only predicted.
      first: at least 1.
      shape: of the image whose values follow the start; None for texts.
    """
    total = len(ids) - 1
    short = shape is None and total <= MATRIX
    count = min(total - first + 1, MATRIX if short else 8 if shape else 5)
    places = np.unique(np.linspace(first - 1, total - 1, count).round().astype(np.int32))
    batch = {"ids": np.tile(ids[:total], (len(places), 1)), "length": places + 1}
    # Attention to the inputs does not depend on other latents: one in each row is enough.
    one = model.clone(num_latents=1)
    maps = jax.jit(lambda v, batch: attention_maps(one, v, batch))(variables, batch)
    weights = np.asarray(maps[CROSS_ATTEND]["input"], np.float32)  # [n, heads, 1, L - 1]
    weights = weights[:, :, 0].mean(axis=1)
    if shape is not None:
        image = np.frombuffer(decode(ids[1:]), np.uint8).reshape(shape)
        # Without the start; the last value of an image is only predicted.
        seen = np.pad(weights[:, 1:], ((0, 0), (0, 1)))
        return plots.reading_pixels(image, seen, places)
    symbols = [symbol(x) for x in ids]
    picture = plots.reading_matrix if short else plots.reading_text
    return picture(symbols[:-1], weights, places, [symbols[place + 1] for place in places])


def symbol(number: int) -> str:
    """One or two characters for an id."""
    reserved = {SOS: "⊢", EOS: "⊣"}
    return reserved.get(int(number)) or plots.symbol(max(int(number) - NUM_RESERVED, 0))
