"""Text files as one stream, documents joined, windows, and the words that are hidden."""

import numpy as np
import pytest
from tfds_files import write_texts

from perceiver_jax.data import eval_batches, parse, train_batches
from perceiver_jax.datasets import registry

WORDS = b"  the quick brown\nfox  jumps over a\tlazy caf\xc3\xa9 dog " * 3


def load(folder, split="*.txt", length=10):
    return registry.load("texts", split, data_dir=str(folder), options={"length": length})


@pytest.fixture
def folder(tmp_path):
    """A stream of 35 bytes: 12, none, 3 and 20."""
    parts = ("abcdefghijkl", "", "mno", "pqrstuvwxyzABCDEFGHI")
    for name, text in zip("1234", parts, strict=True):
        (tmp_path / f"{name}.txt").write_text(text)
    (tmp_path / "5.md").write_text("another kind")
    return tmp_path


def test_pieces_of_the_stream_overlap_by_half(folder):
    source = load(folder)
    assert (len(source), repr(source)) == (4, "texts[*.txt]")
    pieces = [source[i]["text"] for i in range(4)]
    assert pieces[0] == b"abcdefghijklmnopqrst"
    assert pieces[1] == b"klmnopqrstuvwxyzABCD"
    assert pieces[2:] == [b"uvwxyzABCDEFGHI", b"EFGHI"]
    assert b"".join(piece[:10] for piece in pieces) == b"abcdefghijklmnopqrstuvwxyzABCDEFGHI"


def test_an_evaluation_reads_every_byte_once(folder):
    line = parse("first_window(10) | keep('text', 'text_mask')")
    (batch,) = eval_batches(load(folder), line, batch_size=4, readers="threads:0")
    assert batch["text"][batch["text_mask"]].tobytes() == b"abcdefghijklmnopqrstuvwxyzABCDEFGHI"
    np.testing.assert_array_equal(batch["text_mask"].sum(axis=1), [10, 10, 10, 5])
    assert batch["text"].shape == (4, 10) and batch["text"].dtype == np.uint8


def test_training_windows_begin_anywhere_and_follow_from_seed_and_step(folder):
    line = parse("random_window(10) | hide_words(0.5) | keep('text', 'hidden')")
    options = {"batch_size": 64, "seed": 3, "readers": "threads:0"}
    batches = train_batches(load(folder), line, **options)
    first, second = next(batches), next(batches)
    assert len({text.tobytes() for text in first["text"]}) > 12  # of 4 pieces
    again = next(train_batches(load(folder), line, start_step=1, **options))
    parts = [
        next(train_batches(load(folder), line, start_step=1, process_index=p, process_count=2,
                           **options))
        for p in range(2)
    ]  # fmt: skip
    for field, value in second.items():
        np.testing.assert_array_equal(again[field], value)
        np.testing.assert_array_equal(np.concatenate([p[field] for p in parts]), value)


def hide(text, share, seed=0):
    line = parse(f"first_window(200) | hide_words({share}) | keep('text_mask', 'hidden')")
    example = line({"text": text}, np.random.default_rng(seed))
    return example["hidden"], example["text_mask"]


def test_whole_words_are_hidden_each_with_the_space_before_it():
    hidden, present = hide(WORDS, 0.3)
    assert len(WORDS) < 200 and not hidden[~present].any()
    words, gone, begin = WORDS.split(), [], 0
    for word in words:
        place = WORDS.index(word, begin)
        begin = place + len(word)
        inside = hidden[place:begin]
        assert inside.all() or not inside.any()
        gone.append(inside[0])
        assert hidden[place - 1] == inside[0]  # the space
    assert sum(gone) == round(0.3 * len(words)) == 9
    assert hidden.sum() == sum(len(w) + 1 for w, g in zip(words, gone, strict=True) if g)


def test_the_share_is_that_of_the_words_and_at_least_one():
    def runs(text, share):
        return [hide(text, share, seed)[0] for seed in range(200)]

    hidden = np.array(runs(b"ab " * 40, 0.15))
    np.testing.assert_array_equal(hidden[:, 1::3].sum(axis=1), [6] * 200)
    each = hidden[:, 3:120:3].mean(axis=0)  # how often each word but the first is chosen
    assert each.min() > 0.04 and each.max() < 0.27
    assert all(x[:2].all() and x.sum() == 2 for x in runs(b"ab  \n ", 0.15))
    assert not np.any(runs(b" \n\t ", 0.5)) and not np.any(runs(b"", 0.5))


@pytest.mark.parametrize(
    ("split", "length", "error", "message"),
    [
        ("*.rst", 10, FileNotFoundError, r"texts\[\*\.rst\]: no file of .* matches '\*\.rst'"),
        ("2.txt", 10, ValueError, "that match are empty"),
        ("1.txt", 0, ValueError, "source_options.length=0 is below 1"),
    ],
)
def test_wrong_files(folder, split, length, error, message):
    with pytest.raises(error, match=message):
        load(folder, split, length)


def test_a_folder_is_asked_for_and_a_file_cut_short_is_named(folder):
    with pytest.raises(FileNotFoundError, match="data_dir is not set: name a folder"):
        load("")
    source = load(folder)
    (folder / "3.txt").write_text("m")
    with pytest.raises(ValueError, match=r"3\.txt became shorter"):
        source[0]


def test_documents_of_a_tfds_set_are_joined(tmp_path):
    write_texts(tmp_path, {"train": ["one", "two é", "three"]})

    def documents(**options):
        return registry.load("c4/en", "train", data_dir=str(tmp_path), options=options)

    source = documents(field="text", join=2)
    assert (len(source), repr(source)) == (2, "c4/en[train] by 2")
    assert [source[i]["text"] for i in range(2)] == ["one\n\ntwo é".encode(), b"three"]
    with pytest.raises(ValueError, match=r"no text 'body': set .*field to one of \['text'\]"):
        documents(field="body", join=1)[0]
    with pytest.raises(ValueError, match="join=0 is below 1"):
        documents(join=0)
    with pytest.raises(ValueError, match="wikipedia: only with apache-beam, or prepared"):
        registry.load("wikipedia/20230601.en", "train", data_dir=str(tmp_path))
