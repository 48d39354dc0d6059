"""A folder of images with a folder for each class, and what is wrong with it."""

import pickle
import struct
import zlib

import cv2
import numpy as np
import pytest
from image_files import write_folder, write_image

from perceiver_jax import files
from perceiver_jax.datasets import copies, folder, registry
from perceiver_jax.datasets.images import Options
from perceiver_jax.files.image import SMALL
from perceiver_jax.files.paths import walk_files

LISTS = ("train", "val")


def load(path, split="train", lists=LISTS, **options):
    return folder.load(split, data_dir=str(path), lists=lists, **options)


@pytest.fixture
def pets(tmp_path):
    write_folder(tmp_path / "pets")
    return tmp_path / "pets"


def test_parts_classes_and_images(pets):
    write_image(pets / "train" / "cat" / "deep" / "er" / "x.jpg", 99)
    source = load(pets)
    assert repr(source) == "folder[pets/train]"
    assert source.classes == ["cat", "dog", "eel"] and not source.classes_fixed
    assert len(source) == 16 and source.paths[-1] == "train/cat/deep/er/x.jpg"
    example = source[4]
    assert source.paths[4] == "train/dog/1.png" and example["label"] == 1 and example["readable"]
    file = cv2.imread(str(pets / source.paths[4]))[..., ::-1]
    np.testing.assert_array_equal(example["image"], file)
    assert [source[i]["image"].shape[0] for i in (0, 3, 6)] == [12, 13, 14]  # any size
    assert [int(source[i]["label"]) for i in range(5)] == [0, 1, 2, 0, 1]  # the classes take turns
    assert pickle.loads(pickle.dumps(source))[7]["row"] == 7  # for reading processes
    assert registry.load("folder", "val", data_dir=str(pets)).paths[0] == "val/cat/0.png"


def test_in_memory_keeps_the_classes(tmp_path):
    for number, name in enumerate(("x", "y", "x")):
        write_image(tmp_path / "train" / name / f"{number}.png", number)
    source = registry.load("folder", "train", data_dir=str(tmp_path), in_memory=True)
    assert source.classes == ["x", "y"] and source.in_memory
    assert source.arrays["label"].tolist() == [0, 1, 0] and source.arrays["readable"].all()


def test_names_are_in_natural_order(tmp_path):
    write_folder(tmp_path, classes=("10", "9", "b2", "b10"), count=1)
    assert load(tmp_path).classes == ["9", "10", "b2", "b10"]


def test_val_is_also_called_test(tmp_path):
    write_folder(tmp_path, parts=("train", "test"))
    assert repr(load(tmp_path, "val")) == f"folder[{tmp_path.name}/test]"
    with pytest.raises(FileNotFoundError, match=r"no folder 'dev' .* 'test', 'train': set config"):
        load(tmp_path, lists=("train", "dev"))


def test_one_piece_is_split_by_a_seed(tmp_path):
    write_folder(tmp_path, parts=("",), count=10)
    train, held = load(tmp_path), load(tmp_path, "val")
    assert (len(train), len(held)) == (24, 6) and not set(train.paths) & set(held.paths)
    assert np.bincount([held[i]["label"] for i in range(6)]).tolist() == [2, 2, 2]
    assert repr(held) == f"folder[{tmp_path.name}, 20% by seed 0]"
    assert load(tmp_path, "val").paths == held.paths
    assert load(tmp_path, "val", split_seed=1).paths != held.paths
    assert len(load(tmp_path, "val", eval_fraction=1.0, lists=("val",))) == 30
    write_image(tmp_path / "cat" / "new.png")
    assert set(held.paths) & set(load(tmp_path, "val").paths) >= set(held.paths[2:])
    write_image(tmp_path / "fox" / "0.png")
    with pytest.raises(ValueError, match=r"class 'fox' has one image"):
        load(tmp_path)


def test_a_class_called_train_is_a_class(tmp_path):
    write_folder(tmp_path, parts=("",), classes=("car", "train"))
    with pytest.raises(ValueError, match="holds 'train', which look like parts and not classes"):
        load(tmp_path)
    write_folder(tmp_path / "x", parts=LISTS, classes=("car", "train"))
    assert load(tmp_path / "x").classes == ["car", "train"]


