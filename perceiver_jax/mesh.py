"""What a model asks about devices while it is traced: the layout in use, and sums over the batch.

`train/sharding.py` decides where arrays live and compiles under `use_layout`. Under `jax.jit`, code
is written for whole arrays and the compiler spreads the work; there the model only says where the
examples of the latents are. Under `jax.pmap` a device has its own rows of the batch, so whatever
concerns the whole batch goes over the axis 'data'.
"""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

DATA, MODEL = "data", "model"  # the axes of every mesh


class Layout(NamedTuple):
    """A mesh, and how a step is spread over it: the fields of `config.parallel`.

    `local` says that traced arrays are one device's own: under `jax.pmap`, inside `jax.shard_map`.
    """

    mesh: Mesh
    mode: str
    model: int
    shard_params_above: int
    shard_inputs: bool
    latents: str
    local: bool = False


_layout = contextvars.ContextVar("layout", default=None)


@contextlib.contextmanager
def use_layout(layout: Layout) -> Iterator[None]:
    """Functions traced inside use `layout`."""
    token = _layout.set(layout)
    try:
        yield
    finally:
        _layout.reset(token)


def current_layout() -> Layout | None:
    """The layout in use; None on a single device."""
    return _layout.get()


def platform() -> str:
    """The platform that is traced for: 'cpu', 'gpu' or 'tpu'."""
    layout = _layout.get()
    return layout.mesh.devices.flat[0].platform if layout else jax.default_backend()


def device_kind() -> str:
    """The generation of the devices that are traced for, as JAX names it."""
    layout = _layout.get()
    return (layout.mesh.devices.flat[0] if layout else jax.devices()[0]).device_kind


def batch_axis() -> str | None:
    """The mapped axis over examples under `jax.pmap`; None elsewhere."""
    layout = _layout.get()
    return DATA if layout and layout.mode == "pmap" else None


def psum(tree: Any) -> Any:
    """`jax.lax.psum` over the batch axis under `jax.pmap`; the identity elsewhere."""
    return jax.lax.psum(tree, axis) if (axis := batch_axis()) else tree


def all_gather(batch: Any) -> Any:
    """The whole batch from each device's rows under `jax.pmap`; the identity elsewhere."""
    return jax.lax.all_gather(batch, axis, tiled=True) if (axis := batch_axis()) else batch


def local_rows(batch: Any) -> Any:
    """This device's rows of the whole batch under `jax.pmap`; the identity elsewhere."""
    if not (axis := batch_axis()):
        return batch

    def cut(x):
        rows = x.shape[0] // jax.lax.axis_size(axis)
        return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(axis) * rows, rows)

    return jax.tree.map(cut, batch)


def first_row(rows: int) -> jax.Array | int:
    """The number in the whole batch of the first of this device's rows."""
    return jax.lax.axis_index(axis) * rows if (axis := batch_axis()) else 0


def local_batch_size(batch: int) -> int:
    """How many examples of an array of `batch` examples one device has."""
    layout = _layout.get()
    if layout is None or layout.local:
        return batch
    devices = layout.mesh.shape[DATA]
    mapped = DATA in jax.sharding.get_abstract_mesh().manual_axes  # a caller's `jax.shard_map`
    return batch if mapped or batch % devices else batch // devices


def can_map_rows(batch: Any) -> bool:
    """Whether `map_rows` can: `jax.jit` on several devices, all parameters on each, rows divide."""
    layout = _layout.get()
    if layout is None or layout.local or layout.model > 1 or layout.shard_params_above:
        return False
    devices = layout.mesh.size
    return devices > 1 and all(x.ndim and x.shape[0] % devices == 0 for x in jax.tree.leaves(batch))


def map_rows(function: Callable, batch: Any, *shared: Any) -> Any:
    """`function(own, *shared)` on each device with its own rows of the batch, as under `jax.pmap`.

    Args:
      function: its result must be the same on all devices, as after `psum`.
      batch: arrays `[B, ...]`.
      shared: trees of arrays that each device has.
    """
    layout = _layout.get()

    def on_a_device(batch, shared):
        with use_layout(layout._replace(mode="pmap", local=True)):
            return function(batch, *shared)

    whole = PartitionSpec()
    return jax.shard_map(
        on_a_device,
        mesh=layout.mesh,
        in_specs=(PartitionSpec(DATA), whole),
        out_specs=whole,
        check_vma=False,  # gradients by hand do not tell which devices differ
    )(batch, shared)


def local_key(key: jax.Array, axes: str | tuple[str, ...] | None = None) -> jax.Array:
    """A random key that differs between the devices along `axes`, by default `batch_axis`."""
    axes = axes or batch_axis()
    return jax.random.fold_in(key, jax.lax.axis_index(axes)) if axes else key


def replicate(x: jax.Array) -> jax.Array:
    """x, which every device computes in whole: as for draws, whose loops would wait for others."""
    layout = _layout.get()
    if layout is None or layout.local:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(layout.mesh, PartitionSpec()))


def batch_axes(batch: int) -> tuple[str, ...]:
    """The axes of the mesh over which `batch` examples of latents are: as many as divide them.

    Where the width of the latent layers is over 'model', the examples are over 'data' alone.
    """
    layout = _layout.get()
    axes = (DATA,) if layout.latents == "width" else (DATA, MODEL)
    while axes and batch % math.prod(layout.mesh.shape[axis] for axis in axes):
        axes = axes[:-1]
    return axes


def constrain_batch(x: jax.Array) -> jax.Array:
    """Latents `[B, N, D]` with their examples over `batch_axes`.

    Every layer asks for it: a compiler that sees sharded parameters might shard D in the same way.
    """
    layout = _layout.get()
    if layout is None or layout.local:
        return x
    spec = PartitionSpec(batch_axes(x.shape[0]) or None)
    return jax.lax.with_sharding_constraint(x, NamedSharding(layout.mesh, spec))
