"""Blank sources: what a pipeline makes of one has the shapes and types that real data give it."""

import numpy as np
import pytest
from clip_files import write_clips
from image_files import write_folder
from pair_files import write_kitti, write_masked
from tfds_files import write_spoken_digits, write_texts, write_tfds

from perceiver_jax.data import eval_batches, parse
from perceiver_jax.datasets import registry

CLIPS = {"num_frames": 4, "frames_per_second": 25, "samples_per_second": 1600, "short_side": 36}
PIXELS = np.zeros((40, 50, 3), np.uint8)


def spoken_digits(folder):
    grey = np.zeros((28, 28, 1), np.uint8)
    write_tfds(folder, "mnist", "3.0.1", {"train": [(grey, "png", digit) for digit in range(10)]})
    write_spoken_digits(folder, ("george", "lucas"))


CASES = {
    "imagenet2012": (
        lambda folder: write_tfds(folder, "imagenet2012", "5.1.0", {"train": [(PIXELS, "png", 7)]}),
        "train",
        {},
        "decode | central_crop(32) | resize(32) | keep('image', 'label')",
    ),
    "folder": (
        write_folder,
        "train",
        {},
        "central_crop(8, 0) | resize_area(8) | keep('image', 'label', 'row', 'readable')",
    ),
    "clips": (
        lambda folder: write_clips(folder, ("train",), count=2),
        "train",
        CLIPS,
        "central_crop(32) | resize(32) | keep('video', 'audio', 'label', 'row', 'readable')",
    ),
    "kitti2015_flow": (
        write_kitti,
        "training",
        {},
        "crop_pair(16, 24) | keep('frames', 'field', 'valid', 'occluded', 'size')",
    ),
    "middlebury": (
        write_masked,
        "trainingQ",
        {},
        "pad_pair(24, 40) | keep('frames', 'field', 'valid', 'occluded', 'size')",
    ),
    "av_digits": (
        spoken_digits,
        "train",
        {"num_samples": 64, "speakers": ("lucas",)},
        "decode | keep('image', 'audio', 'label')",
    ),
    "c4/en": (
        lambda folder: write_texts(folder, {"train": ["some words"] * 3}),
        "train",
        {"field": "text", "join": 2},
        "first_window(32) | hide_words(0.15) | keep('text', 'text_mask', 'hidden')",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_blank_source_has_the_fields_of_the_real_one(name, tmp_path):
    write, split, options, line = CASES[name]
    write(tmp_path)
    shapes = []
    for source, folder in ((name, tmp_path), (registry.stand_in(name), tmp_path / "nothing")):
        opened = registry.load(source, split, data_dir=str(folder), options=options)
        batch = next(eval_batches(opened, parse(line), batch_size=2, readers="threads:0"))
        shapes.append({field: (x.shape, x.dtype) for field, x in batch.items()})
    assert shapes[0] == shapes[1]
    assert repr(opened) == f"blank:{name}[{split}]"


def test_what_needs_no_files_stands_for_itself():
    for name in ("digits", "scenes", "bounce", "blank:clips"):
        assert registry.stand_in(name) == name
    with pytest.raises(ValueError, match=r"'scenes' reads no files: use it as it is"):
        registry.load("blank:scenes", "train")
    with pytest.raises(ValueError, match="no dataset 'nosuch'"):
        registry.load("blank:nosuch", "train")


def test_a_part_has_its_length():
    lengths = {"train": 1024, "train[:16]": 16, "train[10000:]": 1024, "test[3:5]": 2}
    for split, length in lengths.items():
        source = registry.load("blank:mnist", split)
        assert len(source) == length
        with pytest.raises(IndexError):
            source[length]
