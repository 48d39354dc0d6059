"""Points: order and padding change nothing, also over 8 devices; coordinates become features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from configs import points as configs
from perceiver_jax import mesh
from perceiver_jax.build import build
from perceiver_jax.data import parse
from perceiver_jax.modalities.points import Points, fourier_features
from perceiver_jax.position import Fourier
from perceiver_jax.train import sharding


@pytest.fixture(scope="module")
def model():
    """A tiny model of normals beside points; its logits, and gradients by points and weights."""
    spec = configs.get_config("shapes:tiny").model.to_dict()
    spec["input"]["channels"] = ("normal",)
    model = build(spec)
    x = jax.random.uniform(jax.random.key(0), (2, 12, 6), minval=-1, maxval=1)
    size = jnp.array([[12], [7]])
    batch = {"points": x[..., :3], "normal": x[..., 3:], "points_mask": jnp.arange(12)[None] < size}
    variables = jax.jit(lambda: model.init(jax.random.key(1), batch, train=False))()

    def gradient(fields, mask):
        def loss(variables, fields):
            logits = model.apply(variables, {**fields, "points_mask": mask}, train=False)
            return jnp.sum(jnp.sin(logits)), logits

        grads, logits = jax.grad(loss, (0, 1), has_aux=True)(variables, fields)
        return logits, *grads

    def on_batches(run):
        def run_batch(batch):
            fields = {name: batch[name] for name in ("points", "normal")}
            return run(fields, batch["points_mask"])

        return run_batch

    return on_batches(jax.jit(gradient)), batch, on_batches(jax.jit(spread(gradient)))


def spread(function):
    """The function on 8 devices, of which 4 share the points of each cloud."""
    section = common.parallel()
    section.update({"model": 4, "shard_inputs": True})
    layout = sharding.make_layout(section, jax.devices()[:8])

    def on_devices(*arguments):
        with mesh.use_layout(layout):
            return function(*arguments)

    return on_devices


def close(a, b):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), a, b)


def test_the_order_of_points_does_not_matter(model):
    run, batch, _ = model
    order = np.random.default_rng(0).permutation(12)
    logits, by_weights, by_fields = run(batch)
    found = run({name: x[:, order] for name, x in batch.items()})
    close(found[:2], (logits, by_weights))
    close(found[2], {name: x[:, order] for name, x in by_fields.items()})
    moved = run(batch | {"normal": batch["normal"][:, order]})  # away from their points
    assert np.abs(moved[0] - logits).max() > 1e-4


def test_padding_does_not_matter(model):
    """Whatever is in it; the second cloud is as if it had 7 points alone."""
    run, batch, _ = model
    logits, by_weights, by_fields = run(batch)
    other = {name: x.at[1, 7:].set(0.3) for name, x in batch.items() if name != "points_mask"}
    close(run(batch | other), (logits, by_weights, by_fields))
    assert not any(np.any(x[1, 7:]) for x in by_fields.values())
    assert all(np.any(x[1, :7]) for x in by_fields.values())


@pytest.mark.slow
def test_points_over_eight_devices_in_another_order(model):
    run, batch, spread = model
    order = np.random.default_rng(0).permutation(12)
    logits, by_weights, by_fields = run(batch)
    padded = {name: x.at[1, 7:].set(0.3) for name, x in batch.items() if name != "points_mask"}
    found = spread({name: x[:, order] for name, x in (batch | padded).items()})
    close(found[:2], (logits, by_weights))
    close(found[2], {name: x[:, order] for name, x in by_fields.items()})


def test_features_are_those_of_a_grid_at_its_points():
    grid = Fourier((3, 5), 6, (8, 2240))
    y, x = jnp.meshgrid(jnp.linspace(-1, 1, 3), jnp.linspace(-1, 1, 5), indexing="ij")
    points = jnp.stack([y, x], axis=-1).reshape(1, 15, 2)
    found = fourier_features(points, 6, (8, 2240))
    np.testing.assert_allclose(found[0], grid.table(), atol=5e-4)
    assert fourier_features(points.astype(jnp.bfloat16), 6, (8, 8)).dtype == jnp.float32
    np.testing.assert_array_equal(fourier_features(points, 0, (8, 8)), points)
    with pytest.raises(
        ValueError, match=r"max_resolution=\(8,\) needs one value for each of the 2"
    ):
        fourier_features(points, 6, (8,))


def test_the_papers_input_and_model():
    """3 (2 x 64 + 1) = 387 channels up to a frequency of 1,120; no size is printed."""
    config = configs.get_config("modelnet40")
    batch = {"points": jnp.zeros((1, 2048, 3)), "points_mask": jnp.ones((1, 2048), bool)}
    tokens = jax.eval_shape(lambda: Points().apply({}, batch, train=False))
    assert tokens.content.shape == (1, 2048, 387)
    assert config.model.input.max_resolution == (2 * 1120,) * 3
    model = build(config.model.to_dict())
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), batch, train=False))
    assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == 44_772_202


def test_a_training_line_of_the_paper_gives_points_in_the_unit_cube():
    line = parse(configs.get_config("modelnet40").data.train)
    cloud = {"points": np.random.default_rng(0).normal(size=(2500, 3)), "label": 3}
    found = line(cloud, np.random.default_rng(0))
    assert found["points"].shape == (2048, 3) and np.abs(found["points"]).max() == 1
    assert found["points_mask"].all() and set(found) == {"points", "points_mask", "label"}
