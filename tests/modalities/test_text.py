"""Bytes in and out, with one table at both ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiver_jax import flops, pretrained
from perceiver_jax.attention import cost
from perceiver_jax.modalities import text

SMALL = pretrained.released(
    "language",
    length=12,
    channels=16,
    qk_channels=8,
    num_heads=2,
    num_latents=4,
    latent_channels=8,
    num_self_attends_per_block=1,
)


@pytest.fixture(scope="module")
def small():
    model = SMALL.build()
    ids, mask = text.pad(text.encode("a byte"), 9)
    batch = {"text": jnp.stack([ids, ids[::-1]]), "text_mask": jnp.stack([mask, mask[::-1]])}
    variables = jax.jit(lambda: model.init(jax.random.key(0), batch, train=False))()
    return jax.jit(model.apply, static_argnames=("train", "method")), batch, variables


def test_ids_are_bytes_after_six_reserved_ones():
    assert text.NUM_IDS == 262
    np.testing.assert_array_equal(text.encode("aé"), [6 + 97, 6 + 0xC3, 6 + 0xA9])
    missing = [38, 115, 111, 121, 121, 111, 116, 109, 52]  # what the released model fills in
    assert text.decode(missing) == " missing."
    assert text.decode([text.CLS, 6 + 97, text.MASK, text.PAD]) == "a"
    assert text.decode([6 + 0xC3]) == "\N{REPLACEMENT CHARACTER}"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_decode_inverts_encode(string):
    assert text.decode(text.encode(string)) == string


def test_padding_and_its_mask():
    ids, mask = text.pad([7, 8], 4)
    np.testing.assert_array_equal(ids, [7, 8, text.PAD, text.PAD])
    np.testing.assert_array_equal(mask, [True, True, False, False])
    with pytest.raises(ValueError, match=r"3 ids do not fit into length=2"):
        text.pad([1, 2, 3], 2)


def test_input_and_output_share_one_table(small):
    apply, batch, variables = small
    params = variables["params"]
    tables = [x for x in jax.tree.leaves(params) if x.shape == (262, 16)]
    assert len(tables) == 1

    def logits(table):
        changed = params | {"input": params["input"] | {"embedding": {"table": table}}}
        return apply({"params": changed}, batch, train=False)

    unseen = 200  # in no text: its row matters to the output alone
    (table,) = tables
    change = jnp.abs(logits(table.at[unseen].add(1.0)) - logits(table)).max(axis=(0, 1))
    assert change[unseen] > 0 and not np.any(np.delete(change, unseen))
    seen = logits(table.at[6 + ord("a")].add(1.0)) - logits(table)
    assert np.all(np.abs(seen).max(axis=(1, 2)) > 0)
    assert np.count_nonzero(np.abs(seen).max(axis=(0, 1))) > 200  # through the input, all of them


@pytest.mark.parametrize("window", [1, 4, 7])
def test_a_window_joins_the_ids_around_each_and_no_padding(window):
    module = text.Bytes(text.Embedding(channels=8), max_length=12, window=window)
    ids = jax.random.randint(jax.random.key(0), (2, 12), text.NUM_RESERVED, text.NUM_IDS)
    mask = jnp.asarray(np.arange(12) < np.array([[12], [9]]))
    variables = module.init(jax.random.key(1), {"text": ids, "text_mask": mask}, train=False)
    tokens = module.apply(variables, {"text": ids, "text_mask": mask}, train=False).content
    params = variables["params"]
    embedded = params["embedding"]["table"][ids]
    seen = (embedded - embedded.mean(-1, keepdims=True)) / np.sqrt(
        embedded.var(-1, keepdims=True) + 1e-6
    )
    before = (window - 1) // 2
    expected = np.zeros(tokens.shape)
    for b, i in np.ndindex(2, 12):
        total = params["window"]["bias"]
        for k in range(window):
            j = i + k - before
            if 0 <= j < 12 and mask[b, j]:
                total = total + seen[b, j] @ params["window"]["kernel"][k]
        expected[b, i] = embedded[b, i] + np.maximum(total, 0) + params["positions"][i]
    np.testing.assert_allclose(tokens, expected, atol=2e-5)
    short = {"text": ids[1:, :9], "text_mask": mask[1:, :9]}
    cut = module.apply(variables, short, train=False).content
    np.testing.assert_allclose(cut, tokens[1:, :9], atol=1e-6)


def test_a_masked_byte_is_no_byte_and_a_masked_query_reads_nothing(small):
    apply, batch, variables = small

    def run(batch):
        return apply(variables, batch, train=False)

    other = jnp.where(batch["text_mask"], batch["text"], 99)
    np.testing.assert_array_equal(run(batch), run(batch | {"text": other}))
    shorter = {name: x[:1, :6] for name, x in batch.items()}
    np.testing.assert_allclose(run(batch)[:1, :6], run(shorter), atol=1e-4)
    # Positions 6 to 8 are masked in example 0 only: there the answer is the same for any text.
    changed = run(batch | {"text": batch["text"] + batch["text_mask"]}) - run(batch)
    assert not np.any(changed[0, 6:]) and np.any(changed[1, 6:])


def test_chosen_outputs_are_those_of_the_whole(small):
    apply, batch, variables = small
    whole = apply(variables, batch, train=False)
    tokens, latents = apply(variables, batch, train=False, method="encode")
    for indices in (jnp.array([4, 0]), jnp.array([8, 3])):
        part = apply(variables, tokens, latents, train=False, indices=indices, method="decode")
        np.testing.assert_allclose(part, whole[:, indices], atol=1e-5)


def test_too_long_a_text_is_named():
    batch = {"text": jnp.ones((1, 13), int), "text_mask": jnp.ones((1, 13), bool)}
    with pytest.raises(ValueError, match=r"13 ids is longer than max_length=12"):
        jax.eval_shape(lambda: SMALL.build().init(jax.random.key(0), batch, train=False))


def test_textbook_flops():
    model, variables = SMALL.build(), SMALL.shapes
    run = lambda v, b: model.apply(v, b, train=False)  # noqa: E731
    batch = dict(SMALL.batch)
    with cost.forced("dense"):
        assert flops.textbook(model, batch) == flops.executed(run, variables, batch)
