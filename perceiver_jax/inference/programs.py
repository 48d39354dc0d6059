"""Shared by all predictions: compiled and untrained models, top-k classes, checks of inputs."""

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from perceiver_jax.perceiver import Perceiver
from perceiver_jax.pretrained import TINY, Released, load, released

Progress = Callable[[int, int], None]


class TopK(NamedTuple):
    """The k likeliest classes, best first: `classes` int `[B, k]`, `probabilities` `[B, k]`."""

    classes: np.ndarray
    probabilities: np.ndarray


@functools.partial(jax.jit, static_argnums=0)
def predict(model: Perceiver, variables: Any, batch: Any) -> Any:
    """Predicts all outputs of a prepared batch."""
    return model.apply(variables, batch, train=False)


@functools.partial(jax.jit, static_argnums=0)
def encode(model: Perceiver, variables: Any, batch: Any) -> tuple[Any, jax.Array]:
    """Encodes a prepared batch into its tokens and latents."""
    return model.apply(variables, batch, train=False, method="encode")


@functools.partial(jax.jit, static_argnums=0)
def decode(model: Perceiver, variables: Any, tokens: Any, latents: jax.Array, indices: Any) -> Any:
    """Decodes the outputs at `indices`; see `Perceiver.decode`."""
    return model.apply(variables, tokens, latents, train=False, indices=indices, method="decode")


def random_weights(sizes: Released, seed: int = 0) -> tuple[Perceiver, Any]:
    """Returns (model, variables) of an untrained model."""
    model = sizes.build()

    @jax.jit
    def init(key):
        batch = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), dict(sizes.batch))
        return model.init(key, batch, train=False)

    return model, init(jax.random.key(seed))


def load_or_random(name: str, *, tiny: bool = False) -> tuple[Perceiver, Any]:
    """Loads a released model, or warns and returns an untrained one where it cannot be fetched.

    Args:
      name: one of `pretrained.MODELS`.
      tiny: skip the download and return an untrained model that a CPU runs in seconds.
    """
    if tiny:
        return random_weights(released(name, **TINY[name]))
    try:
        return load(name)
    except OSError as error:
        warnings.warn(f"RANDOM WEIGHTS: predictions mean nothing. {error}", stacklevel=2)
        return random_weights(released(name))


def top_k(logits: np.ndarray, k: int) -> TopK:
    """Logits `[B, K]` -> the min(k, K) likeliest classes."""
    chances = np.asarray(jax.nn.softmax(jnp.asarray(logits, jnp.float32)))
    order = np.argsort(-chances, axis=-1, kind="stable")[:, :k]
    return TopK(order, np.take_along_axis(chances, order, axis=-1))


def silent(done: int, total: int) -> None:
    """Shows no progress."""


def require(module: Any, kinds: Any, task: str) -> None:
    """Raises ValueError for a model of another task."""
    if not isinstance(module, kinds):
        names = " or ".join(k.__name__ for k in (kinds if isinstance(kinds, tuple) else (kinds,)))
        raise ValueError(f"{task} needs a model with {names}, not {type(module).__name__}")


def require_uint8(image: np.ndarray, ndim: int, meaning: str) -> np.ndarray:
    """Raises ValueError unless `image` is uint8 with `ndim` axes, the last one RGB; returns it."""
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != ndim or image.shape[-1] != 3:
        raise ValueError(f"{meaning}, got {image.dtype} {list(image.shape)}")
    return image
