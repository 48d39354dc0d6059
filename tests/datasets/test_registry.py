"""Sources: digits' fixed split, and TFDS directories written by hand, read without TensorFlow."""

import builtins
import sys

import numpy as np
import pytest
from tfds_files import write_tfds

from perceiver_jax.data.transforms import Encoded, decode, parse
from perceiver_jax.datasets import Arrays, registry, tfds


def random_image(rng, height, width, channels=3):
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.fixture(scope="module", params=[1, 3], ids=["one file", "three files"])
def imagenet(tmp_path_factory, request):
    """A directory with 10 train and 3 validation images of many sizes, one of them grey."""
    rng = np.random.default_rng(0)
    train = [(random_image(rng, 20 + 7 * i, 90 - 5 * i), "png", 100 * i) for i in range(9)]
    train.append((random_image(rng, 33, 44, 1), "jpeg", 999))
    validation = [(random_image(rng, 50, 60), "jpeg", i) for i in range(3)]
    directory = tmp_path_factory.mktemp("tfds")
    splits = {"train": train, "validation": validation}
    write_tfds(directory, "imagenet2012", "5.1.0", splits, shards=request.param)
    return directory, train


def test_digits_is_one_fixed_stratified_split():
    train, test = (registry.load("digits", split) for split in ("train", "test"))
    assert (len(train), len(test), repr(test)) == (1437, 360, "digits[test]")
    for source in (train, test):
        assert source.arrays["image"].shape[1:] == (8, 8, 1)
        assert source.arrays["image"].dtype == np.uint8
        assert source.arrays["label"].dtype == np.int32
        assert source.arrays["image"].max() == 255
        share = np.bincount(source.arrays["label"]) / len(source)
        np.testing.assert_allclose(share, 0.1, atol=0.01)
    # The golden rows: whoever reports an accuracy on digits relies on them.
    np.testing.assert_array_equal(test.arrays["label"][:12], [1, 4, 8, 6, 5, 9, 9, 1, 3, 2, 2, 2])
    both = np.concatenate([train.arrays["image"], test.arrays["image"]]).reshape(1797, -1)
    from sklearn.datasets import load_digits

    whole = np.round(load_digits().data * 255 / 16).astype(np.uint8)
    np.testing.assert_array_equal(np.sort(both, axis=0), np.sort(whole, axis=0))
    with pytest.raises(ValueError, match="'train' and 'test', not 'validation'"):
        registry.load("digits", "validation")


def test_arrays():
    source = Arrays({"x": [[1, 2], [3, 4]], "label": [5, 6]}, name="mine")
    assert (len(source), repr(source)) == (2, "mine")
    np.testing.assert_array_equal(source[1]["x"], [3, 4])
    with pytest.raises(ValueError, match=r"one common length, got \{'x': 2, 'y': 1\}"):
        Arrays({"x": [1, 2], "y": [1]})


def test_tfds_gives_encoded_images_int32_labels_and_no_tensorflow(imagenet):
    directory, written = imagenet
    source = registry.load("imagenet2012", "train", data_dir=str(directory))
    assert (len(source), repr(source)) == (10, "imagenet2012[train]")
    rng = np.random.default_rng(0)
    for i, (image, kind, label) in enumerate(written):
        example = source[i]
        assert isinstance(example["image"], Encoded)
        assert example["label"] == label
        assert example["label"].dtype == np.int32
        decoded = decode(example, rng)["image"]
        assert decoded.shape == (*image.shape[:2], 3)
        if kind == "png":
            np.testing.assert_array_equal(decoded, image)
    assert "tensorflow" not in sys.modules
    many = source.__getitems__([7, 2, 7])
    assert [int(e["label"]) for e in many] == [700, 200, 700]
    assert many[0]["image"] == source[7]["image"]


def test_tfds_splits(imagenet):
    directory = str(imagenet[0])
    part = registry.load("imagenet2012", "train[4:6]", data_dir=directory)
    assert [int(part[i]["label"]) for i in range(len(part))] == [400, 500]
    with pytest.raises(ValueError, match=r"has the splits .*'validation'\], so not 'test'"):
        registry.load("imagenet2012", "test", data_dir=directory)


def test_the_imagenet_line_copes_with_every_size(imagenet):
    source = registry.load("imagenet2012", "train", data_dir=str(imagenet[0]))
    for line in (
        "decode | inception_crop(24) | flip | randaugment(4, 5) | resize(24) | keep('image')",
        "decode | central_crop(24) | resize(24) | keep('image')",
    ):
        for i in range(len(source)):
            image = parse(line)(source[i], np.random.default_rng(i))["image"]
            assert (image.shape, image.dtype) == ((24, 24, 3), np.uint8)