def test_class_file_fixes_the_numbers(pets):
    (pets / "classes.txt").write_text("eel\ndog\nfox\ncat\n")
    source = load(pets)
    assert (source.classes, source.classes_fixed) == (["eel", "dog", "fox", "cat"], True)
    assert source[0]["label"] == 3
    (pets / "classes.txt").write_text("eel\ndog\n")
    with pytest.raises(ValueError, match=r"classes\.txt does not name the folder 'cat'"):
        load(pets)


def remove(path):
    for file in sorted(path.rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: remove(p / "train" / "dog"), r"train: the class folder 'dog' holds no image"),
        (lambda p: (p / "train" / "fox").mkdir(), "the class folder 'fox' holds no image"),
        (lambda p: write_image(p / "val" / "fox" / "0.png"), "no training image has the class 'fo"),
    ],
)
def test_classes_that_are_wrong_are_named(change, message, pets):
    change(pets)
    with pytest.raises(ValueError, match=message) as error:
        [load(pets, split) for split in ("val", "train")]
    assert "\n" not in str(error.value)


def test_other_wrong_folders(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"config\.data\.data_dir is empty"):
        load("")
    with pytest.raises(FileNotFoundError, match="nowhere' does not exist"):
        load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds 0 images but no folders of classes"):
        load(tmp_path)
    write_image(tmp_path / "0.png")
    with pytest.raises(ValueError, match="holds 1 images but no folders of classes: put the im"):
        load(tmp_path)
    with pytest.raises(ValueError, match="is no folder; a list is source=table"):
        load(tmp_path / "0.png")
    write_folder(tmp_path / "one", classes=("cat",))
    with pytest.raises(ValueError, match=r"one has 1 classes, \['cat'\], not 2"):
        load(tmp_path / "one")
    monkeypatch.setenv("HOME", str(tmp_path))
    write_folder(tmp_path / "home")
    assert len(load("~/home")) == 15


def test_files_that_are_no_images_are_noted(pets):
    (pets / "train" / "cat" / "notes.txt").write_text("x")
    (pets / "train" / "cat" / ".hidden.png").write_text("x")
    (pets / "train" / ".cache").mkdir()
    source = load(pets)
    assert len(source) == 15
    assert source.notes == [f"{pets}/train: 1 other files, left out: 'cat/notes.txt'"]
    (pets / "val" / "eel").rename(pets / "eel")
    assert load(pets, "val").notes == [f"no image in {pets}/val has the class 'eel'"]


