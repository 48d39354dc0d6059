"""Digits on grounds: what each cue tells, and who can read it."""

import functools

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from tfds_files import write_tfds

from perceiver_jax.datasets import registry
from perceiver_jax.datasets.generated import sea

NAMES = sea.CONDITIONS.names
HALVES = np.s_[:1500], np.s_[1500:]
GOLDEN = [[63, 106, 48], [49, 83, 37], [79, 132, 60], [98, 160, 76]]


def load(split, **options):
    registry.check_options("sea", options)
    return registry.load("sea", split, options=options)


def by_condition(source):
    return {
        name: {
            field: values[source.arrays["condition"] == i]
            for field, values in source.arrays.items()
        }
        for i, name in enumerate(source.conditions.names)
    }


@functools.cache
def grounds(cue, control="none"):
    """Bare grounds with their class, by which to train and to test a reader."""
    test = by_condition(load("test", cue=cue, control=control, per_condition=2500))["ground_only"]
    return [{field: values[part] for field, values in test.items()} for part in HALVES]


def read(features, train, test):
    """Accuracy of a linear reader of some features, trained on one set and tested on another."""
    reader = LinearDiscriminantAnalysis()
    reader.fit(features(train["image"] / 255), train["label"])
    return np.mean(reader.predict(features(test["image"] / 255)) == test["label"])


def mean_colour(image):
    return image.mean((1, 2))


def mean_luminance(image):
    return image.mean((1, 2, 3))[:, None]


def grey(image):
    return image.mean(-1) - image.mean((1, 2, 3))[:, None, None]


def oriented_energy(image):
    """The energy of pairs of gratings, one pair for each orientation and period."""
    y, x = np.mgrid[: image.shape[1], : image.shape[2]]
    angle = (np.arange(sea.ORIENTATIONS) * np.pi / sea.ORIENTATIONS)[:, None, None]
    along = np.cos(angle) * x + np.sin(angle) * y
    waves = np.concatenate([np.exp(2j * np.pi / period * along) for period in sea.PERIODS])
    return np.log(np.abs(np.einsum("nyx,kyx->nk", grey(image), waves)) + 1e-3)


def neighbours(image):
    """The correlation of pixels with those at each small distance: what is local."""
    image = np.pad(grey(image), ((0, 0), (0, 2), (2, 2)))
    moves = [(0, 1), (0, 2), *((down, right) for down in (1, 2) for right in range(-2, 3))]
    inside = image[:, :-2, 2:-2]
    height, width = inside.shape[1:]
    return np.stack(
        [
            (inside * image[:, down : down + height, 2 + right : 2 + right + width]).mean((1, 2))
            for down, right in moves
        ],
        axis=1,
    )


def test_each_cue_is_read_by_its_own_statistic():
    """Colour by any average of pixels, texture by none; nothing is in the luminance."""
    colour, texture = grounds("colour"), grounds("texture")
    assert read(mean_colour, *colour) > 0.95
    assert read(mean_colour, *texture) < 0.15
    assert read(oriented_energy, *texture) > 0.95
    assert read(oriented_energy, *colour) < 0.15
    assert read(mean_luminance, *colour) < 0.15
    assert read(mean_luminance, *texture) < 0.15


def test_permuting_the_grounds_leaves_colour_and_removes_texture():
    """One order for all images leaves what is not local; one for each image leaves nothing."""
    assert read(neighbours, *grounds("texture")) > 0.95
    assert read(neighbours, *grounds("texture", "pixels")) < 0.6
    assert read(oriented_energy, *grounds("texture", "scattered")) < 0.15
    assert read(neighbours, *grounds("texture", "scattered")) < 0.15
    for control in ("pixels", "scattered"):
        assert read(mean_colour, *grounds("colour", control)) > 0.95
    plain, permuted = (
        by_condition(load("test[:50]", control=control)) for control in ("none", "pixels")
    )
    same = [np.array_equal(plain[n]["image"], permuted[n]["image"]) for n in NAMES]
    assert same == [name == "object_only" for name in NAMES]


@pytest.mark.parametrize("rho", [0.1, 0.95])
def test_the_ground_is_that_of_the_class_with_probability_rho(rho):
    count = 10_000
    arrays = load(f"train[:{count}]", rho=rho).arrays
    agree = arrays["ground"] == arrays["label"]
    assert abs(agree.mean() - rho) <= 5 * np.sqrt(rho * (1 - rho) / count)
    np.testing.assert_array_equal(arrays["condition"], ~agree)  # aligned, conflict
    away = (arrays["ground"] - arrays["label"])[~agree] % 10
    expected = len(away) / 9
    chi_square = np.sum((np.bincount(away, minlength=10)[1:] - expected) ** 2 / expected)
    assert chi_square < 8 + 5 * np.sqrt(2 * 8)


