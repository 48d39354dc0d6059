"""Two frames in, displacements out."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_jax import flops, pretrained
from perceiver_jax.attention import cost
from perceiver_jax.modalities import flow

SMALL = pretrained.released(
    "flow",
    height=4,
    width=6,
    num_bands=2,
    num_latents=4,
    latent_channels=8,
    num_self_attends_per_block=1,
    num_self_attend_heads=2,
)


@pytest.fixture(scope="module")
def small():
    model = SMALL.build()
    batch = {"frames": jax.random.normal(jax.random.key(1), (2, 2, 4, 6, 3))}
    variables = jax.jit(lambda: model.init(jax.random.key(0), batch, train=False))()
    variables["params"]["output"]["flow"]["kernel"] += 0.1  # zero at the start
    return jax.jit(model.apply, static_argnames=("train", "method")), batch, variables


@pytest.mark.parametrize("patch", [(3, 3), (1, 5)])
def test_patches_have_zeros_outside(patch):
    image = np.random.default_rng(0).normal(size=(2, 4, 5, 3)).astype(np.float32)
    patches = np.asarray(flow.stack_patches(jnp.asarray(image[:, None]), patch))
    assert patches.shape == (2, 4, 5, 3 * math.prod(patch))
    for y, x in np.ndindex(4, 5):
        for i, (dy, dx) in enumerate(np.ndindex(*patch)):
            r, c = y + dy - patch[0] // 2, x + dx - patch[1] // 2
            inside = 0 <= r < 4 and 0 <= c < 5
            expected = image[:, r, c] if inside else np.zeros((2, 3))
            np.testing.assert_array_equal(patches[:, y, x, 3 * i : 3 * i + 3], expected)


def test_a_patch_has_a_pixel_in_its_middle():
    with pytest.raises(ValueError, match=r"patch=\(3, 2\): its sides are odd"):
        flow.stack_patches(jnp.zeros((1, 1, 4, 5, 3)), (3, 2))


def test_the_first_frame_comes_first(small):
    apply, batch, variables = small
    kernel = variables["params"]["input"]["project"]["kernel"]
    assert kernel.shape == (54, 64)
    second = kernel.at[:27].set(0)
    variables = jax.tree.map(lambda x: second if x is kernel else x, variables)
    change = {"frames": batch["frames"].at[:, 0].add(1.0)}

    def content(batch):
        return apply(variables, batch, train=False, method="encode")[0].content

    np.testing.assert_array_equal(content(batch), content(change))
    other = {"frames": batch["frames"].at[:, 1].add(1.0)}
    assert not np.allclose(content(batch), content(other))


def test_flow_is_in_pixels_and_starts_at_zero(small):
    apply, batch, variables = small
    result = apply(variables, batch, train=False)
    assert result.shape == (2, 4, 6, 2) and np.any(result)
    once, double = flow.Flow(shape=(4, 6)), flow.Flow(shape=(4, 6), scale=0.4)
    answers = jnp.ones((1, 24, 2))
    np.testing.assert_allclose(double.apply({}, answers), 2 * once.apply({}, answers), rtol=1e-5)
    assert once.scale == pytest.approx(0.2)
    start = once.init(jax.random.key(0), 7, method="head")
    assert not np.any(start["params"]["flow"]["kernel"])


def test_chosen_pixels_are_those_of_the_whole(small):
    run, batch, variables = small
    whole = run(variables, batch, train=False).reshape(2, 24, 2)
    indices = jnp.array([23, 5, 0])
    part = run(variables, batch, train=False, indices=indices)
    np.testing.assert_allclose(part, whole[:, indices], atol=1e-5)


def test_wrong_frames_are_named(small):
    apply, batch, variables = small
    run = functools.partial(apply, variables, train=False)
    with pytest.raises(ValueError, match=r"must be \[B, 2, H, W, C\], got \(2, 1, 4, 6, 3\)"):
        jax.eval_shape(run, {"frames": batch["frames"][:, :1]})
    with pytest.raises(ValueError, match=r"20 answers are no frame of output.shape=\(4, 6\)"):
        jax.eval_shape(run, {"frames": batch["frames"][:, :, :, :5]})


def test_textbook_flops():
    model, variables = SMALL.build(), SMALL.shapes
    run = lambda v, b: model.apply(v, b, train=False)  # noqa: E731
    batch = dict(SMALL.batch)
    with cost.forced("dense"):
        assert flops.textbook(model, batch) == flops.executed(run, variables, batch)
