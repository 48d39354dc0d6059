"""Photographs whose middle is the object: what each condition shows."""

import numpy as np
import pytest
from tfds_files import write_tfds

from perceiver_jax.config_types import ConfigError
from perceiver_jax.datasets import registry
from perceiver_jax.datasets.generated import centre

COUNT = 40  # images of a split, four of a class


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """CIFAR-10 of plain images, each of one grey of its own."""
    directory = tmp_path_factory.mktemp("tfds")
    splits = {
        split: [(np.full((32, 32, 3), 5 * i + more, np.uint8), "png", i % 10) for i in range(COUNT)]
        for split, more in (("train", 0), ("test", 40))
    }
    write_tfds(directory, "cifar10", "3.0.2", splits)
    return str(directory)


@pytest.fixture(scope="module")
def load(data_dir):
    def load(split, **options):
        registry.check_options("centre", options)
        options = {"per_condition": COUNT} | options
        return registry.load("centre", split, data_dir=data_dir, options=options)

    return load


def class_of(grey, more=40):
    return (grey.astype(int) - more) // 5 % 10


def test_conditions(load):
    source = load("test")
    found = {
        name: {f: v[source.arrays["condition"] == i] for f, v in source.arrays.items()}
        for i, name in enumerate(source.conditions.names)
    }
    disc = centre.disc_of((32, 32))
    assert disc.mean() == pytest.approx(np.pi * 0.35**2, abs=0.01)
    assert np.array_equal(disc, disc[::-1]) and np.array_equal(disc, disc.T)
    middle, corner = ({n: f["image"][:, k, k, 0] for n, f in found.items()} for k in (16, 0))
    for name, fields in found.items():
        image, inside, outside = fields["image"][..., 0], middle[name], corner[name]
        np.testing.assert_array_equal(
            image, np.where(disc, *(a[:, None, None] for a in (inside, outside)))
        )
        np.testing.assert_array_equal(fields["label"], np.arange(COUNT) % 10)
        if name != "ground_only":
            np.testing.assert_array_equal(inside, middle["original"])
            np.testing.assert_array_equal(class_of(inside), fields["label"])
        if name != "object_only":
            np.testing.assert_array_equal(class_of(outside), fields["ground"])
    label = found["original"]["label"]
    mean = round(40 + 5 * (COUNT - 1) / 2)
    assert set(corner["object_only"]) == set(middle["ground_only"]) == {mean}
    np.testing.assert_array_equal(found["object_only"]["ground"], -1)
    np.testing.assert_array_equal(corner["ground_only"], corner["original"])
    np.testing.assert_array_equal(found["mixed_same"]["ground"], label)
    assert np.all(corner["mixed_same"] != corner["original"])
    assert np.all(found["mixed_rand"]["ground"] != label)


def test_beginnings_are_balanced_and_nested(load):
    whole = load("train").arrays
    assert sorted(whole["image"][:, 0, 0, 0]) == [5 * i for i in range(COUNT)]
    np.testing.assert_array_equal(whole["label"], np.arange(COUNT) % 10)
    part = load("train[5:25]", seed=0).arrays
    np.testing.assert_array_equal(part["image"], whole["image"][5:25])
    assert np.any(load("train", seed=1).arrays["image"] != whole["image"])
    part = load("test[13:27]").arrays
    np.testing.assert_array_equal(part["image"], load("test").arrays["image"][13:27])
    assert load("train[:3]", size=(16, 16)).arrays["image"].shape == (3, 16, 16, 3)


def test_its_numbers(load):
    metrics = load("test").conditions.metrics(10)
    assert {"bg_gap", "ship_by_sea", "accuracy_mixed_rand", "ground_choice"} < set(metrics)
    arrays = load("test").arrays
    by_ground = {"guess": np.where(arrays["ground"] < 0, 0, arrays["ground"]), **arrays}
    found = {name: metric(by_ground) for name, metric in metrics.items()}
    assert (found["bg_gap"], found["ship_by_sea"], found["ground_choice"]) == (1, 1, 1)
    assert (found["accuracy_original"], found["accuracy_object_only"]) == (1, 0.1)
    by_ground["guess"][arrays["condition"] == 3] = 8
    assert metrics["ship_by_sea"](by_ground) == 1
    by_ground["guess"][arrays["condition"] == 3] = 7
    assert metrics["ship_by_sea"](by_ground) == 0


def test_bad_options_are_named(load):
    with pytest.raises(ValueError, match=r"per_condition=2,000, but cifar10\[test\] has only 40"):
        load("test", per_condition=2000)
    with pytest.raises(ConfigError, match=r"size=\(4, 4\) is not allowed"):
        load("test", size=(4, 4))
    fake, real = registry.load("blank:centre", "test")[0], load("test")[0]
    assert {k: (v.shape, v.dtype) for k, v in fake.items()} == {
        k: (v.shape, v.dtype) for k, v in real.items()
    }


def test_images_seen_in_training_are_a_condition(load):
    """Those of the training split; the first again where there are fewer than test images."""
    source = load("test", seen=15)
    assert source.conditions.names[-1] == "training" and len(source) == 6 * COUNT
    at = source.arrays["condition"] == 5
    grey, label = source.arrays["image"][at, 0, 0, 0], source.arrays["label"][at]
    train = load("train[:15]").arrays
    numbers = np.arange(COUNT) % 15
    np.testing.assert_array_equal(grey, train["image"][numbers, 0, 0, 0])
    np.testing.assert_array_equal(label, train["label"][numbers])
    part = load("test[13:27]", seen=15).arrays
    np.testing.assert_array_equal(part["image"], source.arrays["image"][13:27])
    np.testing.assert_array_equal(
        load("test").arrays["image"], source.arrays["image"][~at], "the others stay as they are"
    )
    with pytest.raises(ValueError, match=r"source_options\.seen=41, but .* has only 40 images"):
        load("test", seen=41)
