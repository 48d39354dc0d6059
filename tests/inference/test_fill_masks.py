"""Masked bytes: markers and spans, in bytes rather than characters."""

import numpy as np
import pytest
from small_models import apply, model

from perceiver_jax import inference
from perceiver_jax.inference.text import read_markers
from perceiver_jax.modalities import text as text_modality

TEXT = "Zoë is missing."  # 16 bytes: the third character has two


def best_bytes(ids, length):
    """The likeliest byte at each place, from the model itself."""
    perceiver, variables = model("language")
    padded, mask = np.zeros((1, 128), np.int32), np.arange(128)[None] < length
    padded[0, :length] = ids
    logits = apply(perceiver, variables, {"text": padded, "text_mask": mask})
    return np.asarray(logits)[0, :length, 6:].argmax(axis=-1)


def test_markers():
    ids, spans = read_markers("é[MASK*3]a[MASK]")
    assert spans == [(2, 5), (6, 7)]
    assert ids.tolist() == [0xC3 + 6, 0xA9 + 6, 3, 3, 3, ord("a") + 6, 3]


def test_the_likeliest_bytes_fill_in():
    ids = text_modality.encode(TEXT)
    ids[2:4] = ids[7:15] = 3
    best = best_bytes(ids, 16)
    data = bytearray(TEXT.encode())
    data[2:4], data[7:15] = bytes(best[2:4].tolist()), bytes(best[7:15].tolist())
    result = inference.fill_masks(*model("language"), TEXT, [(7, 15), (2, 4)])
    assert result.text == data.decode(errors="replace")
    assert result.fills == [
        bytes(best[a:b].tolist()).decode(errors="replace") for a, b in ((2, 4), (7, 15))
    ]
    assert inference.fill_masks(*model("language"), "Zo[MASK*2] is[MASK*8].") == result


@pytest.mark.parametrize(
    ("text", "spans", "message"),
    [
        ("no marker", None, "nothing to fill in"),
        ("abc", [], "nothing to fill in"),
        ("abc", [(2, 4)], r"span \(2, 4\) is not within the text's 3 bytes"),
        ("abc", [(1, 1)], r"span \(1, 1\)"),
        ("abc", [(-1, 1)], r"span \(-1, 1\)"),
        ("a[MASK*0]", None, r"^\[MASK\*0\] must hide at least 1 byte and at most the model's 128$"),
        ("a[MASK*00]", None, r"\[MASK\*00\] must hide at least 1 byte"),
        ("a[MASK*129]", None, r"\[MASK\*129\] must hide .* at most the model's 128"),
        ("a[MASK*9999999999999]", None, r"\[MASK\*9999999999999\] must hide .* at most the model"),
        (f"a[MASK*{'9' * 5000}]", None, r"\[MASK\*9{24}\.\.\.9999\] must hide"),
        ("a" * 128 + "[MASK]", None, "129 ids do not fit into length=128"),
    ],
)
def test_refusals(text, spans, message):
    with pytest.raises(ValueError, match=message):
        inference.fill_masks(*model("language"), text, spans)


def test_another_model_is_refused():
    with pytest.raises(ValueError, match="fill_masks needs a model with TiedLogits, not Flow"):
        inference.fill_masks(*model("flow"), "a[MASK]")
