"""The language experiment: what is asked for, weighed and shown; its model is the released one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import language
from experiments.tasks.data import TaskData
from experiments.tasks.language import draw, prepare_text
from perceiver_jax import losses, metrics, pretrained
from perceiver_jax.build import build
from perceiver_jax.modalities import text

TEXT = b"to be or not"
HIDDEN = np.array([0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1], bool)


def batch():
    """The text, `be` and `ot` hidden, padded; the text alone; and a row of padding."""
    hidden = np.zeros((3, 14), bool)
    hidden[0, :12] = HIDDEN
    return {
        "text": np.tile(np.frombuffer(TEXT.ljust(14, b"\0"), np.uint8), (3, 1)),
        "text_mask": np.tile(np.arange(14) < 12, (3, 1)),
        "hidden": hidden | np.array([[0], [0], [1]], bool),
        "mask": np.array([True, True, False]),
    }


def test_hidden_bytes_reach_the_model_as_masks_only():
    prepared = prepare_text(batch(), None)
    ids = text.encode(TEXT.decode())
    np.testing.assert_array_equal(prepared["target"][0, :12], ids)
    np.testing.assert_array_equal(prepared["text"][0, :12], np.where(HIDDEN, text.MASK, ids))
    np.testing.assert_array_equal(prepared["text"][1], [*ids, text.PAD, text.PAD])


def test_the_loss_of_the_bytes_asked_for_is_that_of_all_hidden_ones():
    """Where all hidden ones are asked for, in any order."""
    logits = jax.random.normal(jax.random.key(0), (3, 14, text.NUM_IDS))
    indices = np.tile(np.array([11, 2, 0, 3, 10, 4, 9], np.int32), (3, 1))
    whole, few = (prepare_text(x, None) for x in (batch(), batch() | {"indices": indices}))
    np.testing.assert_array_equal(few["text"], whole["text"])
    asked = jnp.take_along_axis(logits, indices[..., None], axis=1)
    found = losses.hidden_cross_entropy(asked, few)
    np.testing.assert_allclose(found[:2], losses.hidden_cross_entropy(logits, whole)[:2], rtol=1e-5)


def test_only_hidden_bytes_count():
    prepared = prepare_text(batch(), None)
    chance = np.full((3, 14, text.NUM_IDS), 0.5 / (text.NUM_IDS - 1))
    np.put_along_axis(chance, np.asarray(prepared["target"])[..., None], 0.5, axis=-1)
    chance[0, 3] = np.eye(text.NUM_IDS)[7] * 0.75 + 0.25 / text.NUM_IDS  # a wrong one
    logits = jnp.log(jnp.asarray(chance, jnp.float32))
    bits = [1.0] * 5 + [np.log2(text.NUM_IDS / 0.25)]
    loss = losses.hidden_cross_entropy(logits, prepared)
    np.testing.assert_allclose(loss[:2], [np.mean(bits) * np.log(2), 0], rtol=1e-5)
    np.testing.assert_allclose(metrics.hidden_accuracy(logits, prepared), (5, 6))
    np.testing.assert_allclose(metrics.bits_per_byte(logits, prepared), (sum(bits), 6), rtol=1e-5)


def test_the_table_shows_what_was_filled_in():
    class Echo:
        """Says `x` everywhere, though the reserved ids score higher."""

        @staticmethod
        def apply(variables, batch, train):
            best = [text.PAD, 6 + ord("x")]
            logits = 2 * jax.nn.one_hot(best[0], text.NUM_IDS) + jax.nn.one_hot(
                best[1], text.NUM_IDS
            )
            return jnp.zeros((*batch["text"].shape, 1)) + logits[None, None]

    task_data = TaskData(None, lambda: (x for x in [batch()]), (), None)
    assert draw(Echo, task_data, {}, 2)["filled"] == [
        {"example": 0, "before": "to", "hidden": " be", "filled": "xxx", "after": " or ___"},
        {"example": 0, "before": "to___ or ", "hidden": "not", "filled": "xxx", "after": ""},
    ]


@pytest.mark.parametrize("variant", ["bytes", "documents", "files"])
def test_the_model_is_the_released_one(variant):
    config = language.get_config(variant)
    model, released = build(config.model.to_dict()), pretrained.released("language")
    shapes = pretrained.described(config.model.to_dict(), released.batch).shapes
    assert sum(x.size for x in jax.tree.leaves(shapes)) == 201_108_230
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, released.shapes)
    assert model == released.build()
