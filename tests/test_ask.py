"""A run answers files as its evaluation reads the same examples, without the run's data."""

import importlib
import pathlib
import shutil

import numpy as np
import pytest
from image_files import write_folder, write_image

from configs import digits, folder, sets, stereo
from experiments import answers, ask, make_task
from experiments.tasks import image
from perceiver_jax import files
from perceiver_jax.build import build
from perceiver_jax.config_types import ConfigError
from perceiver_jax.datasets import registry


def equal_examples(asked, batch, examples):
    """Whether the examples of files are those of a batch."""
    for name, zeros in asked.example.items():
        values = np.stack([example[name] for example in examples])
        np.testing.assert_array_equal(values, batch[name][: len(examples)])
        assert values.dtype == zeros.dtype and values.shape[1:] == zeros.shape


def test_grey_images(tmp_path):
    config = digits.get_config("tiny").lock()
    batch = next(make_task(config).eval_data())
    asked = image.ask(config)
    for i in range(4):
        files.write_image(tmp_path / f"{i}.png", batch["image"][i, ..., 0])
    examples = [asked.read([str(tmp_path / f"{i}.png")]) for i in range(4)]
    equal_examples(asked, batch, examples)
    write_image(tmp_path / "large.png")
    with pytest.raises(ValueError, match=r"image 12 x 16 x 1 where the run takes 8 x 8 x 1: "):
        asked.read([str(tmp_path / "large.png")])


def test_sets_of_entities(tmp_path):
    config = sets.get_config("count:tiny").lock()
    batch = next(make_task(config).eval_data())
    asked = ask(config)
    for i in range(4):
        np.save(tmp_path / f"{i}.npy", batch["entities"][i][batch["entities_mask"][i]])
    equal_examples(asked, batch, [asked.read([str(tmp_path / f"{i}.npy")]) for i in range(4)])
    np.save(tmp_path / "many.npy", np.zeros((7, 10)))
    with pytest.raises(ValueError, match=r"many\.npy is \[7, 10\], not entities \[1 to 6, 10\]"):
        asked.read([str(tmp_path / "many.npy")])
    with pytest.raises(ConfigError, match=r"entities\.Pointers' answers for each entity"):
        ask(sets.get_config("nearest:tiny").lock())


def test_images_of_any_size_when_the_data_are_gone(tmp_path):
    write_folder(tmp_path / "pets")
    config = folder.get_config("tiny")
    config.data.data_dir = str(tmp_path / "pets")
    batch = next(make_task(config).eval_data())
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path, name in zip(paths, eval_paths(config), strict=False):
        shutil.copy(tmp_path / "pets" / name, path)
    shutil.rmtree(tmp_path / "pets")
    asked = image.ask(config)
    equal_examples(asked, batch, [asked.read([str(path)]) for path in paths])
    assert asked.names == ("cat", "dog", "eel")


def eval_paths(config):
    data = config.data
    lists = {"lists": (data.train_split, data.eval_split)}
    return registry.load("folder", data.eval_split, data_dir=data.data_dir, options=lists).paths


def test_a_line_that_leaves_the_size_asks_the_data(tmp_path):
    write_folder(tmp_path / "pets", count=2)
    for path in (tmp_path / "pets").rglob("*.png"):
        write_image(path, size=(12, 16))
    config = folder.get_config("tiny")
    config.data.data_dir, config.model.output.num_classes = str(tmp_path / "pets"), 3
    config.data.eval = "decode | keep('image', 'label', 'readable')"
    assert image.ask(config).example["image"].shape == (12, 16, 3)


def test_pairs_of_views(tmp_path):
    config = stereo.get_config("depth_digits:tiny").lock()
    batch = next(make_task(config).eval_data())
    asked = image.ask(config)
    paths = [[str(tmp_path / f"{side}{i}.png") for side in "lr"] for i in range(3)]
    for pair, frames in zip(paths, batch["frames"], strict=False):
        for path, frame in zip(pair, frames, strict=True):
            files.write_image(path, frame)
    assert asked.kinds == ("left image", "right image")
    equal_examples(asked, batch, [asked.read(pair) for pair in paths])
    with pytest.raises(ValueError, match="the two images differ in size: 12 x 12 and 12 x 16"):
        write_image(tmp_path / "other.png")
        asked.read([paths[0][0], str(tmp_path / "other.png")])


def test_a_set_s_own_pairs_are_pairs_of_files_too(tmp_path):
    """`label_pair` of the line needs fields of smallNORB, which files do not have."""
    config = stereo.get_config("smallnorb:tiny").lock()
    asked = image.ask(config)
    for side in "lr":
        write_image(tmp_path / f"{side}.png", size=(20, 20))
    example = asked.read([str(tmp_path / f"{side}.png") for side in "lr"])
    whole = files.read_image(tmp_path / "l.png")
    np.testing.assert_array_equal(example["frames"][0], whole[2:18, 2:18])
    assert build(config.model.to_dict()).input.eyes == "both"


def asked_variants():
    """Every variant of every config; of the lab's cells one of each study and model."""
    for path in sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.py")):
        module, kinds = importlib.import_module(f"configs.{path.stem}"), set()
        for variant in getattr(module, "VARIANTS", ()):
            kind = tuple(variant.split(".")[:2])
            if kind not in kinds:
                kinds.add(kind)
                yield module.get_config(f"{variant}:tiny")


def test_every_config_says_how_it_answers_files_without_its_data():
    count = 0
    for config in asked_variants():
        if config.model.get("output", {}).get("num_classes", 0) is None:
            config.model.output.num_classes = 3
        count += 1
        if config.model.get("output", {}).get("module") == "entities.Pointers":
            with pytest.raises(ConfigError, match="answers for each entity"):
                ask(config)
        else:
            assert type(ask(config)) in answers.ANSWERS
    assert count > 50
