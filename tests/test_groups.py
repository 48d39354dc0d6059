"""Classes of a set that are groups of a model's classes: the three ways to ask."""

import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_jax.groups import Groups

PROBABILITIES = np.array([[0.30, 0.05, 0.20, 0.20, 0.25], [0.10, 0.15, 0.10, 0.25, 0.40]])
MEMBERS = ((0, 1), (3, 2))  # class 4 is in no group


def answer(rule):
    scores = np.asarray(Groups(MEMBERS, rule).scores(jnp.log(PROBABILITIES)))
    assert scores.shape[1] == Groups(MEMBERS, rule).num_scores(5)
    return scores.argmax(1).tolist()


def test_three_rules():
    assert answer("best") == [0, 2]  # the second is of no group
    assert answer("among") == [0, 1]
    assert answer("mean") == [1, 1]
    mean = Groups(MEMBERS, "mean").scores(jnp.log(PROBABILITIES))
    np.testing.assert_allclose(np.exp(mean[0]), [0.175, 0.2], rtol=1e-6)
    uneven = Groups(((0,), (1, 2, 3)), "mean").scores(jnp.log(PROBABILITIES))
    np.testing.assert_allclose(np.exp(uneven[0]), [0.3, 0.15], rtol=1e-6)


def test_without_a_class_outside_there_is_no_further_score():
    groups = Groups(((0, 4), (1, 2, 3)), "best")
    assert groups.scores(jnp.log(PROBABILITIES)).shape == (2, 2)


def test_a_model_of_other_classes_is_refused():
    with pytest.raises(ValueError, match=r"num_classes=4: the set has 2 classes, .* up to 4"):
        Groups(((0, 4), (1, 2)), "mean").check(4)
