"""A model on many devices: what it does differently while it is traced for a `Layout`.

`train/sharding.py` says where arrays live and lays out what it compiles; the model asks here. Under
`jax.jit` all code is written for whole arrays and the compiler spreads the work, so little is to be
said: where the examples of the latents are; and with sharded inputs, where the tokens of an example
are spread over 'model', that each device reads, or answers, its own. Under `jax.pmap` each device
has its own rows of the batch, and what is about all of them goes over the axis 'data'.
"""

import contextlib
import contextvars
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from perceiver_jax.attention.softmax import scale_rows

DATA, MODEL = "data", "model"  # the axes of every mesh


class Layout(NamedTuple):
    """A mesh, and how a step is spread over it: the fields of `config.parallel`, see there."""

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
    """What is *traced* inside is for `layout`."""
    token = _layout.set(layout)
    try:
        yield
    finally:
        _layout.reset(token)


def platform() -> str:
    """Of the devices that are traced for: 'cpu', 'gpu' or 'tpu'."""
    layout = _layout.get()
    return layout.mesh.devices.flat[0].platform if layout else jax.default_backend()


def batch_axis() -> str | None:
    """The axis that separates examples, where each device sees its own alone; else None."""
    layout = _layout.get()
    return DATA if layout and layout.mode == "pmap" else None


def psum(tree: Any) -> Any:
    """Sums over the batch, of what may be sums over this device's examples."""
    return jax.lax.psum(tree, axis) if (axis := batch_axis()) else tree


def all_gather(batch: Any) -> Any:
    """The whole batch, of what may be this device's rows."""
    if axis := batch_axis():
        return jax.lax.all_gather(batch, axis, tiled=True)
    return batch


def local_rows(batch: Any) -> Any:
    """This device's rows of the whole batch, where it has its own."""
    if not (axis := batch_axis()):
        return batch

    def cut(x):
        rows = x.shape[0] // jax.lax.axis_size(axis)
        return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(axis) * rows, rows)

    return jax.tree.map(cut, batch)


def local_batch_size(batch: int) -> int:
    """How many of a batch's examples a device has: under `jit`, where arrays are whole, a part.

    Under `jax.pmap` and inside `jax.shard_map` it sees its own alone.
    """
    layout = _layout.get()
    if layout is None or layout.local:
        return batch
    devices = layout.mesh.shape[DATA]
    own = DATA in jax.sharding.get_abstract_mesh().manual_axes
    return batch if own or batch % devices else batch // devices


def local_key(key: jax.Array, axes: str | tuple[str, ...] | None = None) -> jax.Array:
    """A random key for what devices along `axes`, by default `batch_axis`, have of their own."""
    axes = axes or batch_axis()
    return jax.random.fold_in(key, jax.lax.axis_index(axes)) if axes else key


def constrain_batch(x: jax.Array) -> jax.Array:
    """Latents `[B, N, D]` with their examples over as many devices as they divide over.

    Where the width of the latent layers is spread over 'model', the examples are over 'data' alone.
    Said at every layer: a compiler that sees sharded parameters might spread D as it does these.
    """
    layout = _layout.get()
    if layout is None or layout.local:
        return x
    shape = layout.mesh.shape
    axes = (DATA,) if layout.latents == "width" else (DATA, MODEL)
    while axes and x.shape[0] % math.prod(shape[axis] for axis in axes):
        axes = axes[:-1]
    spec = PartitionSpec(axes or None)
    return jax.lax.with_sharding_constraint(x, NamedSharding(layout.mesh, spec))


def spreads(data: dict, axes: dict) -> bool:
    """Whether these tokens are spread over 'model'; fewer than there are devices are not.

    Arguments: see `read`.
    """
    layout = _layout.get()
    return bool(layout and layout.shard_inputs and _units(data, axes) >= layout.model)


def read(reduce: Callable, params: Any, data: dict, axes: dict, batch: int) -> tuple:
    """`reduce(params, data)`, which each device does for its own tokens where inputs are sharded.

    Args:
      reduce: gives the maximum of the logits `[B, H, N]`, a dict of sums `[B, H, N, ...]` that are
        linear in exp(logit - maximum), and such sums by row of a grid `[B, H, N, rows]` or None.
      params: arrays `[B or 1, ...]`.
      data: arrays of all tokens.
      axes: for each of them the axis of the tokens, and how many of its entries are a unit that no
        device has a part of.
      batch: B.

    Returns:
      What `reduce` gives for all tokens.
    """
    if not spreads(data, axes):
        return reduce(params, data)

    def merged(_, params, data):
        maximum, sums, by_row = reduce(params, data)
        highest = jax.lax.pmax(jax.lax.stop_gradient(maximum), MODEL)
        scale = functools.partial(scale_rows, scale=jnp.exp(maximum - highest))
        sums, by_row = jax.tree.map(scale, (sums, by_row))
        return highest, jax.lax.psum(sums, MODEL), by_row

    def specs(rows):
        return PartitionSpec(rows), PartitionSpec(rows), PartitionSpec(rows, None, None, MODEL)

    maximum, sums, by_row = _over_tokens(merged, specs, (), params, data, axes, batch)
    return maximum, sums, None if by_row is None else by_row[..., : _units(data, axes)]


def answer(respond: Callable, whole: Any, params: Any, data: dict, axes: dict, batch: int):
    """`respond(whole, params, data)`, which each device does for its own queries.

    Args:
      respond: gives `[B, M, C]` of M queries, each by itself.
      whole: arrays that every device has.
      The others: as for `read`.
    """
    answers = _over_tokens(
        respond, lambda rows: PartitionSpec(rows, MODEL), whole, params, data, axes, batch
    )
    return answers[:, : data["content"].shape[1]]


def _units(data: dict, axes: dict) -> int:
    axis, unit = axes["content"]
    return data["content"].shape[axis] // unit


def _over_tokens(function, specs, whole, params, data, axes, batch):
    """Runs `function(whole, params, data)` on each device's examples and tokens.

    Tokens are filled up with masked ones to a number that divides.
    """
    layout = _layout.get()
    rows = DATA if batch % layout.mesh.shape[DATA] == 0 else None
    data = _fill(data, axes, -_units(data, axes) % layout.model)

    def by_example(x):
        return PartitionSpec(rows if x.shape[0] == batch else None)

    def by_token(name, x):
        axis, _ = axes.get(name, axes["content"])  # a mask that was not there
        return PartitionSpec(*(by_example(x) if axis else ()), *[None] * (axis - 1), MODEL)

    def own(*arrays):
        with use_layout(layout._replace(local=True, shard_inputs=False)):
            return function(*arrays)

    mapped = jax.shard_map(
        own,
        mesh=layout.mesh,
        in_specs=(
            PartitionSpec(),
            jax.tree.map(by_example, params),
            {name: by_token(name, x) for name, x in data.items()},
        ),
        out_specs=specs(rows),
        check_vma=False,
    )
    return mapped(whole, params, data)


def _fill(data: dict, axes: dict, units: int) -> dict:
    if not units:
        return data
    if "mask" not in data:
        data = data | {"mask": jnp.ones((1, data["content"].shape[1]), bool)}

    def fill(x, axis, unit):
        pads = [(0, 0)] * x.ndim
        pads[axis] = 0, units * unit
        return jnp.pad(x, pads)

    return {name: fill(x, *axes.get(name, axes["content"])) for name, x in data.items()}
