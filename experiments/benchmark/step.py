"""Times the training step of a config on the devices here, without data.

    python -m experiments.benchmark.step --config=configs/imagenet.py:fourier --batch=2 \\
        --config.model.output.num_classes=10 --config.start.weights=imagenet_fourier \\
        --config.start.fresh=output --config.optimizer.multipliers='(("input|encoder", 0.0),)'

The step is the one that a run takes, from where `config.start` begins, on the zeros of fake data.
It prints a row, which `--output=FILE.csv` gets too: parameters that are trained and all, FLOPs of
the step's products, seconds of the fastest of `--steps` steps after a first one, and the peak
memory: on a CPU that of the whole process, with starting and compiling, so measure one config a
process; else that of the fullest device.
"""

import resource
import tempfile
import time
from typing import Any

import jax
from absl import flags
from etils import epath
from ml_collections import ConfigDict, config_flags

from experiments import command
from experiments.plan.program import blank_task
from experiments.plan.search import flags_of
from perceiver_jax import flops
from perceiver_jax.files.paths import user_path
from perceiver_jax.machine import hardware
from perceiver_jax.train import multipliers, sharding
from perceiver_jax.train.start import build, start
from perceiver_jax.train.workdir import git_commit


def time_step(config: ConfigDict, *, steps: int) -> dict[str, Any]:
    """Takes a step and then `steps` of a config, and returns what they cost."""
    task, example = blank_task(config)
    program = build(task, config)
    rows = config.batch_size // sharding.reader(program.layout.mesh)[1]
    batch = jax.tree.map(lambda x: x.repeat(rows, axis=0), dict(example))
    with tempfile.TemporaryDirectory() as empty:
        state, _ = start(config, epath.Path(empty), program, set_aside=None)
    trained, _ = multipliers.split(state.params, config.optimizer.multipliers)
    seconds = []
    for _ in range(1 + steps):
        put = sharding.shard_batch(batch, program.layout)
        begin = time.perf_counter()
        state, metrics = program.train_step(state, put)
        jax.block_until_ready((state, metrics))
        seconds.append(time.perf_counter() - begin)
    return {
        "batch_size": config.batch_size,
        "parameters_trained": size(trained),
        "parameters": size(state.params),
        "gflop": round(flops.executed(program.train_step, program.target, put) / 1e9, 1),
        "seconds": round(min(seconds[1:]), 3),
        "peak_gb": round(peak_bytes() / 1e9, 2),
        "device": hardware(),
        "commit": git_commit(),
    }


def size(tree: Any) -> int:
    """How many numbers a tree holds."""
    return sum(x.size for x in jax.tree.leaves(tree))


def peak_bytes() -> int:
    """The most memory used so far, of the fullest device or on a CPU of this process."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    if all(stats):
        return max(found["peak_bytes_in_use"] for found in stats)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # kB on Linux


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    where = {"flag_values": values}
    config_flags.DEFINE_config_file("config", None, "File and variant.", **where)
    flags.DEFINE_integer("batch", 0, "config.batch_size, if another; the steps follow.", 0, **where)
    flags.DEFINE_integer("steps", 3, "How many steps are timed.", 1, **where)
    flags.DEFINE_string("output", "", "A CSV file that gets a row.", **where)
    flags.mark_flags_as_required(["config"], **where)


@command.one_line_errors
def main(argv):
    """The command."""
    del argv
    chosen = flags.FLAGS
    config, flag = chosen.config, chosen["config"]
    if chosen.batch:
        config.batch_size = chosen.batch
    settings = flags_of(config_flags.get_override_values(flag))
    row = {"config": config_flags.get_config_filename(flag), "settings": settings}
    row |= time_step(config.copy_and_resolve_references(), steps=chosen.steps)
    print(", ".join(f"{name} {value}" for name, value in row.items()))
    if chosen.output:
        path = user_path(chosen.output)
        command.write_table(path, [*command.read_table(path), row])


if __name__ == "__main__":
    command.run(main, define_flags)
