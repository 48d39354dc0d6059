"""Names of classes: WordNet ids for official weights, `id2label` for Hugging Face ones."""

import json
import sys

import pytest

from perceiver_jax import pretrained


def test_official_imagenet_classes_are_wordnet_ids():
    """In the order of the ids, which is that of the released models' classes."""
    names = pretrained.class_names("imagenet_conv", 1000)
    assert (len(names), names[0], names[999]) == (1000, "n01440764", "n15075141")
    assert names == sorted(names)
    assert names == pretrained.class_names(pretrained.URLS["imagenet_learned"], 1000)
    assert pretrained.class_names("kinetics", 700) is None
    assert pretrained.class_names("weights.pystate", 10) is None
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize(
    ("id2label", "expected"),
    [
        ({"1": "dog", "0": "cat"}, ["cat", "dog"]),
        ({"0": "LABEL_0", "1": "LABEL_1"}, None),
        (None, None),
        ({"0": "cat"}, "names 1 classes, the model has 2"),
        ({"0": "cat", "2": "dog"}, r"config.json: id2label must hold a name for each of '0', '1'"),
        (["cat", "dog"], "config.json: id2label must hold a name"),
    ],
)
def test_hugging_face_names(id2label, expected, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"id2label": id2label} if id2label else {}))
    for source in (str(tmp_path), str(tmp_path / "model.safetensors")):
        if isinstance(expected, str):
            with pytest.raises(ValueError, match=expected):
                pretrained.class_names(source, 2)
        else:
            assert pretrained.class_names(source, 2) == expected
    assert pretrained.class_names(str(tmp_path / "elsewhere" / "model.safetensors"), 2) is None


def test_a_broken_config_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json: id2label must hold .*JSONDecodeError"):
        pretrained.class_names(str(tmp_path), 2)
