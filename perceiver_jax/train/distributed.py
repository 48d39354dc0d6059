"""Many processes, one run: how they join, and how they agree.

Every process runs the same program on its own devices and its own rows of the same global batches;
one mesh spans all devices. The processes share the workdir, and process 0 writes the log. They
stop, skip an evaluation or reject a checkpoint only together, because each waits for the others.
"""

import functools
import os
import signal
import sys
import threading
import zlib
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

T = TypeVar("T")

# Variables by which a launcher tells each process how many it starts.
LAUNCHED = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")


def join(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    detect: bool = False,
    timeout: int = 100,
) -> None:
    """Joins this process to the others of a run, if there are any. Call it before using a device.

    Args:
      coordinator: 'host:port' of process 0, reachable from all of them.
      num_processes: how many there are.
      process_id: which one this is, from 0.
      detect: whether JAX finds the three in the environment, without arguments: on Cloud TPU,
        SLURM or Open MPI. SLURM steps and Open MPI launches of several tasks are always detected.
      timeout: seconds without a heartbeat after which a process counts as lost and the others end;
        also how long a finished process waits for the others.

    Raises:
      ValueError: some of the three are missing or wrong, or nothing is detected.
    """
    given = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    missing = [name for name, value in given.items() if value is None]
    launched = any(int(os.environ.get(name) or 1) > 1 for name in LAUNCHED)
    if len(missing) == len(given) and not detect and not launched:
        return
    if 0 < len(missing) < len(given):
        raise ValueError(f"{', '.join(given)} go together: {', '.join(missing)} not given")
    if not missing and not 0 <= process_id < num_processes:
        raise ValueError(
            f"process_id={process_id} is not one of num_processes={num_processes}, from 0"
        )
    if not missing:  # JAX waits minutes for the others before it aborts
        where = f"process {process_id} of {num_processes} meets the others at {coordinator}"
        print(where, file=sys.stderr, flush=True)
    # JAX's own handler of SIGTERM would take the signal from the loop, where the processes agree
    # when to stop, and from the time before the loop, when the signal should end the process.
    jax.config.update("jax_enable_preemption_service", False)
    # If another process is lost, JAX says so and aborts. Python would print pages of stacks below.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGABRT, signal.SIG_DFL)
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=timeout,
            shutdown_timeout_seconds=timeout,
        )
    except ValueError as error:
        raise ValueError(
            f"no processes to join: give {', '.join(given)}, or start on Cloud TPU, by srun or by "
            f"mpirun ({error})"
        ) from error


def vote(flag: bool) -> jax.Array:
    """Starts to compute whether `flag` is True in any process; reading the result `[]` waits.

    Every process must call it, at the same place among its computations.
    """
    spread, any_of = ballot()
    mine = np.full(jax.local_device_count(), flag)
    with jax.transfer_guard_host_to_device("allow"):  # JAX counts this as implicit
        return any_of(jax.make_array_from_process_local_data(spread, mine))


@functools.cache
def ballot() -> tuple[NamedSharding, Callable[[jax.Array], jax.Array]]:
    """The sharding of one flag per device, and the compiled `any` over them."""
    mesh = jax.make_mesh((jax.device_count(),), ("device",), axis_types=(AxisType.Auto,))
    spread, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (["device"], []))
    return spread, jax.jit(jnp.any, out_shardings=whole)


def any_process(flag: bool) -> bool:
    """Returns whether `flag` is True in any process. Every process must call it."""
    return bool(jax.device_get(vote(flag))) if jax.process_count() > 1 else flag


def all_or_raise(action: Callable[[], T]) -> T:
    """Returns `action()`. Where it raises in one process, it raises in every process."""
    result = error = None
    try:
        result = action()
    except Exception as raised:
        error = raised
    if any_process(error is not None):
        raise error or RuntimeError("it did not succeed in another process")
    return result


def same(text: str) -> bool:
    """Returns whether all processes call it with the same text. Every process must call it."""
    mine = np.int32(zlib.crc32(text.encode()) >> 1)
    return not any_process(mine != multihost_utils.broadcast_one_to_all(mine))


def on_process_zero(action: Callable[[], object]) -> None:
    """Runs `action` in process 0, and waits for it. Where it raises, every process raises."""
    all_or_raise(lambda: action() if jax.process_index() == 0 else None)
