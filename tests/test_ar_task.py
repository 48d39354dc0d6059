"""The task of Perceiver AR: what it scores, how it weighs, and evaluation in several passes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import ar as config_file
from experiments import check_config
from experiments.tasks import ar
from perceiver_jax.build import build
from perceiver_jax.config_types import ConfigError
from perceiver_jax.train import start

prepare = functools.partial(ar.prepare_ids, num_latents=4)


def windows(*, scored=None):
    """Two windows of 9 ids: one full, one of 3."""
    ids = np.array([[2, 10, 11, 12, 13, 14, 15, 16, 1], [2, 10, 1, 0, 0, 0, 0, 0, 0]], np.uint16)
    count = np.array([9, 3], np.int32)
    return {
        "ids": jnp.asarray(ids),
        "num_ids": jnp.asarray(count),
        "num_scored": jnp.asarray(count if scored is None else scored),
        "mask": jnp.ones(2, bool),
    }


def perfect(batch, num_latents=4):
    """Logits of a model that knows what comes next, with 2 nats of doubt about the last id."""
    places = ar.latent_places(batch["length"], num_latents)
    target = jnp.take_along_axis(batch["target"], jnp.maximum(places, 0), axis=1)
    return jax.nn.one_hot(target, 20) * 30


def test_the_next_id_is_predicted_at_the_last_places():
    batch = prepare(windows(), None)
    scores = ar.score(perfect(batch), batch)
    assert scores["scored"].tolist() == [[True] * 4, [False, False, True, True]]
    assert ar.mean_of("right", perfect(batch), batch) == (6.0, 6.0)
    total, count = ar.bits(jnp.zeros((2, 4, 20)), batch)
    assert float(total / count) == pytest.approx(np.log2(20), rel=1e-5)


def test_only_what_a_piece_has_of_its_own_is_scored():
    batch = prepare(windows(scored=np.array([2, 0], np.int32)), None)
    scored = ar.score(perfect(batch), batch)["scored"]
    assert scored.tolist() == [[False, False, True, True], [False] * 4]


def test_every_scored_id_of_a_batch_weighs_the_same():
    batch = prepare(windows(), jax.random.key(0))
    logits = jax.random.normal(jax.random.key(0), (2, 4, 20))
    total, count = ar.mean_of("nats", logits, batch)
    mean = jnp.mean(ar.loss(logits, batch, z_loss=0.0))
    assert float(mean) == pytest.approx(float(total / count), rel=1e-5)
    scores = ar.score(logits, batch)
    squares = jnp.where(scores["scored"], scores["log_z"] ** 2, 0).sum() / count
    more = jnp.mean(ar.loss(logits, batch, z_loss=0.5)) - mean
    assert float(more) == pytest.approx(float(squares) / 2, rel=1e-4)


def test_passes_score_every_id_once():
    class Model:
        """Predicts as `perfect`, whatever the length."""

        def apply(self, variables, ids, length, method):
            return jnp.zeros((2, 4, 20)) + variables

    batch = prepare(windows(), None)
    for stride in (1, 2, 3, 4):
        scores = ar.score_all(Model(), stride, jnp.zeros(()), batch)
        assert scores["scored"].sum(1).tolist() == [8, 2]
        total, count = ar.mean_of("nats", scores, batch)
        assert float(total) == pytest.approx(10 * np.log(20), rel=1e-5) and count == 10


def test_starting_from_weights_asks_for_no_input_section():
    start.warn_of_bands(config_file.get_config("copy:tiny"), {})


@pytest.mark.parametrize(
    ("variant", "num_ids", "millions"),
    [("imagenet64", 259, 770.1), ("pg19", 32_000, 974.2)],  # the paper: ~770M; 974.6M of subwords
)
def test_sizes_of_the_papers_models(variant, num_ids, millions):
    model = build(config_file.get_config(variant).model.to_dict() | {"num_ids": num_ids})
    batch = {"ids": jnp.zeros((1, 8), jnp.int32), "length": jnp.array([8])}
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), batch, train=False))
    total = sum(x.size for x in jax.tree.leaves(shapes))
    assert total / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model.num_latents", 33, "num_latents=33 is above config.model.max_length=32"),
        ("ar.stride", 17, "config.ar.stride=17 is above config.model.num_latents=16"),
        ("model.max_length", 30, "config.data.train makes windows of 32 ids"),
    ],
)
def test_sizes_that_do_not_fit_are_named(field, value, message):
    config = config_file.get_config("copy:tiny")
    section, _, name = field.partition(".")
    config[section][name] = value
    with pytest.raises(ConfigError, match=message):
        check_config(config)
