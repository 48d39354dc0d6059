"""The official lists of Kinetics and AudioSet, converted into those that `clips` reads."""

import numpy as np
import pytest
from calling import call
from clip_files import write_clip

from perceiver_jax.datasets import registry

KINETICS = """\
label,youtube_id,time_start,time_end,split
massaging person's head,---QUuC4vJs,84,94,train
"opening bottle, not wine",--3ouPhoy2A,20,30,train
abseiling,_0-0_000010,3,13,train
abseiling,-5-6-7_8_9_,3,13,train
"""
AUDIOSET = """\
# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=3, num_segs=3, num_unique_labels=3, num_positive_labels=4
# YTID, start_seconds, end_seconds, positive_labels
--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"
--ZhevVpy1s, 50.000, 60.000, "/m/012xff"
--aE2O5G5WE, 0.000, 10.000, "/m/09x0r"
"""
INDICES = """\
index,mid,display_name
0,/m/09x0r,"Speech"
1,/t/dd00088,"Gush"
2,/m/012xff,"Toothbrush, electric"
"""
OPTIONS = {"num_frames": 4, "frames_per_second": 25, "samples_per_second": 1600, "short_side": 36}


@pytest.fixture
def convert(tmp_path, monkeypatch, capsys):
    """Converts a text; `files` are empty, at paths below the folder."""

    def convert(text, *args, files=(), indices=None):
        folder = tmp_path / "data"
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        (tmp_path / "list.csv").write_text(text)
        (tmp_path / "class_labels_indices.csv").write_text(indices or "")
        more = [f"--indices={tmp_path}/class_labels_indices.csv"] if indices else []
        args = (
            f"--list={tmp_path}/list.csv",
            "--split=train",
            f"--data_dir={folder}",
            *more,
            *args,
        )
        done = call("experiments.convert_lists", *args, monkeypatch=monkeypatch, capsys=capsys)
        return folder, *done

    return convert


CUT = ["a/---QUuC4vJs_000084_000094.mp4", "b/--3ouPhoy2A_000020_000030.MKV", "_0-0_000010_3.webm"]


def test_kinetics(convert):
    folder, code, said, _ = convert(KINETICS, "--subset", files=[*CUT, "a/.hidden.mp4", "b/x.txt"])
    assert code == 0
    assert said.splitlines()[0] == "1 of 4 listed clips are missing, for example -5-6-7_8_9_"
    assert (folder / "train.csv").read_text().splitlines() == [
        "path,start,label",
        "a/---QUuC4vJs_000084_000094.mp4,0,massaging person's head",
        'b/--3ouPhoy2A_000020_000030.MKV,0,"opening bottle, not wine"',
        "_0-0_000010_3.webm,0,abseiling",
    ]
    names = ["abseiling", "massaging person's head", "opening bottle, not wine"]
    assert (folder / "classes.txt").read_text().splitlines() == names
    assert sorted(p.name for p in folder.iterdir() if p.is_file()) == [
        "_0-0_000010_3.webm",
        "classes.txt",
        "train.csv",
    ]
    source = registry.load("clips", "train", data_dir=str(folder), options=OPTIONS)
    assert source.classes == names and source.labels == [[1], [2], [0]]


def test_audioset(convert):
    files = ["--PJHxphWEs_30000_40000.mp4", "--ZhevVpy1s.mp4", "--aE2O5G5WE_0.000.mp4"]
    folder, code, said, _ = convert(AUDIOSET, "--named_by_id=whole", files=files, indices=INDICES)
    assert code == 0 and said.startswith("0 of 3 listed clips are missing\n")
    assert (folder / "train.csv").read_text().splitlines() == [
        "path,start,labels",
        "--PJHxphWEs_30000_40000.mp4,0,Speech;Gush",
        '--ZhevVpy1s.mp4,50,"Toothbrush, electric"',
        "--aE2O5G5WE_0.000.mp4,0,Speech",
    ]
    source = registry.load("clips", "train", data_dir=str(folder), options=OPTIONS)
    assert source.classes == ["Speech", "Gush", "Toothbrush, electric"]
    assert source.labels == [[0, 1], [2], [0]] and source.classes_fixed


