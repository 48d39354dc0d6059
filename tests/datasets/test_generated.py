"""Generated sources: a function of seed, split and index; found by name; read like any other."""

import numpy as np
import pytest

from perceiver_jax.data import pipeline
from perceiver_jax.data.transforms import parse
from perceiver_jax.datasets import registry


def test_examples_follow_seed_split_and_index():
    options = {"size": (16, 16)}
    load = registry.load
    train = load("stereograms", "train", options=options)
    assert (len(train), len(load("stereograms", "test", options=options))) == (1_000_000, 10_000)
    part = load("stereograms", "test[10:30]", options=options)
    assert (len(part), repr(part)) == (20, "stereograms[test[10:30]]")
    again = load("stereograms", "test", options=options)
    for field, value in part[5].items():
        np.testing.assert_array_equal(value, again[15][field])
    others = [
        train[0],
        train[1],
        again[0],
        load("stereograms", "train", options=options | {"seed": 1})[0],
    ]
    assert len({e["frames"].tobytes() for e in others}) == 4
    held = load("stereograms", "test[:3]", options=options, in_memory=True)
    np.testing.assert_array_equal(held[2]["field"], again[2]["field"])
    with pytest.raises(IndexError):
        part[20]
    np.testing.assert_array_equal(part[-1]["field"], part[19]["field"])


def test_an_unknown_name_suggests_those_near():
    with pytest.raises(
        ValueError, match=r"no dataset 'stereogram' \(did you mean stereograms\?\): "
    ):
        registry.load("stereogram", "train")
    assert "bounce" in registry.MODULES


@pytest.mark.parametrize("name, field", [("stereograms", "frames"), ("bounce", "video")])
def test_batches_do_not_depend_on_who_reads(name, field):
    source = registry.load(name, "train[:20]", options={"size": (16, 16)})
    line = parse(f"keep({field!r})")

    def read(readers, start_step):
        batches = pipeline.train_batches(
            source, line, batch_size=4, seed=0, start_step=start_step, readers=readers
        )
        try:
            return next(batches)[field]
        finally:
            batches.close()

    np.testing.assert_array_equal(read("threads:0", 3), read("threads:2", 3))
    assert np.any(read("threads:0", 3) != read("threads:0", 4))


def test_sources_without_options_say_so():
    with pytest.raises(ValueError, match=r"'digits' has no options, got \['size'\]"):
        registry.load("digits", "train", options={"size": 3})
