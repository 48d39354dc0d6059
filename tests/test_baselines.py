"""The models that Perceivers are compared with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_jax import baselines, flops
from perceiver_jax.build import build
from perceiver_jax.config_types import ConfigError
from perceiver_jax.modalities.label import PooledClassification

RESNET_50 = {
    "widths": (64, 128, 256, 512),
    "blocks": (3, 4, 6, 3),
    "bottleneck": 4,
    "stem": 7,
}
SMALL = {
    "ResNet": {"widths": (4, 8), "blocks": (1, 1)},
    "ViT": {"patch": 4, "width": 8, "depth": 2, "num_heads": 2, "pool": "mean"},
}


def section(name, num_classes=5, **fields):
    output = {"module": "label.PooledClassification", "num_classes": num_classes}
    return {"module": f"baselines.{name}", "dtype": "float32", "output": output, **fields}


def images(batch_size, size, **fields):
    rng = np.random.default_rng(0)
    return {"image": rng.normal(size=(batch_size, size, size, 3)).astype(np.float32), **fields}


def count(model, size):
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images(1, size), train=False))
    return sum(x.size for x in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize(
    ("name", "fields", "classes", "size", "wanted"),
    [
        ("ResNet", {}, 10, 32, 272_474),  # 0.27M in the paper, section 4.2, with 1x1 shortcuts
        ("ResNet", RESNET_50, 1000, 224, 25_557_032),
        ("ViT", {}, 1000, 224, 86_567_656),
    ],
)
def test_published_parameter_counts(name, fields, classes, size, wanted):
    assert count(build(section(name, classes, **fields)), size) == wanted


def test_published_costs():
    for fields, name, wanted in ((RESNET_50, "ResNet", 8.2e9), ({}, "ViT", 35.1e9)):
        shapes = {"image": jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)}
        found = flops.forward(build(section(name, 1000, **fields)), shapes)
        assert found == pytest.approx(wanted, rel=0.01)


@pytest.mark.parametrize("name", SMALL)
def test_gradients_reach_every_parameter(name):
    model, batch = build(section(name, **SMALL[name])), images(4, 8)
    variables = model.init(jax.random.key(0), batch, train=False)
    leaves, tree = jax.tree.flatten(variables["params"])
    keys = jax.random.split(jax.random.key(1), len(leaves))  # the head starts at zero
    params = tree.unflatten(
        [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    )

    @jax.jit
    @jax.grad
    def gradient(params):
        rest = {k: v for k, v in variables.items() if k != "params"}
        out, _ = model.apply({"params": params, **rest}, batch, train=True, mutable=list(rest))
        return jnp.sum(jax.nn.log_softmax(out)[:, 0])

    found = jax.tree_util.tree_leaves_with_path(gradient(params))
    dead = [jax.tree_util.keystr(path) for path, x in found if not np.any(x)]
    # A key's bias adds the same to all of a query's scores: softmax does not see it.
    assert [name for name in dead if "'key']['bias'" not in name] == []


def test_batch_norm_changes_in_training_only():
    model, batch = build(section("ResNet", **SMALL["ResNet"])), images(4, 8)
    variables = model.init(jax.random.key(0), batch, train=False)
    _, after = model.apply(variables, batch, train=True, mutable=["batch_stats"])
    before = variables["batch_stats"]
    changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), before, after["batch_stats"])
    assert all(jax.tree.leaves(changed))
    _, same = model.apply(variables, batch, train=False, mutable=["batch_stats"])
    jax.tree.map(np.testing.assert_array_equal, before, same["batch_stats"])


def test_a_pair_of_views_is_stacked_in_channels():
    frames = np.random.default_rng(0).normal(size=(2, 2, 8, 8, 3)).astype(np.float32)
    model = build(section("ResNet", **SMALL["ResNet"]))
    variables = model.init(jax.random.key(0), {"frames": frames}, train=False)
    assert variables["params"]["stem_conv"]["kernel"].shape == (3, 3, 6, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 3}, r"config\.model has no field 'depth'"),
        ({"module": "baselines.VGG"}, r"config\.model\.module='baselines\.VGG' does not exist"),
        ({"stem": 4.5}, r"config\.model\.stem=4\.5 is not allowed"),
        ({"output": None}, r"config\.model\.output=None is not allowed"),
        ({"dtype": "int8"}, r"config\.model\.dtype='int8' is not allowed"),
    ],
)
def test_wrong_fields_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        build(section("ResNet") | change)


def test_patches_must_tile_the_image():
    model = baselines.ViT(PooledClassification(5), patch=5, width=8, depth=1, num_heads=2)
    with pytest.raises(ValueError, match=r"config\.model\.patch=5 does not divide"):
        jax.eval_shape(lambda: model.init(jax.random.key(0), images(1, 8), train=False))


def test_a_second_trunk_hears():
    """Its parameters are those of the first and new ones; a change of the sound is a change."""
    model = build(section("ResNetWithSound", widths=(4, 8), blocks=(1, 1), sound_widths=(4, 8)))
    batch = images(2, 8, audio=np.random.default_rng(1).normal(size=(2, 1024)).astype(np.float32))
    variables = jax.jit(lambda key: model.init(key, batch, train=False))(jax.random.key(0))
    alone = build(section("ResNet", widths=(4, 8), blocks=(1, 1)))
    shapes = jax.eval_shape(lambda: alone.init(jax.random.key(0), images(2, 8), train=False))
    new = {name for name in variables["params"] if name.startswith("sound_")}
    assert set(variables["params"]) - new == set(shapes["params"])
    assert variables["params"]["sound_stem_conv"]["kernel"].shape == (3, 129, 4), "along time"
    params = jax.tree.map(lambda x: x + 0.1, variables["params"])  # the head starts at zero
    heard = jax.jit(lambda b: model.apply({**variables, "params": params}, b, train=False))
    assert np.any(heard(batch) != heard(batch | {"audio": 0.1 * batch["audio"]}))
