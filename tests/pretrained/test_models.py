"""The six released models: exact sizes, and every tensor under its three names."""

import collections
import json
import math
import pathlib

import jax
import pytest

from perceiver_jax import pretrained
from perceiver_jax.pretrained import convert, huggingface, names

PARAMETERS = {
    "imagenet_learned": 62_255_848,
    "imagenet_fourier": 48_440_627,
    "imagenet_conv": 48_646_522,
    "language": 201_108_230,
    "flow": 41_057_134,
    "kinetics": 19_858_855,
}
STATISTICS = {"imagenet_conv": 128}


def published(model):
    """(Haiku's name, shape, Hugging Face's name, shape) of every tensor; "" where there is none."""
    path = pathlib.Path(__file__).with_name("released_names.json")
    content = json.loads(path.read_text())[model]
    for haiku, haiku_shape, hf, hf_shape in content["tensors"]:
        for i in range(content["layers"] if "{i}" in haiku else 1):  # one stands for all layers
            theirs = haiku.replace("{i}", f"_{i}" if i else "")
            yield theirs, haiku_shape, hf.replace("{i}", str(i)), hf_shape


@pytest.mark.parametrize("model", PARAMETERS)
def test_sizes_and_names(model):
    released = pretrained.released(model)
    shapes = released.shapes
    counts = {
        group: sum(math.prod(x.shape) for x in jax.tree.leaves(g)) for group, g in shapes.items()
    }
    assert counts["params"] == PARAMETERS[model]
    assert counts.get("batch_stats", 0) == STATISTICS.get(model, 0)

    table = names.names(model, released.spec["encoder"]["num_self_attends_per_block"])
    expected = list(published(model))
    assert collections.Counter((n.haiku, n.huggingface) for n in table) == collections.Counter(
        (haiku, hf) for haiku, _, hf, _ in expected
    )
    flat = convert._flat(shapes)
    ours = {n.haiku: n for n in table if n.path}
    for haiku, haiku_shape, hf, hf_shape in expected:
        if haiku in ours:  # counters are nowhere in ours
            assert list(convert._their_shape(ours[haiku], flat, "haiku")) == haiku_shape, haiku
            assert list(convert._their_shape(ours[haiku], flat, "huggingface")) == hf_shape, hf
    assert {n.path for n in table} - {""} == set(flat)


@pytest.mark.parametrize("format", ["haiku", "huggingface"])
@pytest.mark.parametrize("model", PARAMETERS)
def test_models_are_told_apart_by_their_names(model, format):
    for layers in (2, 8):
        keys = [getattr(n, format) for n in names.names(model, layers)]
        assert names.identify(keys) == (format, model)
        assert names.identify([*keys[3:], "something/else"]) == (format, model)
    assert names.identify(["conv/w", "conv/b"]) is None


def test_unknown_model_and_size_are_named():
    with pytest.raises(ValueError, match=r"no released model 'imagenet'; there are .*'flow'"):
        pretrained.released("imagenet")
    with pytest.raises(TypeError, match="num_latent"):
        pretrained.released("flow", num_latent=3).build()


def test_the_ports_configurations():
    """What the port is configured with at the released sizes; the rest are its defaults."""
    imagenet = {"num_latents": 512, "d_latents": 1024, "num_blocks": 8}
    imagenet |= {"num_self_attends_per_block": 6, "num_cross_attention_heads": 1}
    expected = {
        "imagenet_learned": imagenet | {"d_model": 512, "image_size": 224},
        "imagenet_fourier": imagenet | {"d_model": 261},
        "imagenet_conv": imagenet | {"d_model": 322, "qk_channels": None, "v_channels": None},
        "language": {
            "num_latents": 256,
            "d_latents": 1280,
            "d_model": 768,
            "num_blocks": 1,
            "num_self_attends_per_block": 26,
            "num_self_attention_heads": 8,
            "num_cross_attention_heads": 8,
            "qk_channels": 256,
            "v_channels": 1280,
            "vocab_size": 262,
            "max_position_embeddings": 2048,
        },
        "flow": {
            "num_latents": 2048,
            "d_latents": 512,
            "d_model": 322,
            "num_self_attends_per_block": 24,
            "num_self_attention_heads": 16,
            "num_cross_attention_heads": 1,
            "train_size": [368, 496],
        },
        "kinetics": {
            "num_latents": 784,
            "d_latents": 512,
            "d_model": 704,
            "num_self_attends_per_block": 8,
            "num_self_attention_heads": 8,
            "image_size": 56,
            "num_frames": 16,
            "audio_samples_per_frame": 1920,
            "samples_per_patch": 16,
            "output_shape": [1, 16, 224, 224],
            "output_num_channels": 512,
        },
    }
    for model, fields in expected.items():
        config = huggingface.config(pretrained.released(model))
        assert {key: config[key] for key in fields} == fields, model
