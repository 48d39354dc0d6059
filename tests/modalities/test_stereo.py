"""Two views in, disparities out: only the input's projection knows the second view."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_jax import flops
from perceiver_jax.attention import cost
from perceiver_jax.build import build as build_model
from perceiver_jax.modalities import stereo

SHAPE = (4, 6)
DISPARITY = {"module": "stereo.Disparity", "shape": SHAPE}
CLASSES = {"module": "label.Classification", "num_classes": 5, "query_channels": 8}


def build(kind="StackedEyes", output=DISPARITY, **fields):
    spec = {
        "dtype": "float32",
        "input": {"module": f"stereo.{kind}", "channels": 8, "num_bands": 2, **fields},
        "encoder": {
            "num_latents": 3,
            "latent_channels": 8,
            "num_blocks": 1,
            "num_self_attends_per_block": 1,
            "num_self_attend_heads": 2,
        },
        "decoder": {"module": "Decoder", "query_residual": False},
        "output": output,
    }
    return build_model(spec)


def frames(count=2):
    return {"frames": jax.random.normal(jax.random.key(1), (count, 2, *SHAPE, 3))}


def shapes(model):
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), frames(), train=False))
    leaves, _ = jax.tree_util.tree_flatten_with_path(variables["params"])
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x.shape for path, x in leaves}


@pytest.fixture(scope="module")
def stacked():
    model = build()
    variables = jax.jit(lambda: model.init(jax.random.key(0), frames(), train=False))()
    variables["params"]["output"]["disparity"]["kernel"] += 0.1  # zero at the start
    return jax.jit(model.apply, static_argnames=("train", "method")), variables


@pytest.mark.parametrize("output", [DISPARITY, CLASSES], ids=["disparity", "classes"])
def test_one_view_and_two_are_one_architecture(output):
    image, pair = shapes(build(eyes="left", output=output)), shapes(build(output=output))
    assert image.keys() == pair.keys()
    different = {name for name in image if image[name] != pair[name]}
    assert different == {"input/project/kernel"}
    assert (image["input/project/kernel"], pair["input/project/kernel"]) == ((27, 8), (54, 8))
    assert shapes(build(eyes="left_twice", output=output)) == pair
    separate = shapes(build("SeparateEyes", output=output))
    assert separate.keys() - image.keys() == {"input/eye_left", "input/eye_right"}
    assert separate["input/project/kernel"] == (27, 8)


def test_wider_patches_widen_the_projection_alone():
    narrow, wide = shapes(build()), shapes(build(patch=(1, 7)))
    different = {name for name in narrow if narrow[name] != wide[name]}
    assert different == {"input/project/kernel"}
    assert wide["input/project/kernel"] == (42, 8)
    assert shapes(build("SeparateEyes", patch=(1, 7)))["input/project/kernel"] == (21, 8)


@pytest.mark.parametrize("kind", ["StackedEyes", "SeparateEyes"])
@pytest.mark.parametrize("eyes", ["both", "left", "left_twice"])
def test_controls_do_not_see_the_right_view(kind, eyes):
    module = getattr(stereo, kind)(channels=8, num_bands=2, eyes=eyes)
    batch = frames()

    @jax.jit
    def content(change):
        frames = {"frames": batch["frames"] + change}
        tokens, _ = module.init_with_output(jax.random.key(0), frames, train=False)
        return jnp.concatenate([x.ravel() for x in jax.tree.leaves(tokens)])

    one = jnp.zeros((1, 2, 1, 1, 1))
    assert not np.allclose(content(one), content(one.at[:, 0].set(1.0)))
    sees = not np.allclose(content(one), content(one.at[:, 1].set(1.0)))
    assert sees == (eyes == "both")


def test_separate_eyes_are_two_sets_that_differ_by_their_code():
    module = stereo.SeparateEyes(channels=8, num_bands=2, eyes="left_twice")
    tokens, _ = module.init_with_output(jax.random.key(0), frames(), train=False)
    left, right = tokens["left"], tokens["right"]
    np.testing.assert_array_equal(left.content, right.content)
    assert left.width == right.width == 8 + 10 + 8
    assert not np.allclose(left.padding, right.padding)


def test_separate_eyes_answer_for_the_left_view():
    model = build("SeparateEyes")
    shape = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), frames(), train=False)[0]
    ).shape
    assert shape == (2, *SHAPE, 1)


def test_disparity_is_in_pixels_and_starts_at_zero(stacked):
    apply, variables = stacked
    result = apply(variables, frames(), train=False)
    assert result.shape == (2, *SHAPE, 1) and np.any(result)
    answers = jnp.ones((1, 24, 1))
    once, double = stereo.Disparity(shape=SHAPE), stereo.Disparity(shape=SHAPE, scale=0.4)
    np.testing.assert_allclose(double.apply({}, answers), 2 * once.apply({}, answers), rtol=1e-5)
    start = once.init(jax.random.key(0), 7, method="head")
    assert not np.any(start["params"]["disparity"]["kernel"])


def test_chosen_pixels_are_those_of_the_whole(stacked):
    """The same of every example, or of each its own; given as an argument or by the batch."""
    apply, variables = stacked
    whole = np.asarray(apply(variables, frames(), train=False)).reshape(2, 24, 1)
    same = apply(variables, frames(), train=False, indices=jnp.array([23, 5]))
    np.testing.assert_allclose(same, whole[:, [23, 5]], atol=1e-6)
    own = np.array([[3, 20], [11, 0]])
    expected = np.take_along_axis(whole, own[..., None], axis=1)
    assert np.abs(expected - whole[:, [3, 20]]).max() > 1e-4
    for arguments in ({"indices": own}, {}):
        batch = frames() | ({} if arguments else {"indices": own})
        part = apply(variables, batch, train=False, **arguments)
        np.testing.assert_allclose(part, expected, atol=1e-6)


def test_fourier_queries_are_places_alone():
    module = stereo.Disparity(shape=SHAPE, num_bands=3)
    queries = module.queries(None)
    assert queries.content is None and (queries.num_tokens, queries.width) == (24, 14)
    own = module.queries(None, jnp.array([[1, 2], [3, 4]]))
    np.testing.assert_array_equal(own.content[1, 0], queries.position.table()[3])


def test_errors_are_named():
    batch = frames()
    init = lambda model, batch: jax.eval_shape(  # noqa: E731
        lambda: model.init(jax.random.key(0), batch, train=False)
    )
    with pytest.raises(ValueError, match=r"eyes='right' is not allowed: write 'both' or 'left'"):
        init(build(eyes="right"), batch)
    with pytest.raises(ValueError, match=r"must be \[B, 2, H, W, C\], got \(2, 1, 4, 6, 3\)"):
        init(build(), {"frames": batch["frames"][:, :1]})
    with pytest.raises(ValueError, match=r"20 answers are no frame of output.shape=\(4, 6\)"):
        init(build(), {"frames": batch["frames"][:, :, :, :5]})


@pytest.mark.parametrize("kind", ["StackedEyes", "SeparateEyes"])
def test_textbook_flops(kind):
    model, batch = build(kind), frames(1)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), batch, train=False))
    run = lambda v, b: model.apply(v, b, train=False)  # noqa: E731
    with cost.forced("dense"):
        assert flops.textbook(model, batch) == flops.executed(run, variables, batch)
