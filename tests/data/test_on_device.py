"""Device-side preparation: what the targets weigh is what the pixels show."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from configs import common
from perceiver_jax import mesh
from perceiver_jax.data import on_device
from perceiver_jax.train import sharding

BATCH, SIDE = 16, 12
mix = jax.jit(on_device.mix)  # compiled once for each shape


@pytest.fixture
def solid():
    """Example i is an image of the one value i, with target one_hot(i): pixels tell the origin."""
    image = jnp.broadcast_to(jnp.arange(BATCH).reshape(-1, 1, 1, 1), (BATCH, SIDE, SIDE, 3))
    return image.astype(jnp.float32), jax.nn.one_hot(jnp.arange(BATCH), BATCH)


def test_normalize_is_per_channel_in_float32():
    image = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    got = on_device.normalize(jnp.asarray(image))
    want = (image.astype(np.float64) - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, atol=1e-5)
    with pytest.raises(ValueError, match="3 channels, but 1 means"):
        on_device.normalize(jnp.asarray(image), (1.0,), (1.0,))


def test_smoothing_moves_a_tenth_to_all_classes():
    got = on_device.smooth_targets(jnp.array([2, 0]), 4, 0.1)
    np.testing.assert_allclose(got, [[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]])
    np.testing.assert_array_equal(on_device.smooth_targets(jnp.array([1]), 2), [[0.0, 1.0]])


def test_targets_weigh_what_the_pixels_show(solid):
    image, target = mix(*solid, jax.random.key(0), 0.2)
    np.testing.assert_allclose(target.sum(1), 1.0, atol=1e-6)
    # Solid images: the mean pixel is the mean of the origins, weighted as the target says.
    origin = np.arange(BATCH)
    partner = np.roll(origin, -1)
    weight = np.asarray(target)[origin, origin]
    np.testing.assert_allclose(np.asarray(target)[origin, partner], 1 - weight, atol=1e-6)
    want = weight * origin + (1 - weight) * partner
    np.testing.assert_allclose(image.mean((1, 2, 3)), want, atol=1e-4)


def test_first_half_blends_and_second_half_pastes_one_box(solid):
    image, _ = mix(*solid, jax.random.key(1), 5.0)
    image = np.asarray(image)
    for i in range(BATCH // 2):
        assert len(np.unique(image[i])) == 1
        assert i < image[i, 0, 0, 0] < i + 1
    shapes = set()
    for i in range(BATCH // 2, BATCH):
        own = image[i, ..., 0] == i
        assert np.all(own | (image[i, ..., 0] == (i + 1) % BATCH))
        rows, columns = own.any(1), own.any(0)
        np.testing.assert_array_equal(own, np.outer(rows, columns))  # a rectangle
        assert np.diff(np.flatnonzero(rows)).max(initial=1) == 1
        shapes.add((rows.sum(), columns.sum()))
    assert len(shapes) > 3


def test_alpha_sets_how_far_mixup_goes():
    batch = 4000
    image, target = jnp.zeros((batch, 1, 1, 1)), jax.nn.one_hot(jnp.arange(batch) % 2, 2)
    for alpha in (0.2, 2.0):
        _, mixed = mix(image, target, jax.random.key(2), alpha)
        weight = np.asarray(mixed)[np.arange(batch), np.arange(batch) % 2][: batch // 2]
        # Var Beta(a, a) = 1 / (4 (2 a + 1))
        np.testing.assert_allclose(weight.var(), 1 / (4 * (2 * alpha + 1)), rtol=0.1)
        np.testing.assert_allclose(weight.mean(), 0.5, atol=0.03)


def test_cutmix_box_area_is_as_in_the_official_code():
    batch, side = 2000, 32
    image = jnp.ones((batch, side, side, 1)).at[1::2].set(0.0)
    target = jax.nn.one_hot(jnp.arange(batch) % 2, 2)
    _, mixed = mix(image, target, jax.random.key(3), 0.2)
    got = np.asarray(mixed)[np.arange(batch), np.arange(batch) % 2][batch // 2 :]
    rng, want = np.random.default_rng(0), []
    for _ in range(20000):
        length = int(np.sqrt(1 - rng.random()) * side)
        cx, cy = rng.integers(0, side, 2)
        spans = [np.clip([c - length // 2, c + length // 2], 0, side) for c in (cx, cy)]
        want.append(np.prod([high - low for low, high in spans]) / side**2)
    quantiles = [0.1, 0.25, 0.5, 0.75, 0.9]
    np.testing.assert_allclose(np.quantile(got, quantiles), np.quantile(want, quantiles), atol=0.03)


def test_mix_is_a_function_of_the_key(solid):
    first = mix(*solid, jax.random.key(4), 0.2)
    jax.tree.map(np.testing.assert_array_equal, first, mix(*solid, jax.random.key(4), 0.2))
    assert not np.allclose(first[1], mix(*solid, jax.random.key(5), 0.2)[1])


def test_mix_of_a_sharded_batch_is_the_same(solid):
    """And no device waits for others in the loops that draw the weights."""
    layout = sharding.make_layout(common.parallel())
    rows = NamedSharding(layout.mesh, PartitionSpec("data"))

    def on_layout(*args):
        with mesh.use_layout(layout):
            return on_device.mix(*args)

    arrays = *jax.device_put(solid, rows), jax.random.key(6)
    mixed = jax.jit(on_layout, in_shardings=(rows, rows, None), out_shardings=(rows, rows))
    mixed = mixed.lower(*arrays).compile()
    want = mix(*solid, jax.random.key(6))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), mixed(*arrays), want)
    assert jax.device_count() > 1 and "all-reduce" not in mixed.as_text()


def test_mix_takes_other_partners(solid):
    """The next of the batch by default, given ones else; the weights stay."""
    image, target = solid
    rolled = np.roll(image, -1, axis=0), np.roll(target, -1, axis=0)
    want = mix(image, target, jax.random.key(6), 0.2)
    got = mix(image, target, jax.random.key(6), 0.2, rolled)
    jax.tree.map(np.testing.assert_array_equal, got, want)
    other = np.full_like(image, 77), np.zeros_like(target)
    mixed, share = mix(image, target, jax.random.key(6), 0.2, other)
    assert np.asarray(share).sum() < len(image)  # what is lost to partners without a class
    assert np.abs(np.asarray(mixed) - want[0]).max() > 1


def test_several_labels_share_a_target():
    ids = jnp.array([[1, 3, -1], [2, -1, -1], [-1, -1, -1]])
    target = on_device.several_targets(ids, 4)
    np.testing.assert_allclose(target, [[0, 0.5, 0, 0.5], [0, 0, 1, 0], [0, 0, 0, 0]])
    smooth = on_device.several_targets(ids, 4, 0.2)
    np.testing.assert_allclose(smooth[0], [0.05, 0.45, 0.05, 0.45], rtol=1e-6)
    alone = on_device.several_targets(ids[1:2], 4, 0.2)
    np.testing.assert_allclose(alone, on_device.smooth_targets(jnp.array([2]), 4, 0.2), rtol=1e-6)
