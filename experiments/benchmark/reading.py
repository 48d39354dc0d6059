"""Measures what reading a config's training examples costs a processor, for `experiments.plan`.

    python -m experiments.benchmark.reading --config=configs/flow.py:autoflow_recipe \\
        --output=experiments/results/reading.csv
    python -m experiments.benchmark.reading --config=configs/flow.py:autoflow --pairs=40

It takes the batches that a run takes, with its decoding, augmentation and batching, and counts the
processor's seconds, so other work on the machine hardly matters. With --pairs it first writes so
many generated pairs as AutoFlow's files (448 x 576, PNG and .flo) and reads those. --output gets a
row, in place of an earlier one of the same source.
"""

import pathlib
import shlex
import sys
import tempfile
from typing import Any

import cv2
from absl import flags
from ml_collections import ConfigDict, config_flags

from configs import flow
from experiments import command, make_task
from experiments.benchmark.data import cpu_seconds
from perceiver_jax import files
from perceiver_jax.datasets import load
from perceiver_jax.files.paths import user_path
from perceiver_jax.machine import cores, hardware
from perceiver_jax.train import sharding
from perceiver_jax.train.workdir import git_commit


def write_pairs(folder: pathlib.Path, count: int) -> None:
    """Writes the first `count` pairs of `configs/flow.py:autoflow_recipe` as AutoFlow has them."""
    data = flow.get_config("autoflow_recipe").data
    source = load("scenes", f"train[:{count}]", options=data.source_options.to_dict())
    for i in range(count):
        place = folder / "static_40k_png_1_of_4" / f"table_{i}"
        place.mkdir(parents=True)
        example = source[i]
        for name, frame in zip(("im0.png", "im1.png"), example["frames"], strict=True):
            cv2.imwrite(str(place / name), frame[..., ::-1])
        files.write_flo(place / "forward.flo", example["field"])


def measure(config: ConfigDict, examples: int) -> dict[str, Any]:
    """Reads batches until there were so many examples, after a first batch, and returns a row."""
    number = cores()
    config.data.readers = f"threads:{number}"
    batches = make_task(config).train_data(0)
    try:
        next(batches)
        cpu, read = cpu_seconds(), 0
        while read < examples:
            next(batches)
            read += config.batch_size
        cpu = cpu_seconds() - cpu
    finally:
        sharding.close(batches)
    return {
        "source": config.data.source,
        "transforms": config.data.train,
        "examples": read,
        "readers": config.data.readers,
        "cpu_ms_per_example": float(f"{1e3 * cpu / read:.3g}"),
    }


def write(path: pathlib.Path, row: dict[str, Any]) -> None:
    """Puts a row into a table, in place of that of the same source."""
    rows = [old for old in command.read_table(path) if old["source"] != row["source"]]
    command.write_table(path, sorted([*rows, row], key=lambda row: row["source"]))


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    where = {"flag_values": values}
    config_flags.DEFINE_config_file("config", None, "File and variant.", **where)
    flags.DEFINE_integer("examples", 200, "How many are read at least, after a batch.", 1, **where)
    text = "Pairs to write as AutoFlow's files, and to read; 0 reads the config's own data."
    flags.DEFINE_integer("pairs", 0, text, 0, **where)
    flags.DEFINE_string("output", "", "A CSV file that gets a row.", **where)
    flags.mark_flags_as_required(["config"], **where)


@command.one_line_errors
def main(argv: list[str]) -> None:
    """The command."""
    del argv
    chosen = flags.FLAGS
    config = chosen.config.copy_and_resolve_references()
    output = user_path(chosen.output) if chosen.output else None
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)  # fails before the work, if it fails
    with tempfile.TemporaryDirectory() as directory:
        if chosen.pairs:
            write_pairs(pathlib.Path(directory), chosen.pairs)
            config.data.data_dir = directory
            config.data.train_split = "train"
            config.data.eval_split = "train[:1]"
        row = measure(config, chosen.examples)
    row |= {
        "command": f"python -m experiments.benchmark.reading {shlex.join(sys.argv[1:])}",
        "commit": git_commit()[:10],
        "hardware": hardware("cpu"),
    }
    print(", ".join(f"{name} {value}" for name, value in row.items()))
    if output:
        write(output, row)


if __name__ == "__main__":
    command.run(main, define_flags)
