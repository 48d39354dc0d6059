"""Users' paths: `~` is the home directory, and datasets are read from buckets as from folders."""

import os
import pathlib
import shutil

import numpy as np
import pair_files
import pytest
from clip_files import write_clips
from etils import epath
from etils.epath import gpath
from image_files import write_folder, write_tables

from perceiver_jax.datasets import registry
from perceiver_jax.files.paths import user_path

CLIPS = {"num_frames": 4, "frames_per_second": 25, "samples_per_second": 1600, "short_side": 36}


class Bucket(type(epath.backend.os_backend)):
    """`gs://NAME` in a local folder."""

    def __init__(self, folder):
        self.folder = folder

    def local(self, path):
        return self.folder / os.fspath(path).removeprefix("gs://")

    def open(self, path, mode):
        return super().open(self.local(path), mode)

    def exists(self, path):
        return self.local(path).exists()

    def isdir(self, path):
        return self.local(path).is_dir()

    def stat(self, path):
        return super().stat(self.local(path))

    def glob(self, path):
        pattern = os.fspath(path).removeprefix("gs://")
        return [f"gs://{found.relative_to(self.folder)}" for found in self.folder.glob(pattern)]

    def walk(self, top, *, top_down=True, on_error=None):
        """Without `gs://`, as fsspec's."""
        for root, folders, names in os.walk(self.local(top)):
            yield os.path.relpath(root, self.folder), folders, names


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """(the folder, its address)"""
    monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, "gs", Bucket(tmp_path))
    monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)
    (tmp_path / "bucket").mkdir()
    return tmp_path / "bucket", "gs://bucket"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """(the folder, its address)"""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    return tmp_path / "mine", "~/mine"


def write_all(folder):
    for name in ("kitti", "things", "clips", "texts", "images"):
        (folder / name).mkdir()
    write_folder(folder / "images")
    write_tables(folder / "images")
    pair_files.write_kitti(folder / "kitti")
    pair_files.write_scene_flow(folder / "things")
    write_clips(folder / "clips", ("train",), count=1)
    (folder / "texts" / "part").mkdir()
    (folder / "texts" / "part" / "a.txt").write_text("some words")
    (folder / "texts" / "part" / "b.txt").write_text(" more", encoding="utf-8-sig")


CASES = {
    "kitti2015_flow": ("kitti", "training", {}),
    "sceneflow_final": ("things", "train", {}),
    "clips": ("clips", "train", CLIPS),
    "texts": ("texts", "part/*.txt", {"length": 8}),
    "folder": ("images", "train", {}),
    "table": ("images", "val", {"multi_label": True}),
}


@pytest.mark.parametrize("where", ["bucket", "home"])
def test_datasets_open_from_any_address(where, request):
    folder, address = request.getfixturevalue(where)
    write_all(folder)
    for name, (part, split, options) in CASES.items():
        source = registry.load(name, split, data_dir=f"{address}/{part}", options=options)
        local = registry.load(name, split, data_dir=str(folder / part), options=options)
        assert len(source) == len(local)
        for field, value in local[0].items():
            np.testing.assert_array_equal(source[0][field], value)
    shutil.rmtree(folder / "kitti" / "training" / "image_2")
    with pytest.raises(FileNotFoundError, match=f"{user_path(address)}/kitti/training/image_2"):
        registry.load("kitti2015_flow", "training", data_dir=f"{address}/kitti")


def test_folders_within_folders_of_a_bucket_are_refused(bucket):
    with pytest.raises(ValueError, match=r"'\*\*' matches no folders in a bucket"):
        registry.load("texts", "**/*.txt", data_dir="gs://bucket/texts", options={"length": 8})


def test_user_paths(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert user_path("~/data") == pathlib.Path("/home/me/data")
    assert os.fspath(user_path("gs://bucket/a") / "b") == "gs://bucket/a/b"
    assert user_path(pathlib.Path("here")) == pathlib.Path("here")
