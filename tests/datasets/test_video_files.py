"""Clips of local video files: lists, classes, and files that cannot be read."""

import itertools

import numpy as np
import pytest
from clip_files import write_clip, write_clips

from experiments.tasks.data import check_class_order
from perceiver_jax.data import eval_batches, parse, train_batches
from perceiver_jax.datasets import registry
from perceiver_jax.files import video_seconds, write_wav

OPTIONS = {
    "num_frames": 4,
    "frames_per_second": 25,
    "samples_per_second": 1600,
    "short_side": 36,
}
LINE = parse("inception_crop(32) | flip | resize(32) | keep('video', 'audio', 'label', 'readable')")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six files, the third and the fourth damaged."""
    folder = tmp_path_factory.mktemp("clips")
    write_clips(folder, damaged=(2, 3))
    return folder


def load(folder, split="train", **options):
    return registry.load("clips", split, data_dir=str(folder), options=OPTIONS | options)


def test_an_example(folder):
    source = load(folder)
    assert (len(source), repr(source), source.classes) == (
        6,
        "clips[train]",
        ["kind 0", "kind 1", "kind 2"],
    )
    example = source[4]
    assert {k: (x.shape, x.dtype) for k, x in example.items()} == {
        "video": ((4, 36, 48, 3), np.uint8),
        "audio": ((256,), np.float32),
        "label": ((), np.int32),
        "row": ((), np.int32),
        "readable": ((), np.bool_),
    }
    assert abs(example["video"].mean() - 86) < 2 and example["label"] == 1
    assert np.abs(example["audio"]).max() > 0.2


def test_clips_lie_evenly_in_what_there_is_of_a_row(folder):
    """Of 8 frames, brighter by 4 each, 0.32 seconds: the first and the last four, and between."""

    def brightness(**options):
        source = load(folder, **options)
        count = options["clips_per_row"]
        assert len(source) == 6 * count
        examples = [source[4 * count + i] for i in range(count)]
        assert all(x["row"] == 4 and x["readable"] for x in examples)
        assert np.abs(examples[0]["audio"]).max() > 0.2 > np.abs(examples[-1]["audio"]).max()
        return [x["video"].mean() - 86 for x in examples]

    np.testing.assert_allclose(brightness(clips_per_row=2), [0, 16], atol=2)
    np.testing.assert_allclose(brightness(clips_per_row=5), [0, 4, 8, 12, 16], atol=2)
    np.testing.assert_allclose(brightness(clips_per_row=2, row_seconds=0.28), [0, 12], atol=2)


def test_how_long_a_file_is(folder, tmp_path):
    assert video_seconds(folder / "0.mp4") == pytest.approx(0.32)
    with pytest.raises(ValueError, match=r"2\.mp4 is damaged, or no video file"):
        video_seconds(folder / "2.mp4")
    write_wav(tmp_path / "sound.wav", np.zeros(100), 8000)
    with pytest.raises(ValueError, match=r"sound\.wav has no video in it, or does not say"):
        video_seconds(tmp_path / "sound.wav")


def test_in_training_the_next_readable_row_stands_in(folder, capsys):
    source = load(folder, replace=True)
    for _ in range(2):
        brightness = [round(source[i]["video"].mean()) - 6 for i in range(6)]
        np.testing.assert_allclose(brightness, [0, 20, 80, 80, 80, 100], atol=2)
    assert [int(source[i]["label"]) for i in range(6)] == [0, 1, 1, 1, 1, 2]
    assert all(source[i]["readable"] for i in range(6))
    assert sorted(source.unreadable) == ["2.mp4", "3.mp4"]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2  # each file once
    assert said[0].startswith("clips[train]: skipped (1 of 6): ")
    assert "2.mp4 is damaged, or no video file" in said[0] and "(2 of 6)" in said[1]


def test_batches_are_functions_of_seed_and_step_all_the_same(folder):
    options = {"batch_size": 4, "seed": 3, "readers": "threads:2"}
    whole = train_batches(load(folder, replace=True), LINE, **options)
    whole = list(itertools.islice(whole, 3))
    later = train_batches(load(folder, replace=True), LINE, start_step=2, **options)
    assert whole[2].keys() == {"video", "audio", "label", "readable", "mask"}
    for field, value in next(later).items():
        np.testing.assert_array_equal(value, whole[2][field])


def test_in_evaluation_an_unreadable_example_says_so(folder):
    line = parse("central_crop(32, border=0) | resize(32) | keep('video', 'audio', 'readable')")
    (batch,) = eval_batches(load(folder), line, batch_size=6, readers="threads:0")
    np.testing.assert_array_equal(batch["readable"], [True, True, False, False, True, True])
    assert batch["video"].shape == (6, 4, 32, 32, 3)
    assert not batch["video"][2:4].any() and not batch["audio"][2:4].any()


def test_a_folder_of_damaged_files(tmp_path):
    write_clips(tmp_path, count=2, damaged=(0, 1))
    with pytest.raises(ValueError, match=r"none of the 2 files listed can be read, of .*0\.mp4 is"):
        load(tmp_path, replace=True)[0]


def write(folder, text, classes=None, split="train"):
    (folder / f"{split}.csv").write_text(text)
    if classes:
        (folder / "classes.txt").write_text("\n".join(classes) + "\n")
    return load(folder, split)


def test_classes(tmp_path):
    source = write(tmp_path, "path,start,label\na.mp4,1.5,b\nc.mp4,0,d\n")
    assert (source.classes, source.labels, source.starts) == (["b", "d"], [[0], [1]], [1.5, 0])
    write(tmp_path, "path,start,label\na.mp4,1.5,a\n", split="validate")
    assert load(tmp_path).labels == [[0], [1]]  # numbered over its own list,
    assert load(tmp_path, lists=("train", "validate")).labels == [[1], [2]]  # or over these
    (tmp_path / "official.csv").write_text("label,youtube_id,time_start,time_end,split\n")
    assert load(tmp_path, lists=("train", "validate")).labels == [[1], [2]]
    source = write(tmp_path, "path,start,label\na.mp4,0,7\n", split="validate")
    (tmp_path / "train.csv").unlink()
    assert load(tmp_path, "validate").labels == [[7]]
    source = write(tmp_path, "path,start,label\na.mp4,0,two\na.mp4,0,0\n", ["one", "two"])
    assert source.labels == [[1], [0]]
    with pytest.raises(ValueError, match=r"train\.csv, line 3: 'three' is none of the 2 classes"):
        write(tmp_path, "path,start,label\na.mp4,0,one\na.mp4,0,three\n")


def test_several_labels(tmp_path):
    write_clip(tmp_path / "a.mp4", 20, sound=False)
    source = write(tmp_path, "path,start,labels\na.mp4,0,x;z\na.mp4,0,\n", ["w", "x", "y", "z"])
    np.testing.assert_array_equal(source[0]["labels"], [0, 1, 0, 1])
    np.testing.assert_array_equal(source[1]["labels"], [0, 0, 0, 0])
    assert not source[0]["audio"].any()  # a silent film


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na,b\n", "needs path, start and one of label, labels"),
        ("path,start,label\na.mp4,soon,b\n", r"train\.csv, line 2: start='soon' is no number"),
        ("path,start,label\n", r"train\.csv lists no file"),
        ("path,start,label\na.mp4,inf,b\n", r"train\.csv, line 2: start='inf' is no number"),
        ("path,start,label\na.mp4,0,b\na.mp4,nan,b\n", r"line 3: start='nan' is no number"),
        ("path,start,label\na.mp4,-1,b\n", r"train\.csv, line 2: start='-1' is no number"),
        ("path,start,label\na.mp4,0,b\na.mp4,0, \n", r"train\.csv, line 3: label is blank"),
        ("path,start,label\n,0,b\n", r"train\.csv, line 2: path is blank"),
        ("path,start,labels\na.mp4,0,b,c\n", r"train\.csv, line 2 has more cells than columns"),
        ("path,start,label,path\na.mp4,0,b,c\n", r"train\.csv begins with .* named twice"),
    ],
)
def test_wrong_lists(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path, text)


def test_what_is_needed_is_said(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"(?s)data_dir is not set.*path,start,label.*Kinetics"
    ):
        load("")
    with pytest.raises(FileNotFoundError, match=r"there is no .*/missing/train\.csv"):
        load(tmp_path / "missing")
    with pytest.raises(ValueError, match="a whole number of samples and at least one clip"):
        load(tmp_path, num_frames=1, samples_per_second=1601)
    with pytest.raises(ValueError, match=r"the source 'digits' has no options, got \['replace'\]"):
        registry.load("digits", "train", options={"replace": True})


def test_lists_as_spreadsheets_write_them(tmp_path):
    """A byte order mark, and spaces about the cells, change nothing."""
    text = "path,start,label\n0.mp4,0,kind 0\n1.mp4,0,kind 1\n"
    plain = write(tmp_path, text)
    (tmp_path / "train.csv").write_text(text, encoding="utf-8-sig")
    marked = load(tmp_path)
    spaced = write(tmp_path, text.replace(",", " , "))
    for source in (marked, spaced):
        assert (source.classes, source.labels, source.paths) == (
            plain.classes,
            plain.labels,
            plain.paths,
        )
    for encoding in ("utf-16", "latin-1"):
        (tmp_path / "train.csv").write_bytes((text + "2.mp4,0,café\n").encode(encoding))
        with pytest.raises(ValueError, match=r"train\.csv is not UTF-8 text"):
            load(tmp_path)


def test_classes_txt_has_one_name_a_line(tmp_path):
    text = "path,start,label\na.mp4,0,two\n"
    (tmp_path / "classes.txt").write_text("one \n two\n\n", encoding="utf-8-sig")
    source = write(tmp_path, text)
    assert source.classes == ["one", "two"] and source.classes_fixed
    for classes, problem in ((["one", "", "two"], "is blank"), (["one", "two", "one"], "repeats")):
        with pytest.raises(ValueError, match=rf"classes\.txt, line [23] {problem}"):
            write(tmp_path, text, classes)


def test_weights_fix_the_order_of_the_classes(tmp_path):
    """A list of fewer classes than the weights' would number them otherwise."""
    source = write(tmp_path, "path,start,label\na.mp4,0,juggling\nb.mp4,0,archery\n")
    check_class_order(source, 2, "kinetics")
    check_class_order(source, 700, "")
    with pytest.raises(ValueError, match=r"names 2 classes, .*'kinetics' knows 700: put a classes"):
        check_class_order(source, 700, "kinetics")
    text = "path,start,label\na.mp4,0,juggling\n"
    check_class_order(write(tmp_path, text, ["archery", "juggling"]), 700, "kinetics")


def test_an_empty_classes_txt_is_refused(tmp_path):
    (tmp_path / "train.csv").write_text("path,start,label\na.mp4,0,b\n")
    (tmp_path / "classes.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"classes\.txt is empty: write one class a line, or"):
        load(tmp_path)
