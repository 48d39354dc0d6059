"""Transforms of point clouds."""

import numpy as np
import pytest

from perceiver_jax.data import parse


def run(line, example, seed=0):
    return parse(line)(example, np.random.default_rng(seed))


def cloud(count=20, seed=0):
    points = np.random.default_rng(seed).normal(3, 2, (count, 3)).astype(np.float32)
    return {"points": points, "normal": 2 * points, "label": np.int32(1), "image": np.zeros((4, 4))}


KEPT = "keep('points', 'normal', 'points_mask', 'label')"


def test_sampling_keeps_fields_together_and_draws_without_replacement():
    example = cloud()
    found = run(f"sample_points(15) | {KEPT}", example)
    assert found["points"].shape == (15, 3) and found["points_mask"].all()
    np.testing.assert_array_equal(found["normal"], 2 * found["points"])
    rows = {tuple(p) for p in example["points"].tolist()}
    drawn = [tuple(p) for p in found["points"].tolist()]
    assert len(set(drawn)) == 15 and set(drawn) <= rows
    other = run(f"sample_points(15) | {KEPT}", example, seed=1)
    assert not np.array_equal(found["points"], other["points"])
    first = run(f"first_points(15) | {KEPT}", example)
    np.testing.assert_array_equal(first["points"], example["points"][:15])


def test_padding_stays_zero_and_counts_for_nothing():
    line = "scale_points(0.9, 1.1) | shift_points(0.1) | rotate_points('y') | center_points"
    line += " | unit_cube"
    found = run(f"first_points(32) | {line} | {KEPT}", cloud())
    np.testing.assert_array_equal(found["points_mask"], np.arange(32) < 20)
    assert not found["points"][20:].any() and not found["normal"][20:].any()
    short = run(f"first_points(20) | {line} | {KEPT}", cloud())
    np.testing.assert_array_equal(found["points"][:20], short["points"])


def test_centre_and_unit_cube_undo_place_and_size():
    line = "first_points(20) | center_points | unit_cube | keep('points')"
    example = cloud()
    found = run(line, example)["points"]
    assert found.dtype == np.float32 and np.abs(found).max() == 1
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-6)
    moved = run(line, {"points": example["points"] * 7 + [100, -5, 3]})["points"]
    np.testing.assert_allclose(moved, found, atol=1e-5)
    alone = run("first_points(2) | center_points | unit_cube | keep('points')", cloud(1))["points"]
    assert not alone.any(), "a single point is its own centre"


def test_each_point_has_its_own_factor():
    example = cloud()
    found = run("scale_points(0.99, 1.01) | keep('points')", example)["points"]
    factors = found / example["points"]
    np.testing.assert_allclose(factors, factors[:, :1].repeat(3, 1), rtol=1e-5)
    assert factors.min() >= 0.9899 and factors.max() <= 1.0101 and np.ptp(factors[:, 0]) > 0.01
    moved = run("shift_points(0.02) | keep('points')", example)["points"] - example["points"]
    assert 0.01 < np.abs(moved).max() <= 0.0201 and len(np.unique(moved.round(6))) > 50


@pytest.mark.parametrize(("axis", "fixed"), [("x", 0), ("y", 1), ("z", 2)])
def test_rotation_keeps_its_axis_lengths_and_normals(axis, fixed):
    example = cloud()
    found = run(f"rotate_points('{axis}') | keep('points', 'normal')", example)
    np.testing.assert_allclose(found["points"][:, fixed], example["points"][:, fixed], rtol=1e-6)
    lengths = [np.linalg.norm(e["points"], axis=1) for e in (found, example)]
    np.testing.assert_allclose(*lengths, rtol=1e-5)
    np.testing.assert_allclose(found["normal"], 2 * found["points"], rtol=1e-5)
    assert np.abs(found["points"] - example["points"]).max() > 0.1
    with pytest.raises(ValueError, match="'x' or 'y' or 'z'"):
        parse("rotate_points('w') | keep('points')")
