"""Small experiments, spread over 8 devices in every way, are those of one device."""

import pytest

from experiments.benchmark import parallel


def shrink(config):
    """Of each kind of layer one: nearly all the time is compilation."""
    config.model.encoder.num_self_attends_per_block = 1
    config.model.encoder.num_blocks = config.model.encoder.num_cross_attends
    return config


def test_three_steps_on_eight_devices_are_those_on_one():
    """With everything spread that can be, of pairs and many queries."""
    (row,) = parallel.compare(lambda: shrink(parallel.pairs()), 3, ["all of them over 2"])
    assert row["largest_change"] > 1e-3
    assert row["largest_difference"] < 1e-3 * row["largest_change"], row
    assert row["loss"] == pytest.approx(row["loss_of_one_device"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", parallel.EXPERIMENTS)
def test_twenty_steps_in_every_way(experiment):
    for row in parallel.compare(parallel.EXPERIMENTS[experiment], 20, parallel.WAYS):
        assert row["largest_difference"] < 2e-3 * row["largest_change"], row
