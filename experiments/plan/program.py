"""Compiles a config's training step for described devices; reports its memory and traffic."""

import dataclasses
import math
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from experiments import make_task
from experiments.plan import hlo, work
from perceiver_jax import flops
from perceiver_jax.datasets import registry
from perceiver_jax.train import sharding, start
from perceiver_jax.train.task import Task

BACKWARD = 3  # forward and backward take three times the forward pass's arithmetic


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on each device.

    Attributes:
      peak: the most in use at one time.
      reserved: what the program allocates, with its code and fragmentation.
      parameters, optimizer, batch: in use before a step.
    """

    peak: int
    reserved: int
    parameters: int
    optimizer: int
    batch: int

    @property
    def temporaries(self) -> int:
        """The rest of the peak: activations, gradients, random keys, running averages."""
        return self.peak - self.parameters - self.optimizer - self.batch


@dataclasses.dataclass(frozen=True)
class Step:
    """A compiled step. FLOPs and traffic are those of one device, except `textbook`."""

    devices: int
    memory: Memory
    traffic: hlo.Traffic
    executed: float  # FLOPs of matrix products and convolutions, as often as they run
    textbook: float  # FLOPs of the textbook model, forward and backward, the whole batch
    seconds: float  # of compilation
    operations: Sequence[work.Operation] = ()
    hosts: int = 1


class OutOfMemory(Exception):
    """The step does not fit; `used` and `limit` in bytes where the compiler tells, else None."""

    def __init__(self, message: str, used: float | None, limit: float | None):
        super().__init__(message)
        self.used, self.limit = used, limit


def compile_step(config: ConfigDict, devices: list[Any]) -> Step:
    """Compiles the training step of `config` for `devices`.

    Args:
      config: of an experiment. Its data need not be there.
      devices: of this machine, or of `chips.slice_devices`.

    Raises:
      OutOfMemory: the compiler finds no way to fit the step into a device.
      ValueError: the config is wrong.
    """
    return compile_task(*blank_task(config), config, devices)


def compile_task(
    task: Task, example: Mapping[str, Any], config: ConfigDict, devices: list[Any]
) -> Step:
    """As `compile_step`, of a task with a training batch of one example."""
    if config.parallel.mode != "jit":
        raise ValueError(
            f"config.parallel.mode={config.parallel.mode!r} is not compiled ahead of time: plan "
            "with mode='jit'"
        )
    program = start.build(task, config, devices)
    batch = {
        name: jax.ShapeDtypeStruct((config.batch_size, *x.shape[1:]), x.dtype)
        for name, x in example.items()
    }
    shardings = sharding.batch_shardings(batch, program.layout)
    batch = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), batch, shardings
    )
    executed = flops.executed(program.train_step, program.target, batch)
    begin = time.perf_counter()
    try:
        compiled = program.train_step.lower(program.target, batch).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            raise out_of_memory(str(error)) from error
        raise
    text = compiled.as_text()
    return Step(
        devices=len(devices),
        memory=measure(compiled.memory_analysis(), program.target, batch),
        traffic=hlo.traffic(text),
        executed=executed / len(devices),
        textbook=BACKWARD * task.flops_per_example * config.batch_size,
        seconds=time.perf_counter() - begin,
        operations=work.operations(text),
        hosts=len({device.process_index for device in devices}),
    )


def blank_task(config: ConfigDict) -> tuple[Task, Mapping[str, Any]]:
    """A config's task with fake data, and a training batch of one example."""
    config = config.copy_and_resolve_references()
    config.data.source = registry.stand_in(config.data.source)
    config.data.readers = "threads:0"
    config.data.in_memory = False
    config.batch_size = config.accumulate = config.data.eval_batch_size = 1
    config.parallel.model = 1  # batches are read here, on one device
    task = make_task(config)
    batches = task.train_data(0)
    try:
        return task, next(batches)
    finally:
        sharding.close(batches)


def measure(analysis: Any, state: Any, batch: Any) -> Memory:
    """The memory of a compiled step, split by what is known of its arguments."""
    reserved = (
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        - analysis.alias_size_in_bytes
        + analysis.temp_size_in_bytes
        + analysis.generated_code_size_in_bytes
    )
    return Memory(
        peak=analysis.peak_memory_in_bytes or reserved,  # the compiler for GPUs does not tell
        reserved=reserved,
        parameters=on_a_device(state.params),
        optimizer=on_a_device((state.opt_state, state.ema)),
        batch=on_a_device(batch),
    )


def on_a_device(tree: Any) -> int:
    """Bytes that each device holds of arrays with shardings."""
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree)
    )


def out_of_memory(message: str) -> OutOfMemory:
    """Returns the compiler's first line with the first two sizes: needed and available.

    As in `Used 44.94G of 15.75G hbm` or `temporaries (33.54G) exceeds available HBM (15.75G)`.
    """
    line = message.splitlines()[0].removeprefix("RESOURCE_EXHAUSTED: ")
    unit = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    sizes = [float(n) * unit[u] for n, u in re.findall(r"\b(\d[\d.]*)([KMGT])\b", line)]
    used, limit = sizes[:2] if len(sizes) > 1 else (None, None)
    return OutOfMemory(line, used, limit)
