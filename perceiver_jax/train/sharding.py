"""Where arrays live: a mesh of devices, the state and the batches on it, and compiled steps.

A mesh has the axes 'data', over which the batch is spread, and 'model', over which an example's
tokens or the width of the latent layers is spread. The step is written for the global batch.
`jax.jit` inserts the communication; `jax.pmap` runs the same step with explicit sums over devices.

One file, because places, batches and compiled steps must agree on the layout.
"""

import collections
import contextlib
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from perceiver_jax.config_types import Count, Whole, check_fields
from perceiver_jax.mesh import DATA, MODEL, Layout, use_layout
from perceiver_jax.train.optimizer import STACKED, path_name
from perceiver_jax.train.task import Batch

# Parameters of a latent layer, and the axis that is spread over 'model' with latents='width'. Each
# device computes some heads and hidden channels, and the next product sums over them (Shoeybi et
# al. 2019, arXiv:1909.08053, section 3).
WIDTH = {
    r"attention/(query|key|value)/(kernel|bias)$": -1,
    r"mlp/hidden/(kernel|bias)$": -1,
    r"(attention|mlp)/out/kernel$": -2,
}

# The axis of a batch's arrays along which tokens follow each other: rows, frames, samples, letters.
TOKEN_AXIS = {"frames": 2}
USUAL_TOKEN_AXIS = 1


class Parallel(TypedDict):
    """The fields of `config.parallel`: how the work is spread over devices."""

    mode: Literal["jit", "pmap"]  # "pmap" runs the same step, and spreads the batch alone
    model: Count  # devices along the mesh's axis 'model'; the others are along 'data'
    shard_params_above: Whole  # larger parameters are spread over all devices; 0 is none
    shard_inputs: bool  # the tokens of each example over 'model': one huge input
    latents: Literal["batch", "width"]  # "width": the latent layers' channels over 'model'


