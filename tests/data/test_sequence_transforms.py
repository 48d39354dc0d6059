"""Sequences of ids: bytes and rasters, and crops that train every offset."""

import numpy as np
import pytest

from perceiver_jax.data import parse, sequence_transforms
from perceiver_jax.datasets import registry
from perceiver_jax.datasets.generated.mirrored import Mirrored

KEEP = "keep('ids', 'num_ids', 'num_scored')"


def run(line, example, seed=0):
    return parse(f"{line} | {KEEP}")(example, np.random.default_rng(seed))


def test_bytes_with_and_without_ends():
    found = run("byte_ids(ends=True) | last_ids(8)", {"text": b"ab\xff"})
    assert found["ids"].tolist() == [2, 100, 101, 258, 1, 0, 0, 0]
    assert (found["num_ids"], found["num_scored"]) == (5, 5)
    assert sequence_transforms.decode(found["ids"]) == b"ab\xff"
    found = run("byte_ids | last_ids(2)", {"text": b"abc"})
    assert found["ids"].tolist() == [101, 102] and found["ids"].dtype == np.uint16
    assert run("byte_ids | last_ids(2)", {"text": b""})["num_ids"] == 0


def test_a_raster_is_row_by_row_the_channels_of_each_pixel():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    found = run("raster_ids | last_ids(13)", {"image": image})
    assert found["ids"].tolist() == [2, *range(3, 15)]


def test_crops_train_every_offset():
    """Of a document of 20 ids and 4 latents, each of the 19 predictions is at some latent."""
    line = parse(f"byte_ids | crop_ids(20, 5) | {KEEP}")
    rng, trained, ends = np.random.default_rng(0), set(), set()
    for _ in range(300):
        found = line({"text": bytes(range(20))}, rng)
        end = int(found["num_ids"])
        assert (
            found["ids"][:end].tolist() == list(range(3, 3 + end)) and not found["ids"][end:].any()
        )
        ends.add(end)
        trained |= set(range(end - 4, end))
    assert ends == set(range(5, 21)) and trained == set(range(1, 20))


def test_a_window_begins_anywhere_in_a_stream():
    line = parse(f"byte_ids | crop_ids(8, 8) | {KEEP}")
    rng = np.random.default_rng(0)
    starts = {int(line({"text": bytes(range(20))}, rng)["ids"][0]) - 3 for _ in range(300)}
    assert starts == set(range(13))


def test_a_text_shorter_than_the_least_is_kept_whole():
    found = run("byte_ids | crop_ids(8, 6)", {"text": b"abc"})
    assert found["num_ids"] == 3 and len(found["ids"]) == 8


def test_mirrored_is_a_palindrome_of_an_even_length():
    text = Mirrored(32)(np.random.default_rng(0))["text"]
    assert len(text) == 30 and text == text[::-1]
    a, b = (
        registry.load("mirrored", "test[:2]", options={"length": 12})[i]["text"] for i in (0, 1)
    )
    assert len(a) == 10 and a != b
    with pytest.raises(ValueError, match=r"length=31 is odd"):
        registry.check_options("mirrored", {"length": 31})


@pytest.mark.parametrize("length", [3, 4, 50])
def test_pieces_with_context_have_every_byte_once(tmp_path, length):
    (tmp_path / "a.abc").write_bytes(bytes(range(128, 140)))  # no UTF-8
    (tmp_path / "b.abc").write_bytes(bytes(range(140, 149)))
    options = {"length": length, "context": 6, "utf8": False}
    source = registry.load("texts", "*.abc", data_dir=str(tmp_path), options=options)
    own, all_bytes = b"", bytes(range(128, 149))
    for i in range(len(source)):
        piece = source[i]
        before = len(piece["text"]) - int(piece["num_new"])
        assert before == min(6, i * length)
        assert piece["text"] == all_bytes[i * length - before : (i + 1) * length]
        own += piece["text"][before:]
    assert own == all_bytes
    with pytest.raises(ValueError, match="not UTF-8"):
        registry.load("texts", "*.abc", data_dir=str(tmp_path), options={"length": 3})