def test_in_memory_decodes_once(tmp_path, capsys):
    rng = np.random.default_rng(0)
    examples = [(random_image(rng, 28, 28, 1), "png", i) for i in range(5)]
    write_tfds(tmp_path, "mnist", "3.0.1", {"train": examples})
    source = registry.load("mnist", "train", data_dir=str(tmp_path), in_memory=True)
    assert source.in_memory
    np.testing.assert_array_equal(source.arrays["image"], [image for image, _, _ in examples])
    np.testing.assert_array_equal(source.arrays["label"], range(5))
    assert "decoding mnist[train]: 5 of 5" in capsys.readouterr().err


def test_in_memory_refuses_many_sizes(imagenet):
    with pytest.raises(ValueError, match=r"every 'image' of one shape, but example 1 has \[27, 85"):
        registry.load("imagenet2012", "train", data_dir=str(imagenet[0]), in_memory=True)


def test_an_unprepared_dataset_says_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        registry.load("cifar10", "train", data_dir=str(tmp_path))
    message = str(error.value)
    assert "cifar10 is not prepared" in message
    assert str(tmp_path / "cifar10") in message
    assert f"tfds build cifar10 --file_format=array_record --data_dir={tmp_path}" in message
    assert "pip install -e '.[prepare]'" in message
    assert "manual_dir" not in message
    with pytest.raises(FileNotFoundError, match=r"(?s)--manual_dir=FOLDER.*ILSVRC2012_img_val.tar"):
        registry.load("imagenet2012", "validation", data_dir=str(tmp_path))


def test_a_format_without_random_access_says_so(tmp_path):
    write_tfds(tmp_path, "mnist", "3.0.1", {"train": []}, file_format="tfrecord")
    with pytest.raises(FileNotFoundError) as raised:
        registry.load("mnist", "train", data_dir=str(tmp_path))
    message = str(raised.value)
    assert "stored as tfrecord, which has no random access" in message
    assert f"tfds convert_format --dataset_version_dir={tmp_path}/mnist/3.0.1" in message
    assert message.endswith("--out_file_format=array_record --out_dir=FOLDER/mnist/3.0.1")


def test_an_unknown_name_is_told_shortly():
    with pytest.raises(ValueError, match="no dataset 'imagnet'") as error:
        registry.load("imagnet", "train")
    assert len(str(error.value)) < 240


def test_a_source_of_one_s_own_is_found_by_its_module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_source.py").write_text(
        "def load(split, *, data_dir, scale):\n    return [{'x': scale}, split, data_dir]\n"
    )
    found = registry.load("own_source:load", "train", data_dir="there", options={"scale": 3})
    assert found == [{"x": 3}, "train", "there"]
    for name in ("own_source:open", "owned_source:load"):
        with pytest.raises(ValueError, match=rf"config\.data\.source='{name}' does not exist"):
            registry.load(name, "train")


def test_options_of_a_source_of_one_s_own_are_checked(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "checked_source.py").write_text(
        "from perceiver_jax.config_types import Count\n"
        "def load(split, *, data_dir, scale: Count):\n    pass\n"
        "def free(split, *, data_dir, **options):\n    pass\n"
    )
    for options, message in (
        ({"scale": 0}, r"source_options\.scale=0 is not allowed: write a whole number from 1"),
        ({"scael": 1}, r"source_options has no field 'scael': choose from \['scale'\]"),
        ({}, r"source_options\.scale is missing"),
    ):
        with pytest.raises(ValueError, match=message):
            registry.check_options("checked_source:load", options)
    registry.check_options("checked_source:load", {"scale": 1})
    registry.check_options("checked_source:free", {"anything": None})


def test_a_bucket_goes_to_tfds_as_it_is(monkeypatch):
    import tensorflow_datasets as tfds

    class Stop(Exception):
        pass

    def builder(name, data_dir):
        raise Stop(name, data_dir)

    monkeypatch.setattr(tfds, "builder", builder)
    with pytest.raises(Stop, match=r"'imagenet2012', 'gs://bucket/tfds'"):
        registry.load("imagenet2012", "train", data_dir="gs://bucket/tfds")
    with pytest.raises(Stop, match="'mnist', None"):
        registry.load("mnist", "train")


def test_records_are_read_at_once_where_that_pays(imagenet):
    source = registry.load("imagenet2012", "train", data_dir=str(imagenet[0]))
    assert source.batched == (len(list(imagenet[0].rglob("*train.array_record*"))) == 1)
    assert tfds._batched_reads_pay(1024, "gs://bucket/imagenet2012/5.1.0")


def test_digits_needs_no_tfds(monkeypatch):
    real = builtins.__import__

    def without_tfds(name, *args, **kwargs):
        assert not name.startswith("tensorflow")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_tfds)
    assert len(registry.load("digits", "test")) == 360
