"""Conditions of one evaluation: numbers worked out by hand, and exact over a task's batches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import digits
from experiments.tasks import image
from perceiver_jax import conditions
from perceiver_jax.conditions import Conditions
from perceiver_jax.train import evaluation

METRICS = ("loss", "accuracy", "top5")

SEA = Conditions(
    names=("aligned", "conflict", "other"),
    gaps={"gap": ("aligned", "conflict")},
    conflict="conflict",
    by_class="conflict",
    single={"two_in_aligned": ("aligned", 2)},
)


def collected(rows):
    """Of rows (guess, label, ground, condition)."""
    fields = np.array(rows, np.int32).T
    return dict(zip(("guess", "label", "ground", "condition"), fields, strict=True))


def values(declared, rows, num_classes=3):
    metrics = declared.metrics(num_classes)
    return {name: metric(collected(rows)) for name, metric in metrics.items()}


def test_by_hand():
    aligned = [(0, 0, 0, 0), (1, 1, 1, 0), (2, 2, 2, 0), (0, 2, 2, 0)]
    conflict = [(1, 0, 1, 1), (2, 0, 2, 1), (0, 0, 1, 1), (1, 1, 0, 1), (2, 1, 0, 1), (2, 2, 1, 1)]
    found = values(SEA, [*conflict, *aligned])
    assert np.isnan(found.pop("accuracy_other"))
    assert found.pop("worst_class_conflict_null") < found["accuracy_conflict"]
    assert found == pytest.approx(
        {
            "accuracy_aligned": 3 / 4,
            "accuracy_conflict": 3 / 6,
            "gap": 1 / 4,
            "ground_choice": 2 / 6,
            "reliance": 2 / 5,
            "accuracy_conflict_0": 1 / 3,
            "accuracy_conflict_1": 1 / 2,
            "accuracy_conflict_2": 1,
            "worst_class_conflict": 1 / 3,
            "two_in_aligned": 1 / 2,
        }
    )


def test_a_ground_that_agrees_is_no_choice():
    """Where the ground is random, some agree with the label: they say nothing."""
    found = values(SEA, [(0, 0, 0, 1), (1, 1, 1, 1), (1, 0, 1, 1)])
    assert (found["ground_choice"], found["reliance"]) == (1, 1)
    assert np.isnan(values(SEA, [(2, 0, 1, 1)])["reliance"])  # followed neither


def test_the_null_of_a_worst_class():
    """Ten groups of 100 with one accuracy of 80 %: about 74 %. One group has no minimum."""
    null = conditions.worst_group_null
    assert null(0.8, np.full(10, 100)) == pytest.approx(0.736, abs=0.01)
    assert null(0.8, np.array([100_000])) == pytest.approx(0.8, abs=0.001)
    assert null(0.8, np.full(10, 100)) == null(0.8, np.full(10, 100))
    assert null(1.0, np.full(10, 100)) == 1


def test_guesses_that_are_no_guess():
    logits = jnp.array([[0.0, 2, 1], [3, 3, 0], [jnp.nan, 1, 0], [jnp.inf, 1, 0]])
    batch = {name: jnp.arange(4) for name in ("label", "condition", "image")}
    found = conditions.collect(logits, batch)
    np.testing.assert_array_equal(found["guess"], [1, -1, -1, 0])
    assert sorted(found) == ["condition", "guess", "label"]


@pytest.fixture(scope="module")
def config():
    config = digits.get_config("tiny")
    config.data.source = "sea"
    config.data.eval = "keep('image', 'label', 'ground', 'condition')"
    config.data.train_split = "train[:8]"
    config.data.eval_split = "test[:203]"  # the last of the batches of 8 is padded
    config.data.mean, config.data.std = (127.5,) * 3, (127.5,) * 3
    return config


def test_the_image_task_reports_them_exactly(config):
    """A model that is called by the ground, and right where it is plain."""
    task = image.make_task(config)
    totals = evaluation.Totals()
    for batch in map(functools.partial(task.prepare, key=None), task.eval_data()):
        seen = jnp.where(batch["ground"] < 0, batch["label"], batch["ground"])
        rows = task.collect(jax.nn.one_hot(seen, 10), batch) | {"mask": batch["mask"]}
        ones = {name: (jnp.sum(batch["mask"]), jnp.sum(batch["mask"])) for name in METRICS}
        totals.add(ones, rows)
    found = totals.metrics(task)
    assert totals.examples == 203
    expected = {"aligned": 1, "conflict": 0, "object_only": 1, "ground_only": 1}
    assert {name: found[f"accuracy_{name}"] for name in expected} == expected
    assert (found["gap"], found["ground_choice"], found["reliance"]) == (1, 1, 1)
    assert found["accuracy_uncorrelated"] < 0.3
    assert {f"accuracy_conflict_{k}" for k in range(10)} < set(found)


def test_the_field_must_be_kept(config):
    config = config.copy_and_resolve_references()
    config.data.eval = "keep('image', 'label')"
    with pytest.raises(ValueError, match=r"config.data.eval=.* keeps no \['condition', 'ground'\]"):
        image.make_task(config)
