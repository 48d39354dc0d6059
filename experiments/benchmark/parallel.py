"""Compares the ways to spread a step over devices: results, and memory of each device.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 JAX_PLATFORMS=cpu \\
        python -m experiments.benchmark.parallel --output=experiments/results

It writes two files. `parallel_steps.csv` has small models of three kinds, trained from the same
start on the same batches in every way of `WAYS`, with the largest difference of any parameter from
the run on one device. `parallel_memory.csv` has the memory of the compiled training step of one
huge input on each device, by the number of devices. Nothing is timed, so the devices may be
virtual, as above. Dropout is off, because `pmap` draws its own random numbers on each device.
"""

import functools
import pathlib
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from configs import bounce, common, digits, flow, imagenet, stereo
from experiments import command, make_task
from experiments.tasks.dense import prepare_pairs
from experiments.tasks.image import prepare_images
from perceiver_jax import losses
from perceiver_jax.build import build as build_model
from perceiver_jax.files.paths import user_path
from perceiver_jax.machine import hardware
from perceiver_jax.train import sharding
from perceiver_jax.train.start import build
from perceiver_jax.train.state import TrainState
from perceiver_jax.train.task import Task
from perceiver_jax.train.workdir import git_commit

# On 8 devices; the fields of `config.parallel` that differ from the defaults.
WAYS = {
    "jit": {},
    "pmap": {"mode": "pmap"},
    "all parameters sharded": {"shard_params_above": 1},
    "inputs sharded over 4": {"model": 4, "shard_inputs": True},
    "latent width over 2": {"model": 2, "latents": "width"},
    "all of them over 2": {
        "model": 2,
        "shard_inputs": True,
        "latents": "width",
        "shard_params_above": 1,
    },
}


def image() -> ConfigDict:
    """Digits, mixed."""
    config = digits.get_config("tiny")
    config.data.mix_alpha = 0.2
    return config


def conv_image() -> ConfigDict:
    """Digits through convolution and batch norm, and two microbatches."""
    config = image()
    config.model.input = common.conv_stem(channels=8, num_bands=4)
    config.batch_size, config.accumulate = 16, 2
    return config


def pairs() -> ConfigDict:
    """Stereograms: many queries."""
    return stereo.get_config("rds:tiny")


def clips() -> ConfigDict:
    """Video, sound and label together."""
    config = bounce.get_config("tiny")
    config.model.input.drop_rates = dict.fromkeys(("audio", "label", "video"), 0.0)
    return config


EXPERIMENTS = {"image": image, "conv": conv_image, "stereo": pairs, "multimodal": clips}


def trained(task: Task, config: ConfigDict, start: TrainState, devices=None, **parallel):
    """The parameters after the steps of the config from `start`, on the host, and the last loss."""
    config = config.copy_and_resolve_references()
    config.parallel.update(parallel)
    program = build(task, config, devices)
    places = jax.tree.map(lambda x: x.sharding, program.target)
    state = jax.device_put(jax.tree.map(jnp.copy, start), places)  # a step donates it
    with sharding.on_devices(task.train_data(0), program.layout) as batches:
        for _ in range(config.steps):
            state, metrics = program.train_step(state, next(batches))
    return jax.device_get(state.params), float(metrics["loss"])


def largest_difference(one, other) -> float:
    """The largest difference between two trees."""
    differences = jax.tree.map(lambda a, b: np.abs(a - b).max(), one, other)
    return float(max(jax.tree.leaves(differences)))


def compare(make_config: Callable[[], ConfigDict], steps: int, ways: Iterable[str]):
    """Yields a row for each of `ways`, which are names in `WAYS`."""
    config = make_config()
    config.steps = steps
    config.optimizer.schedule = {"name": "constant", "warmup_steps": 0}
    config.model.encoder.dropout_rate = 0.0
    task = make_task(config)
    start = build(task, config, jax.devices()[:1]).init(config.seed)
    one, loss = trained(task, config, start, jax.devices()[:1])
    for way in ways:
        other, other_loss = trained(task, config, start, **WAYS[way])
        yield {
            "way": way,
            "steps": steps,
            "largest_difference": largest_difference(one, other),
            "largest_change": largest_difference(jax.device_get(start.params), one),
            "loss_of_one_device": loss,
            "loss": other_loss,
        }


