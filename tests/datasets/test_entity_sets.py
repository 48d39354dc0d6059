"""Generated sets of entities: their answers are true."""

import numpy as np
import pytest

from perceiver_jax.config_types import ConfigError
from perceiver_jax.datasets import registry


def sets(**options):
    source = registry.load("entities", "test[:200]", options=options)
    return [source[i] for i in range(len(source))]


def test_unused_slots_are_empty_and_sizes_vary():
    found = sets(num_entities=(3, 7), num_kinds=4, noise_channels=5)
    sizes = [e["entities_mask"].sum() for e in found]
    assert set(sizes) == set(range(3, 8))
    for example, size in zip(found, sizes, strict=True):
        entities = example["entities"]
        assert entities.shape == (7, 2 + 4 + 5) and entities.dtype == np.float32
        assert example["entities_mask"][:size].all() and not entities[size:].any()
        np.testing.assert_array_equal(entities[:size, 2:6].sum(axis=1), 1)
        assert np.abs(entities[:, :2]).max() <= 1


def test_each_names_its_nearest_other():
    for example in sets(question="nearest", num_entities=(2, 6)):
        place = example["entities"][example["entities_mask"], :2].astype(float)
        for i in range(6):
            if i >= len(place):
                assert example["named"][i] == -1
                continue
            lengths = {j: np.hypot(*(place[i] - place[j])) for j in range(len(place)) if j != i}
            assert lengths[example["named"][i]] == min(lengths.values())


def test_kinds_are_counted_and_all_numbers_come():
    found = sets(question="count", num_entities=(5, 9), num_kinds=4)
    for example in found:
        assert example["label"] == example["entities"][:, 2:].any(axis=0).sum()
    counts = np.bincount([e["label"] for e in found], minlength=5)
    assert counts[0] == 0 and counts[1:].min() > 25


def test_the_middle_one():
    for example in sets(question="middle", num_entities=(2, 6)):
        place = example["entities"][example["entities_mask"], :2].astype(float)
        lengths = np.hypot(*(place - place.mean(axis=0)).T)
        assert lengths[example["label"]] == pytest.approx(lengths.min(), rel=1e-5)


def test_a_wrong_option_is_named():
    with pytest.raises(ConfigError, match=r"source_options\.num_entities=\(9, 3\) is not allowed"):
        registry.load("entities", "test", options={"num_entities": (9, 3)})
