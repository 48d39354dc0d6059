"""Attention maps: by cross-attend and modality, every weight in its place of the input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import imagenet
from perceiver_jax import pretrained
from perceiver_jax.build import build
from perceiver_jax.maps import attention_maps, on_grid
from perceiver_jax.position import Fourier
from perceiver_jax.tokens import Tokens


def images(variant, encoder=(), **input_fields):
    spec = imagenet.get_config(f"{variant}:tiny").model.to_dict()
    sections = {"input": input_fields, "encoder": dict(encoder)}
    model = build(spec | {name: spec[name] | fields for name, fields in sections.items()})
    batch = {"image": jax.random.normal(jax.random.key(0), (2, 32, 32, 3))}
    return model, model.init(jax.random.key(1), batch, train=False), batch


def test_pixels_are_shaped_like_the_image_and_sum_to_one():
    model, variables, batch = images("fourier")
    maps = attention_maps(model, variables, batch)
    assert list(maps) == ["cross_attend"] and list(maps["cross_attend"]) == ["input"]
    weights = maps["cross_attend"]["input"]
    heads, latents = model.encoder.num_cross_attend_heads, model.encoder.num_latents
    assert weights.shape == (2, heads, latents, 32, 32)
    np.testing.assert_allclose(weights.sum((-2, -1)), 1.0, atol=1e-5)


def test_a_pixel_that_is_looked_at_is_where_it_is_in_the_image():
    """The weights at a place change most where the image does."""
    model, variables, batch = images("fourier")
    changed = {"image": batch["image"].at[:, 3, 20].add(10.0)}
    before, after = (attention_maps(model, variables, b) for b in (batch, changed))
    moved = abs(after["cross_attend"]["input"] - before["cross_attend"]["input"]).sum((0, 1, 2))
    assert np.unravel_index(moved.argmax(), moved.shape) == (3, 20)


def test_permuted_pixels_are_put_back():
    """The permuted tokens are the same set, so the maps are those of the image as it is."""
    model, variables, batch = images("fourier")
    permuted, _, _ = images("fourier", permutation_seed=5)
    for name, parts in attention_maps(model, variables, batch).items():
        found = attention_maps(permuted, variables, batch)[name]["input"]
        np.testing.assert_allclose(found, parts["input"], atol=1e-6)


def test_every_use_of_a_shared_cross_attend_has_its_map():
    count = 3
    encoder = {"num_cross_attends": count, "num_blocks": count, "share_weights": True}
    model, variables, batch = images("perceiver", encoder)
    maps = attention_maps(model, variables, batch)
    assert list(maps) == ["cross_attend", *(f"cross_attend_{i}" for i in range(1, count))]
    first, *_, last = (parts["input"] for parts in maps.values())
    assert np.abs(first - last).max() > 1e-6


@pytest.mark.parametrize(("variant", "grid"), [("learned", (1024,)), ("conv", (8, 8))])
def test_other_inputs_have_the_shape_of_their_tokens(variant, grid):
    model, variables, batch = images(variant)
    assert attention_maps(model, variables, batch)["cross_attend"]["input"].shape[3:] == grid


def test_modalities_are_apart_and_sum_to_one_together():
    small = {"num_frames": 2, "image_size": 8, "samples_per_frame": 64, "num_classes": 5}
    model = pretrained.released("kinetics", num_latents=4, latent_channels=8, **small).build()
    batch = {
        "video": jax.random.normal(jax.random.key(0), (2, 2, 8, 8, 3)),
        "audio": jax.random.normal(jax.random.key(1), (2, 128)),
        "label": jnp.zeros(2, jnp.int32),
    }
    variables = jax.jit(model.init, static_argnames="train")(jax.random.key(2), batch, train=False)
    maps = attention_maps(model, variables, batch)["cross_attend"]
    shapes = {name: x.shape[3:] for name, x in maps.items()}
    assert shapes == {"audio": (8,), "label": (1,), "video": (2, 2, 2)}
    total = sum(x.sum(tuple(range(3, x.ndim))) for x in maps.values())
    np.testing.assert_allclose(total, 1.0, atol=1e-5)


def test_places_without_a_token_are_zero():
    position = Fourier((2, 3), 1, indices=jnp.array([4, 0]))
    tokens = Tokens(content=jnp.zeros((1, 2, 1)), position=position)
    found = on_grid(jnp.array([0.25, 0.75]).reshape(1, 1, 1, 2), tokens)
    np.testing.assert_array_equal(found[0, 0, 0], [[0.75, 0, 0], [0, 0.25, 0]])