def huge_image(side: int) -> Task:
    """A classifier of large images."""
    config = imagenet.get_config("fourier")
    config.model.encoder.update(SMALL)
    config.model.output.query_channels = SMALL["latent_channels"]
    prepare = functools.partial(
        prepare_images,
        num_classes=1000,
        mean=config.data.mean,
        std=config.data.std,
        label_smoothing=0.0,
        mix_alpha=0.0,
    )
    shapes = {"image": ((side, side, 3), np.uint8), "label": ((), np.int32)}
    return task_of_shapes(config, shapes, prepare, losses.softmax_cross_entropy)


def huge_pair(side: int) -> Task:
    """Flow at every pixel of large pairs."""
    config = flow.get_config("synthetic")
    config.model.encoder.update(SMALL)
    config.model.output.shape = (side, side)
    prepare = functools.partial(prepare_pairs, tile=(side, side), num_queries=0)
    shapes = {
        "frames": ((2, side, side, 3), np.uint8),
        "field": ((side, side, 2), np.float32),
        "valid": ((side, side), bool),
    }
    return task_of_shapes(config, shapes, prepare, losses.robust_field(epsilon=0.01, power=0.5))


SMALL = {"num_latents": 64, "latent_channels": 128, "num_blocks": 1}
HUGE = {"image": (huge_image, 4096), "flow": (huge_pair, 1024)}


def task_of_shapes(config: ConfigDict, shapes: dict, prepare: Callable, loss: Callable) -> Task:
    """A task without data."""
    shapes = shapes | {"mask": ((), bool)}
    return Task(
        model=build_model(config.model.to_dict()),
        example={n: jax.ShapeDtypeStruct((1, *s), kind) for n, (s, kind) in shapes.items()},
        train_data=None,
        eval_data=None,
        prepare=prepare,
        loss=loss,
        metrics={},
        flops_per_example=0.0,
    )


def memory(task: Task, devices: int) -> dict:
    """Bytes on each device for a training step of one example, by the compiler."""
    config = digits.get_config()
    config.batch_size = 1
    config.parallel.update({"model": devices, "shard_inputs": devices > 1})
    program = build(task, config, jax.devices()[:devices])
    places = sharding.batch_shardings(task.example, program.layout)
    batch = jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        task.example,
        places,
    )
    found = program.train_step.lower(program.target, batch).compile().memory_analysis()
    return {
        "batch_and_state_bytes": found.argument_size_in_bytes,
        "temporaries_bytes": found.temp_size_in_bytes,
    }


def write(path: pathlib.Path, rows: Iterable[dict]) -> None:
    """Writes a table, and prints each row at once."""
    origin = {
        "command": "XLA_FLAGS=--xla_force_host_platform_device_count=8 JAX_PLATFORMS=cpu "
        "python -m experiments.benchmark.parallel --output=...",
        "commit": git_commit()[:10],
        "hardware": hardware(),
        "software": f"jax {jax.__version__}",
    }
    done = []
    for row in rows:
        print(row, flush=True)
        done.append(row | origin)
        command.write_table(path, done)


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    where = {"flag_values": values}
    flags.DEFINE_string("output", None, "Folder of the two tables.", required=True, **where)
    flags.DEFINE_integer("steps", 20, "Steps of training.", 1, **where)


@command.one_line_errors
def main(argv):
    """The command."""
    del argv
    if jax.device_count() < 8:
        raise ValueError(f"this compares 8 devices, there are {jax.device_count()}: see --help")
    folder = user_path(flags.FLAGS.output)
    folder.mkdir(parents=True, exist_ok=True)
    write(
        folder / "parallel_memory.csv",
        (
            {"task": name, "side": side, "devices": devices} | memory(make_huge(side), devices)
            for name, (make_huge, side) in HUGE.items()
            for devices in (1, 2, 4, 8)
        ),
    )
    write(
        folder / "parallel_steps.csv",
        (
            {"task": name} | row
            for name, make_config in EXPERIMENTS.items()
            for row in compare(make_config, flags.FLAGS.steps, WAYS)
        ),
    )


if __name__ == "__main__":
    command.run(main, define_flags)
