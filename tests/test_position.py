"""Fourier grids and learned tables."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perceiver_jax import position
from perceiver_jax.position import Fourier, Table
from perceiver_jax.tokens import Tokens


def brute_force(shape, bands, resolution):
    """Point by point, channel by channel, in float64."""
    rows = []
    for point in np.ndindex(*shape):
        p = [-1 + 2 * i / (n - 1) if n > 1 else -1.0 for i, n in zip(point, shape, strict=True)]
        sines, cosines = [], []
        for coordinate, rate in zip(p, resolution, strict=True):
            for f in np.linspace(1, rate / 2, bands):
                sines.append(np.sin(np.pi * f * coordinate))
                cosines.append(np.cos(np.pi * f * coordinate))
        rows.append([*p, *sines, *cosines])
    return np.array(rows)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=3), st.integers(1, 5), st.booleans())
def test_fourier_table_is_its_definition(shape, bands, own_resolution):
    resolution = tuple(shape) if own_resolution else tuple(7 * n for n in shape)
    position = Fourier(tuple(shape), bands, () if own_resolution else resolution)
    expected = brute_force(shape, bands, resolution)
    assert expected.shape == (position.num_tokens, position.width)
    np.testing.assert_allclose(position.table(), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "bands", "width"),
    [((224, 224), 64, 258), ((16, 56, 56), 32, 195), ((1920,), 192, 385)],
)
def test_widths_of_the_released_models(shape, bands, width):
    assert Fourier(shape, bands).width == width


def test_wrong_number_of_resolutions_is_named():
    with pytest.raises(ValueError, match="max_resolution"):
        Fourier((4, 4), 2, (4,)).table()


@pytest.mark.parametrize(
    "position",
    [Fourier((3, 4), 2), Table(jnp.arange(24.0).reshape(12, 2))],
    ids=["fourier", "table"],
)
def test_take_picks_rows_in_order_and_composes(position):
    first, second = jnp.array([7, 0, 11, 3]), jnp.array([2, 2, 1])
    taken = position.take(first)
    assert taken.num_tokens == 4
    np.testing.assert_allclose(taken.table(), position.table()[first], atol=1e-6)
    np.testing.assert_allclose(taken.take(second).table(), taken.table()[second], atol=1e-6)


def test_tokens_concatenate_content_and_position():
    content = jax.random.normal(jax.random.key(0), (2, 6, 3))
    tokens = Tokens(content=content, position=Fourier((2, 3), 4), mask=jnp.ones((2, 6), bool))
    dense = tokens.dense(jnp.float32)
    assert dense.shape == (2, 6, tokens.width) == (2, 6, 3 + 18)
    np.testing.assert_array_equal(dense[..., :3], content)
    np.testing.assert_array_equal(dense[1, :, 3:], tokens.position.table())
    order = jnp.array([5, 1])
    np.testing.assert_allclose(tokens.take(order).dense(jnp.float32), dense[:, order], atol=1e-6)


@pytest.mark.parametrize("shared", [False, True], ids=["own content", "one content for all"])
def test_each_example_can_take_tokens_of_its_own(shared):
    content = jax.random.normal(jax.random.key(0), (1 if shared else 2, 6, 3))
    mask = jnp.arange(12).reshape(2, 6) % 3 > 0
    tokens = Tokens(content, Fourier((2, 3), 1), mask, padding=jnp.array([7.0]))
    indices = jnp.array([[5, 1, 1], [0, 2, 4]])
    taken, whole = tokens.take(indices), np.asarray(tokens.dense(jnp.float32))
    assert (taken.num_tokens, taken.width) == (3, tokens.width)
    for i, chosen in enumerate(np.asarray(indices)):
        expected = whole[0 if shared else i, chosen]
        np.testing.assert_array_equal(taken.dense(jnp.float32)[i], expected)
        np.testing.assert_array_equal(taken.mask[i], mask[i, chosen])


def test_tokens_need_something():
    with pytest.raises(ValueError, match="content, position or both"):
        Tokens()


@pytest.mark.parametrize("endpoint", [True, False])
def test_a_long_axis_is_made_of_two_short_ones(monkeypatch, endpoint):
    """As exactly, at the highest band of a long axis too; the program holds no such constant."""
    grid = Fourier((20_011,), 5, endpoint=endpoint)
    (expected,) = grid.axes()
    np.testing.assert_allclose(jax.jit(grid.table)(), expected, atol=3e-7)
    text = jax.jit(grid.table).lower().as_text()
    assert len(text) < 100_000
    monkeypatch.setattr(position, "MAX_DENSE_POINTS", 10**9)
    assert len(jax.jit(functools.partial(grid.table)).lower().as_text()) > 100_000
