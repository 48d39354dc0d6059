"""What a model of point clouds is compared with, and the table of all."""

import numpy as np
import pytest
from point_files import write_princeton

from experiments import check_config
from experiments.benchmark import shapes
from perceiver_jax.datasets import registry
from perceiver_jax.datasets.arrays import Arrays


def clouds(split, count):
    """Spheres and cylinders of any size, turned."""
    options = {"num_points": (256, 256), "stretch": 1.0, "turn": "all", "noise": 0.0}
    source = registry.load("shapes", f"{split}[:{6 * count}]", options=options)
    kept = [e for e in (source[i] for i in range(6 * count)) if e["label"] in (0, 4)]
    points = np.stack([e["points"] * (i + 1) for i, e in enumerate(kept)])
    return Arrays({"points": points, "label": np.array([e["label"] for e in kept])})


def test_a_shape_is_known_by_the_distances_between_its_points():
    train, test = clouds("train", 10), clouds("test", 10)
    found = shapes.nearest_histogram(train, test, 0)
    assert np.mean(found == test.arrays["label"]) > 0.9
    answer = shapes.majority(Arrays({"label": np.array([3, 1, 1])}), test, 0)
    assert set(answer) == {1} and len(answer) == len(test)


def test_the_runs_and_the_table(tmp_path, monkeypatch):
    write_princeton(tmp_path / "set", count=2)
    seen = {}

    def run(config, workdir):
        check_config(config)
        seen[workdir.name] = config
        score = 0.6 if "pointnet" in workdir.name else 0.8 + 0.01 * config.seed
        return {"accuracy": score, "mean_class_accuracy": 0.5, "loss": 1.0, "commit": "abc"}

    monkeypatch.setattr(shapes, "run", run)
    rows = list(shapes.rows_of(tmp_path, str(tmp_path / "set"), range(3), tiny=True))
    assert sorted(seen) == [f"{name}_{i}" for name in shapes.MODELS for i in range(3)]
    assert seen["furniture_pointnet_2"].seed == 2
    assert seen["furniture_pointnet_2"].model.module == "pointnet.PointNet"
    lines = dict(line.split(", ", 1) for line in shapes.summary(rows))
    assert list(lines) == ["majority", "d2", *shapes.MODELS]
    assert lines["majority"] == "accuracy 50.0 ± 0.0, mean_class_accuracy 50.0 ± 0.0"
    half = 4.3027 * 1 / np.sqrt(3)
    assert lines["furniture"].startswith(f"accuracy 81.0 ± {half:.1f}")
    assert {row["commit"] for row in rows if row["method"] in shapes.MODELS} == {"abc"}
    assert next(row for row in rows if row["method"] == "d2")["accuracy"] == pytest.approx(
        0.5, abs=0.5
    )
