"""Point clouds of a folder: a Perceiver beside a PointNet, shape histograms and a constant answer.

    python -m experiments.benchmark.shapes --data_dir=/data/furniture_ply_hdf5_2048 \\
        --workdir=runs/shapes --output=experiments/results

For each seed it trains `configs/points.py:furniture` and `:furniture_pointnet`, which has as many
FLOPs, and evaluates both on all test clouds. `d2` is the class of the nearest training cloud by
the distances between random pairs of its points (Osada et al. 2002, scikit-learn), and `majority`
the commonest class of the training clouds. Each run is a folder of the workdir, so the command
resumes. It writes `shapes.csv` and prints 95 % intervals over the seeds (Student's t).
"""

import platform
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from configs import points as configs
from experiments import command
from experiments.lab.rows import interval
from experiments.transfer.table import run
from perceiver_jax import metrics
from perceiver_jax.datasets import points
from perceiver_jax.files.paths import user_path
from perceiver_jax.machine import hardware
from perceiver_jax.train import compilation
from perceiver_jax.train.workdir import git_commit

MODELS = ("furniture", "furniture_pointnet")
PAIRS, BINS, LONGEST = 20_000, 64, 3.0  # the last in mean distances
SCORES = ("accuracy", "mean_class_accuracy")


def rows_of(
    workdir, data_dir: str, seeds: Sequence[int], *, tiny: bool = False
) -> Iterator[dict[str, Any]]:
    """Trains what is not there yet, and yields a row for each method and seed."""
    train, test = (points.load(split, data_dir=data_dir) for split in ("train", "test"))
    for seed in seeds:
        for name, guess in (("majority", majority), ("d2", nearest_histogram)):
            label = np.array([test[i]["label"] for i in range(len(test))])
            found = {"prediction": guess(train, test, seed), "label": label}
            scores = {score: getattr(metrics, score)(found) for score in SCORES}
            yield {"method": name, "seed": seed, **scores, "commit": git_commit()}
        for name in MODELS:
            config = configs.get_config(f"{name}:tiny" if tiny else name)
            config.seed, config.data.data_dir = seed, data_dir
            result = run(config, workdir / f"{name}_{seed}")
            scores = {score: result[score] for score in (*SCORES, "commit")}
            yield {"method": name, "seed": seed, **scores}


def majority(train, test, seed: int) -> np.ndarray:
    """The commonest class of the training clouds for each test cloud, `[N]`."""
    del seed
    label = [train[i]["label"] for i in range(len(train))]
    return np.full(len(test), np.bincount(label).argmax())


def nearest_histogram(train, test, seed: int) -> np.ndarray:
    """The class of the training cloud of the most similar histogram, by the sum of differences."""
    from sklearn.neighbors import KNeighborsClassifier  # slow to import

    def described(source):
        rng = np.random.default_rng(seed)
        return np.stack([d2_histogram(source[i]["points"], rng) for i in range(len(source))])

    label = [train[i]["label"] for i in range(len(train))]
    model = KNeighborsClassifier(1, metric="manhattan").fit(described(train), label)
    return model.predict(described(test))


def d2_histogram(cloud: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shares of the distances between random pairs of points, in units of their mean, `[BINS]`."""
    first, second = rng.integers(len(cloud), size=(2, PAIRS))
    distance = np.linalg.norm(cloud[first] - cloud[second], axis=1)
    found, _ = np.histogram(distance / max(distance.mean(), 1e-12), BINS, (0, LONGEST))
    return found / PAIRS


def summary(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each method: the mean of each score with its interval, in per cent."""
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        parts = [method]
        for score in SCORES:
            found = interval([100 * row[score] for row in rows if row["method"] == method])
            half = "" if found.half is None else f" ± {found.half:.1f}"
            parts.append(f"{score} {found.mean:.1f}{half}")
        lines.append(", ".join(parts))
    return lines


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    where = {"flag_values": values}
    flags.DEFINE_string("workdir", None, "Folder of the runs.", required=True, **where)
    flags.DEFINE_string("data_dir", None, "Folder of the clouds.", required=True, **where)
    flags.DEFINE_string("output", ".", "Folder of the table.", **where)
    flags.DEFINE_integer("seeds", 3, "How many seeds, from 0.", 1, **where)
    command.define_cache(values)


@command.one_line_errors
def main(argv):
    """The command."""
    del argv
    chosen = flags.FLAGS
    workdir = user_path(chosen.workdir)
    command.keep_programs(workdir / compilation.FOLDER)
    origin = {
        "command": "python -m experiments.benchmark.shapes --data_dir=... --workdir=...",
        "hardware": hardware(),
        "software": f"Python {platform.python_version()}, jax {jax.__version__}",
    }
    rows = []
    path = user_path(chosen.output) / "shapes.csv"
    for row in rows_of(workdir, chosen.data_dir, range(chosen.seeds)):
        rows.append(row | origin)
        command.write_table(path, rows)
    print(*summary(rows), path, sep="\n")


if __name__ == "__main__":
    command.run(main, define_flags)
