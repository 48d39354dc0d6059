"""Does pretraining pay? Few labelled digits: fine-tuned from MNIST, and from scratch.

    tfds build mnist --file_format=array_record        # once; pip install -e '.[prepare]'
    python -m experiments.transfer --workdir=runs/transfer --output=experiments/results

For each seed a model is pretrained on MNIST (`configs/digits.py:mnist`). Then 10, 30 and 100 images
of scikit-learn's digits, equally many of each class and others for each seed, train
(`configs/digits.py:few`)

    scratch     a model from its initial values
    whole       the pretrained model with a new output
    frozen      its decoder and a new output alone

and `neighbour` is the class of the nearest of these images. All are evaluated on the 360 test
images. Each run is a folder of the workdir, so the command resumes. It writes `transfer.csv` and
`transfer.png` with 95 % intervals over the seeds (Student's t).
"""

import csv
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags
from etils import epath
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from configs import digits
from experiments import command, make_task
from experiments.lab.rows import interval
from perceiver_jax.config_types import ConfigError, Whole
from perceiver_jax.datasets import digits as dataset
from perceiver_jax.datasets.arrays import Arrays
from perceiver_jax.files.paths import user_path
from perceiver_jax.train import compilation, loop
from perceiver_jax.train.workdir import RESULT, check_config, git_commit

CLASSES = 10
SIZES = (10, 30, 100)
METHODS = {  # what the config changes, given the pretrained workdir
    "scratch": {},
    "whole": {"start.fresh": ("output",)},
    "frozen": {
        "start.fresh": ("output",),
        "optimizer.multipliers": (("^input|^encoder", 0.0),),
    },
}
STYLES = {"frozen": "C0o-", "whole": "C1s-", "scratch": "C2^-", "neighbour": "k:"}


def few_digits(split: str, *, data_dir: str = "", examples: Whole = 0, draw: Whole = 0) -> Arrays:
    """The source `digits`, of which `examples` are drawn, equally many of each class; 0 is all.

    Raises:
      ConfigError: they do not divide by the classes, or a class has fewer.
    """
    source = dataset.load(split, data_dir=data_dir)
    if not examples:
        return source
    label, rng = source.arrays["label"], np.random.default_rng(draw)
    each = examples // CLASSES
    if examples % CLASSES or not 0 < each <= np.bincount(label).min():
        raise ConfigError(
            f"config.data.train_source_options.examples={examples} is not allowed: write a multiple"
            f" of {CLASSES} to {CLASSES * np.bincount(label).min()}, or 0 for all"
        )
    rows = [rng.permutation(np.flatnonzero(label == k))[:each] for k in range(CLASSES)]
    rows = np.sort(np.concatenate(rows))
    arrays = {name: x[rows] for name, x in source.arrays.items()}
    return Arrays(arrays, name=f"digits[{split}, {examples} of draw {draw}]")


def pretraining(seed: int, data_dir: str, *, tiny: bool) -> ConfigDict:
    """The config of the MNIST run of a seed."""
    config = digits.get_config("mnist:tiny" if tiny else "mnist")
    config.seed, config.data.data_dir = seed, data_dir
    return config


def tuning(method: str, size: int, seed: int, pretrained: str, *, tiny: bool) -> ConfigDict:
    """The config of a run on few digits."""
    config = digits.get_config("few:tiny" if tiny else "few")
    config.seed = seed
    config.data.train_source_options = {"examples": size, "draw": seed}
    if METHODS[method]:
        config.start.weights = pretrained
    config.update_from_flattened_dict(METHODS[method])
    return config


def rows_of(
    workdir: pathlib.Path, data_dir: str, seeds: Sequence[int], *, tiny: bool = False
) -> Iterator[dict[str, Any]]:
    """Trains what is not there yet, and yields a row for each method, size and seed."""
    for seed in seeds:
        folder = workdir / f"mnist_{seed}"
        run(pretraining(seed, data_dir, tiny=tiny), folder)
        for size in SIZES:
            row = {"labels": size, "seed": seed}
            found = neighbour(few_digits("train", examples=size, draw=seed), few_digits("test"))
            yield {"method": "neighbour", **row, "accuracy": found, "commit": git_commit()}
            for method in METHODS:
                config = tuning(method, size, seed, str(folder), tiny=tiny)
                result = run(config, workdir / f"{method}_{size}_{seed}")
                result = {name: result[name] for name in ("accuracy", "commit")}
                yield {"method": method, **row, **result}


def run(config: ConfigDict, workdir: pathlib.Path) -> Mapping[str, Any]:
    """Trains as `experiments.run` does, or returns the result of the finished run."""
    print(f"\n{workdir}", flush=True)
    if (workdir / RESULT).exists():
        check_config(epath.Path(workdir), config, write=False)
        return json.loads((workdir / RESULT).read_text())
    return loop.train(make_task(config), config.lock(), workdir)


def neighbour(train: Arrays, test: Arrays) -> float:
    """Accuracy of the label of the nearest training image, by Euclidean distance of pixels."""
    known, asked = (
        source.arrays["image"].reshape(len(source), -1).astype(np.float32)
        for source in (train, test)
    )
    distance = np.square(asked[:, None] - known[None]).sum(axis=-1)
    found = train.arrays["label"][distance.argmin(axis=1)]
    return float(np.mean(found == test.arrays["label"]))


def curve(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Accuracy over the number of labelled images, with intervals over seeds."""
    figure = Figure(figsize=(5.6, 3.8), layout="constrained")
    axes = figure.add_subplot()
    for method, style in STYLES.items():
        values = [
            interval([float(r["accuracy"]) for r in rows
                      if (r["method"], int(r["labels"])) == (method, size)])
            for size in SIZES
        ]  # fmt: skip
        places = np.array(SIZES) * (1 + 0.02 * list(STYLES).index(method))
        half = [np.nan if v.half is None else v.half for v in values]
        axes.errorbar(
            places, [v.mean for v in values], half,
            fmt=style, ms=4, capsize=3, label=method,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks(SIZES, map(str, SIZES))
    axes.minorticks_off()
    axes.set_xlabel("labelled images in total")
    axes.set_ylabel("test accuracy")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    where = {"flag_values": values}
    flags.DEFINE_string("workdir", None, "Folder of the runs.", **where)
    flags.DEFINE_string("output", ".", "Folder of the table and the figure.", **where)
    flags.DEFINE_string("data_dir", "", "Of TFDS, '' is its own default.", **where)
    flags.DEFINE_integer("seeds", 3, "How many seeds, from 0.", 1, **where)
    command.define_cache(values)
    flags.mark_flags_as_required(["workdir"], **where)


@command.one_line_errors
def main(argv):
    """The command."""
    del argv
    chosen = flags.FLAGS
    command.keep_programs(user_path(chosen.workdir) / compilation.FOLDER)
    rows = list(rows_of(user_path(chosen.workdir), chosen.data_dir, range(chosen.seeds)))
    write(rows, user_path(chosen.output))


def write(rows: Sequence[Mapping[str, Any]], folder: pathlib.Path) -> None:
    """Writes the table and the figure."""
    with (folder / "transfer.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    curve(rows).savefig(folder / "transfer.png", dpi=150)
    print(folder / "transfer.csv", folder / "transfer.png", sep="\n")


if __name__ == "__main__":
    command.run(main, define_flags)
