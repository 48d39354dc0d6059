"""Text files as one stream, documents joined, windows, and the words that are hidden."""

import numpy as np
import pytest
from tfds_files import write_texts

from perceiver_jax.data import eval_batches, parse, text_transforms, train_batches
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


def test_one_of_the_listed_words_is_hidden_and_asked_for():
    line = parse("hide_one | keep('text', 'label')")
    example = {"text": b"a small dog", "words": np.array([[2, 7, 30], [8, 11, 4]], np.int32)}
    found = [line(example, np.random.default_rng(seed)) for seed in range(20)]
    assert {(e["text"], int(e["label"])) for e in found} == {(b"a _ dog", 30), (b"a small _", 4)}
    assert found[0]["label"].dtype == np.int32
    asked = {"text": b"a _ dog", "label": 0}
    assert line(asked, np.random.default_rng(0)) == asked
    with pytest.raises(ValueError, match="write `_` in the text in place of the word"):
        line({"text": b"a small dog"}, np.random.default_rng(0))


def test_hidden_bytes_are_asked_for_before_others():
    line = "first_window(200) | hide_words(0.3) | query_hidden({}) | keep('hidden', 'indices')"
    for count in (60, 200, 20):
        example = parse(line.format(count))({"text": WORDS}, np.random.default_rng(0))
        indices, hidden = example["indices"], example["hidden"]
        assert indices.shape == (count,) and (np.diff(indices) > 0).all()
        assert hidden[indices].sum() == min(count, hidden.sum())
    assert 20 < hidden.sum() < 60
    with pytest.raises(ValueError, match=r"query_hidden\(201\) asks for more than .* 200"):
        parse(line.format(201))({"text": WORDS}, np.random.default_rng(0))


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
    # Whether TFDS can describe the set without its files depends on what else is installed.
    message = "wikipedia: only with apache-beam, or prepared|wikipedia/20230601.en is not prepared"
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        registry.load("wikipedia/20230601.en", "train", data_dir=str(tmp_path))


def test_text_without_spaces_is_hidden_by_characters():
    """Chinese: `share` of the characters, each whole, where there are no words to draw."""
    text = "感知器可以处理任何形式的输入数据并且不需要改变它的结构" * 4
    line = parse("first_window(301) | hide_words(0.15) | keep('text', 'text_mask', 'hidden')")
    shares = []
    for seed in range(20):
        example = line({"text": text.encode()}, np.random.default_rng(seed))
        shares.append(example["hidden"].mean())
        runs = example["hidden"][:300].reshape(-1, 3)  # 3 bytes each
        np.testing.assert_array_equal(runs.any(axis=1), runs.all(axis=1))
    assert 0.1 < np.mean(shares) < 0.2
    # A long run in a text of words takes nothing else along.
    mixed = b"two words " + b"x" * 40 + b" end"
    spans = text_transforms._words(mixed)
    assert spans[:2] == [(0, 3), (3, 9)] and spans[-1] == (50, 54) and len(spans) == 44


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "1.txt").write_bytes(b"\xef\xbb\xbfabcdefghijkl")
    (tmp_path / "2.txt").write_bytes(b"\xef\xbb\xbfmno")
    source = load(tmp_path)
    assert len(source) == 2
    assert source[0]["text"] == b"abcdefghijklmno" and source[1]["text"] == b"klmno"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_other_encodings_are_refused_by_name(tmp_path, encoding):
    (tmp_path / "a.txt").write_text("plain ascii")
    (tmp_path / "b.txt").write_bytes("ein Käse".encode(encoding))
    with pytest.raises(ValueError, match=r"b\.txt is not UTF-8 text .*iconv"):
        load(tmp_path)


def test_an_encoding_that_changes_later_is_refused_where_it_does(tmp_path):
    late = b"a" * 8190 + "é".encode() + b"b" * 20
    (tmp_path / "a.txt").write_bytes(late)
    source = load(tmp_path, length=8191)
    assert source[0]["text"] == late and source[1]["text"] == late[8191:]  # cut within a character
    (tmp_path / "a.txt").write_bytes(late + b"caf\xe9 ")
    with pytest.raises(ValueError, match=r"a\.txt is not UTF-8 text \(at byte 0xe9\)"):
        load(tmp_path, length=8191)[0]


def joined(length, *texts, **options):
    fields = ["one", "two"][: len(texts)]
    words = ", ".join([*map(repr, fields), *(f"{k}={v}" for k, v in options.items())])
    line = parse(f"join_texts({length}, {words}) | keep('text', 'text_mask', 'marks', 'cut')")
    example = line(dict(zip(fields, texts, strict=True)), np.random.default_rng(0))
    count = example["text_mask"].sum()
    marks = example["marks"][:count]
    shown = np.where(marks, np.array([0, ord("<"), ord("|")])[marks], example["text"][:count])
    assert not example["text"][count:].any() and not example["marks"][count:].any()
    return bytes(shown.astype(np.uint8)).decode(), bool(example["cut"])


def test_pairs_of_texts_are_marked_and_the_longer_one_is_cut_first():
    assert joined(12, b"abc") == ("<abc|", False)
    assert joined(12, b"abc", "dé") == ("<abc|dé|", False)
    assert joined(9, b"abc", b"def") == ("<abc|def|", False)
    assert joined(5, b"abcde") == ("<abc|", True)
    assert joined(9, b"abcdefghi", b"xyz") == ("<abc|xyz|", True)
    assert joined(9, b"ab", b"uvwxyz") == ("<ab|uvwx|", True)
    assert joined(8, b"abcdefghi", b"uvwxyz") == ("<abc|uv|", True)  # the second one on a tie
    assert joined(9, b"ab", None) == ("<ab|", False)
    assert joined(9, b"", b"xyz", allow_empty=True) == ("<|xyz|", False)
    for error, texts, length in (
        (r"'two' is empty: .*allow_empty=True", (b"ab", b" \n"), 9),
        ("leaves no byte of each", (b"ab", b"cd"), 4),
        ("no text 'one'; its texts are", (3,), 9),
        ("one text or two, got", (None,), 9),
    ):
        with pytest.raises(ValueError, match=error):
            joined(length, *texts)


def test_classes_and_scores_of_one_batch_become_floats():
    line = parse("as_float('label') | keep('label')")
    labels = [line({"label": x}, np.random.default_rng(0))["label"] for x in (np.int32(2), 2.5)]
    assert [(x, x.dtype) for x in labels] == [(2.0, np.float32), (2.5, np.float32)]
