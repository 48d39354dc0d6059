"""Small models with random weights, in which no parameter is zero."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from configs.released import sizes
from perceiver_jax import pretrained


def tiny(name: str, **overrides) -> pretrained.Released:
    fields = sizes.get_config(f"{name}:tiny").to_dict() | overrides
    return pretrained.released(fields.pop("name"), **fields)


@functools.cache
def model(name: str, **overrides):
    """(model, variables): the model at its tiny size."""
    released = tiny(name, **overrides)
    rng = np.random.default_rng(0)

    def draw(path, x):
        positive = "norm" in jax.tree_util.keystr(path)  # scales and variances
        value = rng.normal(0, 0.15, x.shape) + positive
        return jnp.asarray(np.abs(value) if positive else value, jnp.float32)

    return released.build(), jax.tree_util.tree_map_with_path(draw, released.shapes)


@functools.partial(jax.jit, static_argnums=0)
def apply(perceiver, variables, batch, **kwargs):
    """The whole model at once: what the library's answers are compared with."""
    return perceiver.apply(variables, batch, train=False, **kwargs)
