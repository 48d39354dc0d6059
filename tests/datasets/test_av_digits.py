"""Written with spoken digits: one label, and those speakers alone that are asked for."""

import numpy as np
import pytest
from tfds_files import SPEAKERS as EVERYONE
from tfds_files import write_spoken_digits, write_tfds

from configs import av_digits
from perceiver_jax.data.transforms import decode, parse
from perceiver_jax.datasets import registry

SPEAKERS = ("ann", "bob", "cyd")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory, rng = tmp_path_factory.mktemp("tfds"), np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 28, 28, 1), np.uint8)
    splits = {
        split: [(image, "png", i % 10) for i, image in enumerate(images)]
        for split in ("train", "test")
    }
    write_tfds(directory, "mnist", "3.0.1", splits)
    write_spoken_digits(directory, SPEAKERS)
    return str(directory)


def load(data_dir, split, **options):
    options = {"num_samples": 40} | options
    return registry.load("av_digits", split, data_dir=data_dir, options=options)


def recording(example):
    """(digit, speaker, take) that an example's sound was made of."""
    audio = example["audio"]
    (start,) = np.flatnonzero(audio == -1)
    level = round(float(audio[start + 1]) * 1000)
    return level // 100, SPEAKERS[level // 10 % 10], level % 10, start


def test_pairs_share_a_label_and_have_the_speakers_asked_for(data_dir):
    for split, speakers in (("train", {"ann", "cyd"}), ("test", {"bob"})):
        source = load(data_dir, split, speakers=tuple(speakers))
        assert (len(source), repr(source)) == (30, f"av_digits[{split}]")
        heard = [recording(source[i]) for i in range(30)]
        assert [digit for digit, *_ in heard] == [int(source[i]["label"]) for i in range(30)]
        assert {speaker for _, speaker, *_ in heard} == speakers
        assert {take for _, _, take, _ in heard} == {0, 1}
        assert len({start for *_, start in heard}) > 5  # anywhere within the silence
    both = parse("decode | keep('image', 'audio', 'label')")(source[3], np.random.default_rng(0))
    assert (both["image"].shape, both["image"].dtype) == ((28, 28, 1), np.uint8)
    assert (both["audio"].shape, both["audio"].dtype) == ((40,), np.float32)
    assert both["label"].dtype == np.int32
    np.testing.assert_array_equal(
        both["image"],
        decode(registry.load("mnist", "test", data_dir=data_dir)[3], None)["image"],
    )


def test_a_pair_is_a_function_of_seed_split_and_index(data_dir):
    first, again, other = (load(data_dir, "train", seed=seed) for seed in (0, 0, 1))
    for i in range(30):
        np.testing.assert_array_equal(first[i]["audio"], again[i]["audio"])
    assert any(np.any(first[i]["audio"] != other[i]["audio"]) for i in range(5))
    assert len(load(data_dir, "train[:7]")) == 7
    held = registry.load(
        "av_digits",
        "test[:5]",
        data_dir=data_dir,
        in_memory=True,
        options={"num_samples": 12},
    )
    assert held.arrays["audio"].shape == (5, 12)  # shorter than a recording: a part of it
    assert {recording(first[i])[1] for i in range(30)} == set(SPEAKERS)


def test_the_config_trains_on_no_speaker_of_its_test():
    data = av_digits.get_config().data
    trained, tested = (set(x.speakers) for x in (data.train_source_options, data.source_options))
    assert trained | tested == set(EVERYONE)
    assert trained and tested and not trained & tested


def test_errors(data_dir, tmp_path):
    with pytest.raises(ValueError, match=r"splits \['train', 'test'\] and parts, not 'valid'"):
        load(data_dir, "valid")
    with pytest.raises(ValueError, match=r"no recording of \['dan'\], only of \['ann', 'bob', 'c"):
        load(data_dir, "train", speakers=("ann", "dan"))
    with pytest.raises(ValueError, match=r"unknown source_options \['speaker'\]; .*num_samples"):
        load(data_dir, "train", speaker="ann")
    write_tfds(tmp_path, "mnist", "3.0.1", {"train": [(np.zeros((28, 28, 1), np.uint8), "png", 0)]})
    with pytest.raises(FileNotFoundError, match=r"tfds build spoken_digit .*--data_dir="):
        registry.load("av_digits", "train", data_dir=str(tmp_path))