def test_what_is_listed_is_read(convert):
    """From 0.08 s on of a whole video; from the start of a segment."""
    for how, brightness in (("whole", 48), ("segment", 40)):
        folder, *_ = convert(
            KINETICS.replace("84,94", "0.08,1"), "--subset", "--overwrite", f"--named_by_id={how}",
            files=["---QUuC4vJs.mp4"],
        )  # fmt: skip
        write_clip(folder / "---QUuC4vJs.mp4", 40)
        source = registry.load("clips", "train", data_dir=str(folder), options=OPTIONS)
        assert source[0]["readable"]
        assert np.abs(source[0]["video"][0].mean() - brightness) < 2


@pytest.mark.parametrize(
    ("change", "args", "files", "message"),
    [
        (("", ""), [], CUT, "names 3 classes, Kinetics has (400, 600, 700)"),
        (("84,94", "94,84"), [], CUT, "list.csv, line 2: '94' to '84' are no seconds"),
        (("84,94", "x,94"), [], CUT, "line 2: 'x' to '94' are no seconds"),
        (("84,94", "nan,94"), [], CUT, "line 2: 'nan' to '94'"),
        (("---QUuC4vJs", "QUuC"), [], CUT, "line 2: 'QUuC' is no YouTube id"),
        (("abseiling,_", " ,_"), [], CUT, "line 4: label is blank"),
        (("time_start", "begin"), [], CUT, "no column 'time_start'"),
        (("label,", "class,"), [], CUT, "labels are held out"),
        (("", ""), ["--subset"], [], "none of the 4 clips of"),
        (("", ""), ["--subset"], ["---QUuC4vJs.mp4"], "--named_by_id=whole or"),
        (("", ""), ["--subset"], [*CUT, "c/---QUuC4vJs_84.mp4"], "are both files of ---QUuC4vJs"),
    ],
)
def test_refused_and_nothing_is_written(change, args, files, message, convert):
    folder, code, _, said = convert(KINETICS.replace(*change, 1), *args, files=["x.csv", *files])
    assert code == 1 and message in said and "\n" not in said
    assert not list(folder.glob("train.csv*")) and not (folder / "classes.txt").exists()


@pytest.mark.parametrize(
    ("change", "indices", "message"),
    [
        (("/m/012xff", "/m/0000"), ("", ""), "line 5: '/m/0000' is no id of class_labels"),
        ((', "/m/012xff"', ""), ("", ""), "line 5: 3 cells"),
        (("", ""), ("index", "number"), "begins with ['number', 'mid', 'display_name']"),
        (("", ""), ("1,/t", "7,/t"), "line 3: index is '7', 1 comes next"),
        (("", ""), ("Gush", "Speech"), "line 3: display_name='Speech' is blank, repeated"),
    ],
)
def test_audioset_s_are_refused(change, indices, message, convert):
    text, indices = AUDIOSET.replace(*change), INDICES.replace(*indices)
    folder, code, _, said = convert(text, files=["--ZhevVpy1s_50.mp4"], indices=indices)
    assert code == 1 and message in said and "\n" not in said
    assert not (folder / "train.csv").exists()


def test_classes_keep_their_numbers(convert):
    folder, *_ = convert(KINETICS, "--subset", files=CUT)
    fewer = "\n".join(KINETICS.splitlines()[:2]) + "\n"
    _, code, _, said = convert(fewer)
    assert code == 1 and "train.csv is there: choose another --split" in said
    _, code, _, said = convert(fewer, "--split=validate")
    assert code == 0 and len((folder / "classes.txt").read_text().splitlines()) == 3
    source = registry.load("clips", "validate", data_dir=str(folder), options=OPTIONS)
    assert source.labels == [[1]]
    _, code, _, said = convert(fewer.replace("massaging", "washing"), "--split=other")
    assert code == 1 and 'line 2: "washing person\'s head" is no class of' in said
