"""Classes of images: the preparation's offsets, the model's answer, other sizes."""

import jax
import numpy as np
import pytest
from small_models import apply, model

from configs import imagenet
from perceiver_jax import files, inference, pretrained
from perceiver_jax.build import build
from perceiver_jax.data import transforms
from perceiver_jax.inference import images

MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])


def pictures(*sizes):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


@pytest.mark.parametrize(
    ("height", "width", "side", "top", "left"),
    [(101, 77, 67, 17, 5), (64, 100, 56, 4, 22), (9, 8, 7, 1, 1), (224, 225, 196, 14, 15)],
)
def test_crop(height, width, side, top, left):
    """Resizing to the crop's own size changes nothing, so the crop itself is seen."""
    (image,) = pictures((height, width))
    expected = image[top : top + side, left : left + side]
    np.testing.assert_array_equal(images.prepare(image, side), expected)


@pytest.mark.parametrize("name", ["imagenet_learned", "imagenet_fourier", "imagenet_conv"])
def test_classes_are_the_models(name):
    perceiver, variables = model(name)
    given = pictures((40, 50), (60, 37), (32, 32))
    result = inference.classify(perceiver, variables, given, k=4, batch_size=2)
    assert images.image_size(perceiver, variables) == 32
    prepared = np.stack([images.prepare(image, 32) for image in given])
    batch = {"image": ((prepared - MEAN) / STD).astype(np.float32)}
    chances = np.asarray(jax.nn.softmax(apply(perceiver, variables, batch)))
    for i, chance in enumerate(chances):
        best = np.argsort(-chance)[:4]
        assert result.classes[i].tolist() == best.tolist()
        np.testing.assert_allclose(result.probabilities[i], chance[best], rtol=1e-3)
    assert len({tuple(c) for c in result.probabilities.tolist()}) == 3, "the images matter"


@pytest.mark.parametrize("name", ["imagenet_fourier", "imagenet_conv"])
def test_native_size(name):
    perceiver, variables = model(name)
    given = pictures((24, 40), (33, 30))
    result = inference.classify(perceiver, variables, given, k=1, native_size=True)
    for i, image in enumerate(given):
        batch = {"image": ((image - MEAN) / STD).astype(np.float32)[None]}
        chance = np.asarray(jax.nn.softmax(apply(perceiver, variables, batch)))[0]
        assert result.classes[i, 0] == chance.argmax()
        np.testing.assert_allclose(result.probabilities[i, 0], chance.max(), rtol=1e-3)


def test_refusals(tmp_path):
    (image,) = pictures((40, 50))
    with pytest.raises(ValueError, match="native_size=True needs Fourier"):
        inference.classify(*model("imagenet_learned"), [image], native_size=True)
    with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\], got uint8 \[40, 50\]"):
        inference.classify(*model("imagenet_fourier"), [image[..., 0]])
    with pytest.raises(ValueError, match="no images"):
        inference.classify(*model("imagenet_fourier"), [])
    with pytest.raises(ValueError, match="classify needs a model with"):
        inference.classify(*model("language"), [image])
    (tmp_path / "a.png").write_bytes(b"text")
    with pytest.raises(ValueError, match="no readable image"):
        files.read_image(tmp_path / "a.png")


def test_images_are_read_as_rgb(tmp_path):
    (image,) = pictures((4, 5))
    files.write_image(tmp_path / "a.png", image)
    np.testing.assert_array_equal(files.read_image(tmp_path / "a.png"), image)


@pytest.mark.parametrize("variant", ["fourier", "conv"])
def test_evaluation_and_prediction_agree_at_another_size(variant):
    """The positions are those of the released size in both, so equal weights give equal logits."""
    released_model, variables = model(f"imagenet_{variant}", num_bands=4)
    config = imagenet.get_config(f"{variant}:tiny").model.to_dict()
    config["encoder"]["num_blocks"] = released_model.encoder.num_blocks
    evaluated = build(config)
    image = ((pictures((48, 48))[0] - MEAN) / STD).astype(np.float32)[None]  # trained at 32
    ours = apply(evaluated, variables, {"image": image})
    expected = apply(released_model, variables, {"image": image})
    np.testing.assert_array_equal(ours, expected)
    full = build(imagenet.get_config(variant).model.to_dict())
    released = pretrained.released(f"imagenet_{variant}").build()
    assert full.input.max_resolution == tuple(released.input.max_resolution)


@pytest.mark.parametrize("shape", [(300, 411), (96, 90)])
def test_an_image_is_prepared_as_the_evaluation_does(shape):
    evaluate = imagenet.get_config("fourier").data.eval.removeprefix("decode | ")
    pipeline = transforms.parse(evaluate)
    (image,) = pictures(shape)
    example = pipeline({"image": image, "label": np.int32(0)}, np.random.default_rng(0))
    np.testing.assert_array_equal(images.prepare(image, 224), example["image"])
