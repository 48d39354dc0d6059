"""Dominoes: which block tells the class, in training and in each condition."""

import numpy as np
import pytest
from tfds_files import write_tfds

from perceiver_jax.datasets import registry
from perceiver_jax.datasets.generated import dominoes

NAMES = dominoes.CONDITIONS.names
COUNT = 300  # images of a split


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Plain grey images of MNIST and CIFAR-10 whose brightness is 10 times the class, more in the
    test, so that a block tells its class and split."""
    directory = tmp_path_factory.mktemp("tfds")
    for name, version, shape in (
        ("mnist", "3.0.1", (28, 28, 1)),
        ("cifar10", "3.0.2", (32, 32, 3)),
    ):
        splits = {
            split: [
                (np.full(shape, 10 * (i % 10) + more, np.uint8), "png", i % 10) for i in range(30)
            ]
            for split, more in (("train", 0), ("test", 100))
        }
        write_tfds(directory, name, version, splits)
    return str(directory)


@pytest.fixture(scope="module")
def load(data_dir):
    def load(split, **options):
        registry.check_options("dominoes", options)
        return registry.load("dominoes", split, data_dir=data_dir, options=options)

    return load


def blocks(arrays):
    """The classes 0 and 1 of the upper and the lower block."""
    image = arrays["image"][..., 0].astype(int)
    assert np.all(image.min((2,)) == image.max((2,)))
    half = image.shape[1] // 2
    digit, photograph = image[:, 0, 0] % 100 // 10, image[:, half, 0] % 100 // 10
    assert set(digit) == {0, 1} and set(photograph) == {1, 9}
    return digit, photograph // 9


def test_both_blocks_tell_the_class_in_training(load):
    train = load(f"train[:{COUNT}]", size=(64, 32)).arrays
    assert train["image"].shape == (COUNT, 64, 32, 3) and train["image"].max() < 100
    digit, photograph = blocks(train)
    for field in (digit, photograph, train["ground"]):
        np.testing.assert_array_equal(field, train["label"])
    assert 100 < train["label"].sum() < 200


@pytest.mark.parametrize("rho", [0.5, 0.9])
def test_rho_is_how_often_the_digit_tells_it(load, rho):
    train = load("train[:2000]", rho=rho).arrays
    assert train["image"].shape[1:] == (16, 16, 3)
    digit, photograph = blocks(train)
    np.testing.assert_array_equal(photograph, train["label"])
    np.testing.assert_array_equal(digit, train["ground"])
    assert np.mean(digit == photograph) == pytest.approx(rho, abs=5 * np.sqrt(0.25 / 2000))


def test_conditions_take_a_block_from_a_random_class(load):
    source = load("test", per_condition=COUNT)
    assert source.conditions.names == NAMES and source.arrays["image"].min() >= 100
    for number, name in enumerate(NAMES):
        chosen = source.arrays["condition"] == number
        found = {field: values[chosen] for field, values in source.arrays.items()}
        np.testing.assert_array_equal(found["label"], np.arange(COUNT) % 2)
        digit, photograph = (np.mean(block == found["label"]) for block in blocks(found))
        assert (digit == 1) == (name != "mnist_random")
        assert (photograph == 1) == (name != "cifar_random")
        assert {digit, photograph} == {1} or 0.35 < min(digit, photograph) < 0.65
        np.testing.assert_array_equal(found["ground"], blocks(found)[0])


def test_examples_follow_seed_and_number(load):
    part = load("test[5:9]").arrays
    for field, values in load("test[:30]").arrays.items():
        np.testing.assert_array_equal(part[field], values[5:9])
    assert np.any(load("train[:30]").arrays["label"] != load("train[:30]", seed=1).arrays["label"])


def test_what_it_needs_is_said(tmp_path, load):
    with pytest.raises(FileNotFoundError, match="mnist is not prepared"):
        registry.load("dominoes", "test", data_dir=str(tmp_path))
    with pytest.raises(ValueError, match=r"even height, got \(17, 16\)"):
        load("test", size=(17, 16))
    fake, real = registry.load("blank:dominoes", "test")[0], load("test[:1]")[0]
    assert {k: (v.shape, v.dtype) for k, v in fake.items()} == {
        k: (v.shape, v.dtype) for k, v in real.items()
    }