def make_mesh(parallel: ConfigDict, devices: list[jax.Device] | None = None) -> Mesh:
    """Returns the mesh of `devices` (all there are), `parallel.model` of them along 'model'.

    Raises:
      ValueError: their number does not divide by `parallel.model`.
    """
    devices = jax.devices() if devices is None else devices
    model = parallel.model
    if len(devices) % model:
        raise ValueError(
            f"config.parallel.model={model} does not divide {len(devices)} devices: choose from "
            f"{[n for n in range(1, len(devices) + 1) if len(devices) % n == 0]}"
        )
    grid = mesh_utils.create_device_mesh(
        (len(devices) // model, model), devices, allow_split_physical_axes=True
    )
    return Mesh(grid, (DATA, MODEL), axis_types=(AxisType.Auto,) * 2)


def make_layout(parallel: ConfigDict, devices: list[jax.Device] | None = None) -> Layout:
    """Returns the mesh with the fields of `config.parallel`.

    Raises:
      ValueError: a field is not allowed, or the fields together do nothing or do not work.
    """
    check_fields(Parallel, parallel, "config.parallel")
    spread = parallel.shard_inputs or parallel.latents == "width"
    if parallel.mode == "pmap" and (parallel.model > 1 or parallel.shard_params_above or spread):
        raise ValueError(
            "config.parallel.mode='pmap' spreads the batch alone: set model=1, "
            "shard_params_above=0, shard_inputs=False and latents='batch', or mode='jit'"
        )
    if spread != (parallel.model > 1):
        raise ValueError(
            f"config.parallel.model={parallel.model} with shard_inputs={parallel.shard_inputs} and "
            f"latents={parallel.latents!r}: more than one device along 'model' is for sharded "
            "inputs or latents='width', and these need more than one"
        )
    return Layout(make_mesh(parallel, devices), **parallel, local=parallel.mode == "pmap")


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def place(shapes: Any, layout: Layout) -> Any:
    """Gives each array of a state its sharding on the mesh.

    Name and shape decide it, so an optimizer's averages are sharded as their parameters.

    Args:
      shapes: a tree of arrays or shapes.
      layout: says how arrays are spread.

    Returns:
      A tree of `jax.ShapeDtypeStruct` with shardings.

    Raises:
      ValueError: the width of a latent layer does not divide over the devices of 'model'.
    """

    def struct(path, x):
        spec = PartitionSpec(*_parameter_axes(path_name(path), x.shape, layout))
        sharding = NamedSharding(layout.mesh, spec)
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree_util.tree_map_with_path(struct, shapes)


def _parameter_axes(name: str, shape: tuple[int, ...], layout: Layout) -> list:
    """The mesh axes over which each axis of a parameter is spread, or None."""
    axes = [None] * len(shape)
    stacked = bool(re.search(STACKED, name))
    if layout.latents == "width" and stacked:
        for pattern, axis in WIDTH.items():
            if re.search(pattern, name):
                if shape[axis] % layout.model:
                    raise ValueError(
                        f"{name} {shape}: its axis {axis} does not divide by config.parallel.model="
                        f"{layout.model}, as latents='width' needs"
                    )
                axes[axis] = MODEL
    if 0 < layout.shard_params_above < math.prod(shape):
        rest = tuple(axis for axis in layout.mesh.axis_names if axis not in axes)
        devices = math.prod(layout.mesh.shape[axis] for axis in rest)
        # A scan goes through axis 0 of stacked layers, so that axis stays whole.
        free = [i for i in range(stacked, len(shape)) if not axes[i] and shape[i] % devices == 0]
        if free:
            axes[max(free, key=lambda i: shape[i])] = rest
    return axes


def check_batch_size(batch_size: int, layout: Layout, *, accumulate: int) -> None:
    """Raises ValueError unless all devices get equally many rows of every microbatch."""
    devices = layout.mesh.shape[DATA]
    if batch_size % (devices * accumulate):
        raise ValueError(
            f"config.batch_size={batch_size} does not divide by {devices} devices x "
            f"config.accumulate={accumulate}: make it a multiple of {devices * accumulate}"
        )


def reader(mesh: Mesh, process: int | None = None) -> tuple[int, int]:
    """Returns (index, count): a process reads part `index` of `count` of each global batch.

    Processes whose devices are at the same places along 'data' read the same rows.

    Args:
      mesh: of all processes' devices.
      process: its index; this one by default.

    Raises:
      ValueError: processes share some of their places and not others.
    """
    process = jax.process_index() if process is None else process
    places = collections.defaultdict(set)
    for place, devices in enumerate(mesh.devices):
        for device in devices:
            places[device.process_index].add(place)
    parts = sorted({tuple(sorted(part)) for part in places.values()})
    if sum(map(len, parts)) != len(mesh.devices) or len({len(part) for part in parts}) > 1:
        raise ValueError(
            f"the devices of the {len(places)} processes do not fall into equal parts along 'data' "
            f"({dict(places)}): make config.parallel.model a divisor or a multiple of the devices "
            "of a process"
        )
    return parts.index(tuple(sorted(places[process]))), len(parts)


def batch_shardings(batch: Batch, layout: Layout) -> Any:
    """Returns the sharding of each array of a global batch `[B, ...]`, or of its shapes.

    Rows are spread over 'data'. With `shard_inputs`, the token axis is spread over 'model' where it
    divides; elsewhere each device along 'model' has all tokens.
    """

    def sharding(path, x):
        axes = [DATA]
        place = TOKEN_AXIS.get(path_name(path), USUAL_TOKEN_AXIS)
        if layout.shard_inputs and place < len(x.shape) and x.shape[place] % layout.model == 0:
            axes += [None] * (place - 1) + [MODEL]
        return NamedSharding(layout.mesh, PartitionSpec(*axes))

    return jax.tree_util.tree_map_with_path(sharding, batch)


def shard_batch(batch: Batch, layout: Layout, *, fill: bool = False) -> Batch:
    """Puts this process's rows of a batch on its devices.

    Args:
      batch: arrays `[B / count, ...]`, `count` from `reader`.
      layout: the mesh of all processes' devices.
      fill: whether to add copies of the last row, `mask` False, until the rows divide.

    Returns:
      Global arrays `[B, ...]`; for `pmap` `[devices, B / devices, ...]`.

    Raises:
      ValueError: the rows do not divide over the devices.
    """
    _, count = reader(layout.mesh)
    devices = layout.mesh.shape[DATA] // count
    missing = -len(batch["mask"]) % devices if fill else 0
    if missing:
        batch = jax.tree.map(lambda x: np.concatenate([x, np.repeat(x[-1:], missing, 0)]), batch)
        batch["mask"][-missing:] = False

    def check(path, x):
        if x.ndim == 0 or x.shape[0] % devices:
            raise ValueError(
                f"batch{jax.tree_util.keystr(path)} has shape {x.shape}: its rows do not divide by "
                f"{devices} devices; make the batch size a multiple of {devices}"
            )

    def put(x, sharding):
        if layout.mode == "pmap":
            x = x.reshape(devices, -1, *x.shape[1:])
        return jax.make_array_from_process_local_data(
            sharding, x, (x.shape[0] * count, *x.shape[1:])
        )

    jax.tree_util.tree_map_with_path(check, batch)
    with jax.transfer_guard_host_to_device("allow"):  # implicit in JAX with many processes
        return jax.tree.map(put, batch, batch_shardings(batch, layout))


def batch_shapes(example: Batch, layout: Layout) -> Batch:
    """Returns the shapes of `shard_batch` for a batch of one example like `example` per device."""
    rows = (layout.mesh.shape[DATA],) + (1,) * (layout.mode == "pmap")
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(rows + x.shape[1:], x.dtype), example)