def bomb():
    """A PNG of 30,000 x 30,000 pixels in a few bytes: its header alone says so."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def test_unreadable_files_are_left_out_or_refused(pets, capsys):
    whole = (pets / "train" / "cat" / "1.png").read_bytes()
    (pets / "train" / "cat" / "0.png").write_bytes(b"")
    (pets / "train" / "cat" / "1.png").write_bytes(whole[:40])
    (pets / "train" / "cat" / "2.png").write_bytes(bomb())
    source = load(pets)
    assert len(source) == 14
    assert source.notes[0].startswith(
        "folder[pets/train]: 1 of 15 files are missing or empty: 'train/cat/0.png'"
    )
    readable = source[0]  # dog, eel, cat, dog, ...
    for index in (2, 5, 2):
        example = source[index]
        assert not example["readable"] and not example["image"].any() and example["label"] == 0
    assert source[2]["image"].shape == readable["image"].shape == (12, 16, 3)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2  # each once
    assert told[0].startswith("folder[pets/train]: left out (1 of 14): ") and "1.png" in told[0]
    assert "2.png is too large an image; shrink it: Image size (900000000 pixels)" in told[1]
    small = load(pets, max_pixels=240)
    assert [bool(small[i]["readable"]) for i in (9, 12)] == [True, False]  # 15 x 16, 16 x 16
    assert list(source.unreadable) == [source.paths[2], source.paths[5]]
    with pytest.raises(ValueError, match=r"1 of 15 files are missing or empty: .* correct config"):
        load(pets, unreadable="refuse")
    (pets / "train" / "cat" / "0.png").unlink()
    with pytest.raises(ValueError, match=r"cat/1\.png is no readable image"):
        load(pets, unreadable="refuse")[0]  # cat/1.png comes first now


def test_photographs_are_shrunk_and_kept_in_memory(tmp_path):
    small = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    photograph = np.kron(small, np.ones((40, 40, 1), np.uint8))  # 960 x 1280
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        for number in range(2):
            kind = "jpg" if number else "png"
            files.write_image(tmp_path / name / f"{number}.{kind}", photograph)
    assert (tmp_path / "x" / "1.jpg").stat().st_size > SMALL  # decoded smaller, by 8
    source = load(tmp_path, "val", ("val",), eval_fraction=1.0, short_side=24)
    for index, path in enumerate(source.paths):
        image = source[index]["image"].astype(int)
        assert image.shape == (24, 32, 3)
        assert np.abs(image - small).mean() < (4 if path.endswith("jpg") else 0.5)
    assert source[0]["image"] is source[0]["image"]
    assert source.cached_bytes == sum(image.nbytes for image in source.cache.values()) == 4 * 2304
    assert not pickle.loads(pickle.dumps(source)).cache
    few = load(tmp_path, "val", ("val",), eval_fraction=1.0, short_side=24, cache_bytes=5000)
    np.testing.assert_array_equal(
        [few[i]["image"] for i in range(4)], [source[i]["image"] for i in range(4)]
    )
    assert len(few.cache) == 2
    whole = load(tmp_path, "val", ("val",), eval_fraction=1.0)
    assert whole[0]["image"].shape == (960, 1280, 3) and not whole.cache
    assert (
        load(tmp_path, "val", ("val",), eval_fraction=1.0, short_side=2000)[0]["image"].shape[0]
        == 960
    )


def test_no_readable_image_at_all_is_refused(pets):
    with pytest.raises(ValueError, match=r"none of the first 8 files .*0\.png is too large for an"):
        load(pets, max_pixels=10)  # fewer than bytes in a file
    for path in pets.rglob("train/*/*.png"):
        path.write_text("<html>")
    with pytest.raises(ValueError, match=r"none of the first 8 files can be read, .*b'<html>'"):
        load(pets)


def test_copies_in_both_parts_are_counted(pets):
    train, val = load(pets).files, load(pets, "val").files
    assert copies.describe(train, val) == []
    unknown = val._replace(sizes=-np.ones_like(val.sizes))
    assert "files in buckets are not compared" in copies.describe(train, unknown)[0]
    (pets / "val" / "dog" / "0.png").write_bytes((pets / "train" / "cat" / "3.png").read_bytes())
    big = b"\xff" * 20_000
    (pets / "val" / "dog" / "1.png").write_bytes(big + b"1")
    (pets / "train" / "dog" / "1.png").write_bytes(big + b"2")  # alike in the beginning
    assert copies.describe(load(pets).files, load(pets, "val").files) == [
        "warning: 1 of 15 evaluation images are also in training, byte for byte: "
        "'val/dog/0.png' is 'train/cat/3.png'"
    ]


def test_links_are_followed(pets):
    (pets / "train" / "cat" / "around").symlink_to(pets / "train")
    (pets / "train" / "linked").symlink_to(pets / "val" / "dog")
    (pets / "train" / "cat" / "dangling.png").symlink_to(pets / "nothing")
    found = dict(walk_files(pets / "train"))
    assert found["cat/dangling.png"] == 0 and found["linked/0.png"] > 0
    assert not any("around" in path for path in found)


def test_options_are_checked():
    for options, message in (
        ({"eval_fraction": 0}, r"source_options\.eval_fraction=0 is not allowed: write .* above 0"),
        ({"unreadable": "skip"}, "'leave_out' or 'refuse'"),
        ({"fraction": 0.2}, "has no field 'fraction'"),
    ):
        with pytest.raises(ValueError, match=message):
            registry.check_options("folder", options)
    registry.check_options("table", {"label_column": "species"})
    assert Options().unreadable == "leave_out"
