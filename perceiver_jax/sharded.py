"""A model on many devices: what it does differently while it is traced for a `Layout`.

`train/sharding.py` says where arrays live and lays out what it compiles; the model asks here. Under
`jax.jit` all code is written for whole arrays and the compiler spreads the work, so little is to be
said. Under `jax.pmap` each device has its own rows of the batch, and what is about all of them goes
over the axis 'data'.
"""

import contextlib
import contextvars
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

DATA, MODEL = "data", "model"  # the axes of every mesh


class Layout(NamedTuple):
    """A mesh, and how a step is spread over it: the fields of `config.parallel`, see there."""

    mesh: Mesh
    mode: str
    model: int
    shard_params_above: int
    shard_inputs: bool
    latents: str


_layout = contextvars.ContextVar("layout", default=None)


@contextlib.contextmanager
def laid_out(layout: Layout) -> Iterator[None]:
    """What is *traced* inside is for `layout`."""
    token = _layout.set(layout)
    try:
        yield
    finally:
        _layout.reset(token)


def batch_axis() -> str | None:
    """The axis that separates examples, where each device sees its own alone; else None."""
    layout = _layout.get()
    return DATA if layout and layout.mode == "pmap" else None


def total(tree: Any) -> Any:
    """Sums over the batch, of what may be sums over this device's examples."""
    return jax.lax.psum(tree, axis) if (axis := batch_axis()) else tree


def all_rows(batch: Any) -> Any:
    """The whole batch, of what may be this device's rows."""
    if axis := batch_axis():
        return jax.lax.all_gather(batch, axis, tiled=True)
    return batch


def own_rows(batch: Any) -> Any:
    """This device's rows of the whole batch, where it has its own."""
    if not (axis := batch_axis()):
        return batch

    def cut(x):
        rows = x.shape[0] // jax.lax.axis_size(axis)
        return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(axis) * rows, rows)

    return jax.tree.map(cut, batch)


def own_key(key: jax.Array) -> jax.Array:
    """A random key for this device's examples."""
    return jax.random.fold_in(key, jax.lax.axis_index(axis)) if (axis := batch_axis()) else key


def latents(z: jax.Array) -> jax.Array:
    """`[B, N, D]` with its examples spread over as many devices as they divide over.

    Where the width of the latent layers is spread over 'model', the examples are over 'data' alone.
    """
    layout = _layout.get()
    if layout is None or layout.mode == "pmap":
        return z
    shape = layout.mesh.shape
    axes = (DATA,) if layout.latents == "width" else (DATA, MODEL)
    while axes and z.shape[0] % math.prod(shape[axis] for axis in axes):
        axes = axes[:-1]
    spec = PartitionSpec(axes or None)
    return jax.lax.with_sharding_constraint(z, NamedSharding(layout.mesh, spec))