def test_always_and_never():
    for rho in (0.0, 1.0):
        arrays = load("train[:500]", rho=rho).arrays
        assert np.mean(arrays["ground"] == arrays["label"]) == rho


def test_conditions_show_the_same_digits_on_other_grounds():
    test = load("test", per_condition=200)
    assert test.conditions.names == NAMES and len(test) == 1000
    found = by_condition(test)
    for name in NAMES:
        np.testing.assert_array_equal(np.bincount(found[name]["label"]), [20] * 10)
        np.testing.assert_array_equal(found[name]["label"], found["aligned"]["label"])
    label = found["aligned"]["label"]
    np.testing.assert_array_equal(found["aligned"]["ground"], label)
    np.testing.assert_array_equal(found["ground_only"]["ground"], label)
    np.testing.assert_array_equal(found["object_only"]["ground"], -1)
    assert np.all(found["conflict"]["ground"] != label)
    assert 5 < np.sum(found["uncorrelated"]["ground"] == label) < 45
    # An object is brighter than any ground where it is opaque: these pixels hardly differ.
    inside = found["object_only"]["image"].min(-1) > 220
    assert inside.sum() > 1000
    for name in ("aligned", "conflict", "uncorrelated"):
        image = found[name]["image"].astype(int)
        assert np.abs(image - found["object_only"]["image"])[inside].max() < 60


def test_examples_follow_seed_and_number_and_not_the_part():
    whole, part = load("train[:3000]").arrays, load("train[1990:2010]").arrays
    for field, values in part.items():
        np.testing.assert_array_equal(values, whole[field][1990:2010])
    test = load("test[3:17]").arrays
    np.testing.assert_array_equal(test["condition"], np.arange(3, 17) % 5)
    for field, values in load("test").arrays.items():
        np.testing.assert_array_equal(test[field], values[3:17])
    images = [load("train[:500]", seed=seed).arrays["image"] for seed in (0, 1)]
    images.append(load("test[:500]").arrays["image"][:: len(NAMES)])
    assert len({image.tobytes() for image in np.concatenate(images)}) == 1100


def test_the_pairing_of_classes_with_grounds_is_one_of_each_seed():
    def hue_order(seed):
        found = by_condition(load("test", per_condition=100, seed=seed))["ground_only"]
        colour = np.stack([mean_colour(found["image"])[k::10].mean(0) for k in range(10)])
        return tuple(np.argsort(np.arctan2(colour[:, 0] - colour[:, 1], colour[:, 2])))

    assert len({hue_order(seed) for seed in range(3)}) == 3


def test_controls_of_training():
    bare = load("train[:1000]", control="grounds").arrays
    np.testing.assert_array_equal(bare["label"], bare["ground"])
    assert set(bare["condition"]) == {NAMES.index("ground_only")}
    assert np.mean(bare["image"] > 235) < 0.01  # no digit
    plain, shuffled = (load("train[:1000]", control=c).arrays for c in ("none", "labels"))
    np.testing.assert_array_equal(plain["image"], shuffled["image"])
    assert 0.05 < np.mean(plain["label"] == shuffled["label"]) < 0.15


def test_test_digits_are_not_seen_in_training():
    images = [registry.load("digits", split).arrays["image"] for split in ("train", "test")]
    assert not {i.tobytes() for i in images[0]} & {i.tobytes() for i in images[1]}
    makers = [
        sea.Maker(sea.Sea(), registry.load("digits", split), 0) for split in ("train", "test")
    ]
    assert [sum(map(len, maker.masks)) for maker in makers] == [1437, 360]


def test_mnist_at_24_pixels(tmp_path):
    rng = np.random.default_rng(0)
    digits = {
        split: [(rng.integers(0, 256, (28, 28, 1), np.uint8), "png", k % 10) for k in range(20)]
        for split in ("train", "test")
    }
    write_tfds(tmp_path, "mnist", "3.0.1", digits)
    source = registry.load(
        "sea", "test[:20]", data_dir=str(tmp_path), options={"images": "mnist", "cue": "texture"}
    )
    assert source.arrays["image"].shape == (20, 24, 24, 3)


def test_golden_example():
    image = load("train[:1]", cue="texture").arrays["image"][0]
    np.testing.assert_allclose(image[3, :4].astype(int), GOLDEN, atol=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cue": "color"}, "cue='color' is not allowed: write 'colour' or 'texture'"),
        ({"rho": 1.5}, "rho=1.5 is not allowed"),
        ({"per_condition": 0}, "per_condition=0 is not allowed"),
        ({"contrl": "labels"}, r"unknown source_options \['contrl'\]"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        registry.check_options("sea", options)


def test_bad_splits_are_named():
    with pytest.raises(ValueError, match=r"sea has the splits \['train', 'test'\]"):
        load("validation")
    with pytest.raises(ValueError, match=r"no part of the 50 examples of 'test'"):
        load("test[:51]", per_condition=10)
