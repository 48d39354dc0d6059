"""Few labelled digits: fine-tuned from MNIST, and from scratch.

For each seed a model is pretrained on MNIST (`configs/digits.py:mnist`). Then 10, 30 and 100 images
of scikit-learn's digits, equally many of each class and others for each seed, train
(`configs/digits.py:few`).
"""

import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from ml_collections import ConfigDict

from configs import digits
from experiments.transfer.table import Curve, Row, run
from perceiver_jax.config_types import ConfigError, Whole
from perceiver_jax.datasets import digits as dataset
from perceiver_jax.datasets.arrays import Arrays
from perceiver_jax.train.workdir import git_commit

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
CURVE = Curve(
    column="labels",
    title="labelled images in total",
    ticks={size: str(size) for size in SIZES},
    styles={"frozen": "C0o-", "whole": "C1s-", "scratch": "C2^-", "neighbour": "k:"},
)


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
) -> Iterator[Row]:
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


def neighbour(train: Arrays, test: Arrays) -> float:
    """Accuracy of the label of the nearest training image, by Euclidean distance of pixels."""
    known, asked = (
        source.arrays["image"].reshape(len(source), -1).astype(np.float32)
        for source in (train, test)
    )
    distance = np.square(asked[:, None] - known[None]).sum(axis=-1)
    found = train.arrays["label"][distance.argmin(axis=1)]
    return float(np.mean(found == test.arrays["label"]))