def rows_not_finite(batch: Batch, layout: Layout) -> dict[str, list[int]]:
    """Returns which rows of which arrays of `shard_batch` hold NaN or infinity, by name.

    Checks the rows that this process holds; leaves out names without such a row.
    """
    found = collections.defaultdict(set)
    for path, x in jax.tree_util.tree_leaves_with_path(batch):
        if not jnp.issubdtype(x.dtype, jnp.floating):
            continue
        for shard in x.addressable_shards:
            values, first = jax.device_get(shard.data), shard.index[0].start or 0
            if layout.mode == "pmap":
                values, first = values[0], first * x.shape[1]
            finite = np.isfinite(values.astype(np.float32)).reshape(len(values), -1).all(axis=1)
            found[path_name(path)] |= {first + int(row) for row in np.flatnonzero(~finite)}
    return {name: sorted(rows) for name, rows in found.items() if rows}


@contextlib.contextmanager
def on_devices(
    batches: Iterator[Batch], layout: Layout, *, fill: bool = False, depth: int = 2
) -> Iterator[Iterator[Batch]]:
    """Yields an iterator over `shard_batch` of each batch, and closes `batches` at the end.

    `depth` batches are transferred ahead, so a transfer overlaps with the steps before.
    """

    def ahead():
        queue = collections.deque()
        for batch in batches:
            queue.append(shard_batch(batch, layout, fill=fill))
            if len(queue) == depth:
                yield queue.popleft()
        yield from queue

    try:
        yield ahead()
    finally:
        close(batches)


def close(batches: Any) -> None:
    """Calls `batches.close()` where there is one (generators, pipelines with workers)."""
    getattr(batches, "close", lambda: None)()


def compile_train_step(step: Callable, layout: Layout, state: Any) -> Callable:
    """Compiles a training step `(state, batch) -> (state, metrics)`; the state is donated.

    Args:
      step: pure, written for the global batch (see `mesh` for what that takes under `pmap`).
      layout: where it runs.
      state: of `place`: where the state is.
    """
    shardings = jax.tree.map(lambda x: x.sharding, state)
    outputs = (shardings, replicated(layout.mesh))
    return _compile(step, layout, shardings, outputs, donate_argnums=0)


def compile_eval_step(step: Callable, layout: Layout, state: Any) -> Callable:
    """Compiles an evaluation step `(state, batch) -> (sums, rows)`. Arguments as above."""
    shardings = jax.tree.map(lambda x: x.sharding, state)
    return _compile(step, layout, shardings, replicated(layout.mesh))


def _compile(step: Callable, layout: Layout, state: Any, outputs: Any, **donated) -> Callable:
    def step_on_layout(state, batch):
        with use_layout(layout):
            if layout.mode == "jit":
                batch = jax.lax.with_sharding_constraint(batch, batch_shardings(batch, layout))
            return step(state, batch)

    if layout.mode == "jit":
        return jax.jit(step_on_layout, in_shardings=(state, None), out_shardings=outputs, **donated)
    # Under `pmap` too, each array of the state spans all devices; only the batch has a mapped axis.
    devices = list(np.ravel(layout.mesh.devices))
    mapped = jax.pmap(
        step_on_layout, DATA, in_axes=(None, 0), out_axes=None, devices=devices, **donated
    )
    if jax.process_count() == 1:
        return mapped

    def joined(state, batch):  # of many processes, `pmap` gives each what it holds itself
        with jax.transfer_guard("allow"):
            own = mapped(state, batch)
            return multihost_utils.host_local_array_to_global_array(
                own, layout.mesh, PartitionSpec()
            )

    return joined
