"""Where arrays live: a mesh of devices, a replicated state, batches spread over the devices.

Data parallelism by `jax.jit`: the step is written for the global batch and the compiler inserts the
reduction of the gradient.
"""

import collections
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from perceiver_jax.train.task import Batch

DATA_AXIS = "data"


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """Returns a mesh of `devices` (all there are) along the one axis 'data'."""
    devices = jax.devices() if devices is None else devices
    # Auto is asked for by name: the default of `jax.make_mesh` is Explicit.
    return jax.make_mesh(
        (len(devices),), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=devices
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def over_data(mesh: Mesh) -> NamedSharding:
    """Axis 0 spread over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def check_batch_size(batch_size: int, mesh: Mesh, *, accumulate: int) -> None:
    """Raises ValueError unless each device gets as many rows, in every microbatch."""
    devices = mesh.devices.size
    if batch_size % (devices * accumulate):
        raise ValueError(
            f"config.batch_size={batch_size} does not divide by {devices} devices x "
            f"config.accumulate={accumulate}: make it a multiple of {devices * accumulate}"
        )


def shard_batch(batch: Batch, mesh: Mesh) -> Batch:
    """Puts this process's rows of a batch on its devices.

    Args:
      batch: arrays `[B / processes, ...]`.
      mesh: of all processes' devices.

    Returns:
      Global arrays `[B, ...]`, rows spread over the devices.

    Raises:
      ValueError: the rows do not divide by this process's devices.
    """
    devices = mesh.local_mesh.devices.size

    def put(path, x):
        if x.ndim == 0 or x.shape[0] % devices:
            raise ValueError(
                f"batch{jax.tree_util.keystr(path)} has shape {x.shape}: its rows do not divide by "
                f"{devices} devices; make the batch size a multiple of {devices}"
            )
        return jax.make_array_from_process_local_data(over_data(mesh), x)

    return jax.tree_util.tree_map_with_path(put, batch)


@contextlib.contextmanager
def on_devices(
    batches: Iterator[Batch], mesh: Mesh, *, depth: int = 2
) -> Iterator[Iterator[Batch]]:
    """Gives an iterator over `shard_batch` of each batch; closes `batches` at the end.

    `depth` batches are under way, so that a transfer overlaps with the step before.
    """

    def ahead():
        queue = collections.deque()
        for batch in batches:
            queue.append(shard_batch(batch, mesh))
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


def compile_train_step(step: Callable, mesh: Mesh) -> Callable:
    """Compiles a training step: state replicated and donated, batch spread over the devices."""
    whole = replicated(mesh)
    return jax.jit(
        step,
        in_shardings=(whole, over_data(mesh)),
        out_shardings=(whole, whole),
        donate_argnums=0,
    )


def compile_eval_step(step: Callable, mesh: Mesh) -> Callable:
    """Compiles an evaluation step: state replicated, batch spread, what it returns replicated."""
    whole = replicated(mesh)
    return jax.jit(step, in_shardings=(whole, over_data(mesh)), out_shardings=whole)
