"""Digits on grounds that tell their class most of the time: the sea behind the boat.

A ground is a grating times a tint. One of the two, the cue, tells the class of the digit in front
of it with probability `rho`; the other is random. Colour is a first-order cue: any average of
pixels has it. Texture is a second-order one: it lies between pixels. All tints have the same mean
luminance.
"""

import dataclasses
import functools
from typing import Annotated, Literal

import cv2
import numpy as np

from perceiver_jax.conditions import Conditions
from perceiver_jax.config_types import Fraction, Range
from perceiver_jax.datasets.arrays import Arrays
from perceiver_jax.datasets.generated.in_conditions import (
    BLOCK,
    images_in_memory,
    labelled,
    make_examples,
)
from perceiver_jax.datasets.generated.source import check_generated, configured

CONDITIONS = Conditions(
    names=("aligned", "conflict", "object_only", "ground_only", "uncorrelated"),
    gaps={"gap": ("aligned", "conflict")},
    conflict="conflict",
    by_class="conflict",
)
CLASSES = 10
SIZES = {"digits": 16, "mnist": 24}
ORIENTATIONS, PERIODS = 5, (3.2, 6.4)  # pixels
LUMINANCE, AMPLITUDE, NOISE, SATURATION = 0.42, 0.16, 0.05, 0.55
ANGLE_JITTER, PERIOD_JITTER, HUE_JITTER = 0.05, 0.05, 0.015  # radians, share, share of the circle
SHIFT = 1  # pixels
DIGIT_LUMINANCE, OPACITY = 0.95, (0.75, 1.0)


@dataclasses.dataclass(frozen=True)
class Sea:
    """What the source can be asked for.

    Attributes:
      cue: what of a ground tells the class.
      rho: share of the training images whose ground is that of their class; the others' is another
        class's. 0.1 is no correlation.
      images: `digits` (16 x 16 pixels) or TFDS `mnist` (24 x 24).
      per_condition: test images of each condition. They show the same digits.
      control: `grounds` trains on grounds without digits, `labels` with random labels. The others
        reorder the pixels of the grounds, in the test too. `pixels` does it by one order, after
        which a texture tells as much but is not local; `scattered` by one order for each image,
        which leaves nothing of it.
    """

    cue: Literal["colour", "texture"] = "colour"
    rho: Fraction = 0.95
    images: Literal["digits", "mnist"] = "digits"
    per_condition: Annotated[int, Range(1, 100_000)] = 2000
    control: Literal["none", "grounds", "labels", "pixels", "scattered"] = "none"


check_options = functools.partial(check_generated, Sea)


def load(split: str, *, data_dir: str = "", seed: int = 0, **options) -> Arrays:
    """The source `sea`; `options` are those of `Sea`, `data_dir` is TFDS's.

    Splits are `train` (50,000 examples) and `test` (each digit in all conditions in turn), and
    parts of them. The seed decides which ground is whose, and every draw. Training has other digits
    than the test.

    Returns:
      Arrays of `image` uint8 [S, S, 3]; `label`; `ground`, the class whose ground it is, -1 for
      plain grey; `condition`, a position in `conditions.names`.
    """
    sea = configured(Sea, options)
    images = functools.partial(images_in_memory, sea.images, data_dir=data_dir)
    maker = Maker(sea, images(split="test" if split.startswith("test") else "train"), seed)
    return make_examples(
        "sea",
        split,
        seed,
        conditions=CONDITIONS,
        per_condition=sea.per_condition,
        num_classes=CLASSES,
        draw=functools.partial(draw, size=maker.size),
        train=maker.training,
        test=maker.test,
    )


def draw(rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
    """Everything random of a block of images but the pairing of classes with grounds."""
    return {
        "label": rng.integers(CLASSES, size=BLOCK),
        "object": rng.random(BLOCK),  # where in the list of its class's digits
        "shift": rng.integers(2 * SHIFT + 1, size=(BLOCK, 2)),
        "opacity": rng.uniform(*OPACITY, BLOCK),
        "follows": rng.random(BLOCK),  # the ground is that of the class where this is below rho
        "away": rng.integers(1, CLASSES, BLOCK),  # from the class to another one
        "any": rng.integers(CLASSES, size=BLOCK),  # a class
        "free": rng.integers(CLASSES, size=BLOCK),  # number of the tint or grating that is no cue
        "hue": rng.normal(0, HUE_JITTER, BLOCK),
        "angle": rng.normal(0, ANGLE_JITTER, BLOCK),
        "stretch": np.exp(rng.normal(0, PERIOD_JITTER, BLOCK)),
        "phase": rng.uniform(0, 2 * np.pi, BLOCK),
        "noise": rng.normal(0, NOISE, (BLOCK, size, size)),
        "order": rng.random((BLOCK, size**2)),
    }


class Maker:
    """Makes images of what was drawn, for one seed."""

    def __init__(self, sea: Sea, images: Arrays, seed: int):
        self.sea, self.size = sea, SIZES[sea.images]
        rng = np.random.default_rng((seed, 2))
        self.ground_of_class = rng.permutation(CLASSES)
        self.order = rng.permutation(self.size**2)
        masks = np.stack([_enlarged(image, self.size) for image in images.arrays["image"]])
        self.masks = [masks[images.arrays["label"] == k] for k in range(CLASSES)]

    def training(self, drawn: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The training examples of a block."""
        label = ground = drawn["label"]
        if self.sea.control == "grounds":
            return self.examples(drawn, "ground_only", ground)
        other = (label + drawn["away"]) % CLASSES
        ground = np.where(drawn["follows"] < self.sea.rho, label, other)
        examples = self.examples(drawn, "aligned", ground)
        examples["condition"] += ground != label  # in conflict
        if self.sea.control == "labels":
            examples["label"] = drawn["any"].astype(np.int32)
        return examples

    def test(self, drawn: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
        """The test examples of a block, by condition."""
        label = drawn["label"]
        grounds = {
            "aligned": label,
            "conflict": (label + drawn["away"]) % CLASSES,
            "object_only": np.full_like(label, -1),
            "ground_only": label,
            "uncorrelated": drawn["any"],
        }
        return {name: self.examples(drawn, name, ground) for name, ground in grounds.items()}

    def examples(self, drawn, condition: str, ground: np.ndarray) -> dict[str, np.ndarray]:
        """Examples of a condition; `ground` is the class whose ground it is, -1 plain grey."""
        image = self.grounds(drawn, self.ground_of_class[ground])
        image[ground < 0] = LUMINANCE
        if condition != "ground_only":
            weight = (self.digits(drawn) * drawn["opacity"][:, None, None])[..., None]
            image = image * (1 - weight) + DIGIT_LUMINANCE * weight
        return labelled(image, drawn["label"], ground, CONDITIONS.names.index(condition))

    def grounds(self, drawn, cue: np.ndarray) -> np.ndarray:
        """Grounds [N, S, S, 3] in 0..1, `cue` being the number of the tint or of the grating."""
        free = drawn["free"]
        tint, grating = (cue, free) if self.sea.cue == "colour" else (free, cue)
        y, x = np.mgrid[: self.size, : self.size]
        angle = (grating % ORIENTATIONS) * np.pi / ORIENTATIONS + drawn["angle"]
        period = np.array(PERIODS)[grating // ORIENTATIONS] * drawn["stretch"]
        angle, period, phase = (a[:, None, None] for a in (angle, period, drawn["phase"]))
        wave = np.sin(2 * np.pi / period * (np.cos(angle) * x + np.sin(angle) * y) + phase)
        luminance = LUMINANCE + AMPLITUDE * wave + drawn["noise"]
        colour = _colour(tint / CLASSES + drawn["hue"])
        image = luminance[..., None] * colour[:, None, None]
        if self.sea.control not in ("pixels", "scattered"):
            return image
        order = self.order if self.sea.control == "pixels" else drawn["order"].argsort(1)
        pixels = image.reshape(len(image), -1, 3)
        order = np.broadcast_to(order, pixels.shape[:2])[..., None]
        return np.take_along_axis(pixels, order, axis=1).reshape(image.shape)

    def digits(self, drawn) -> np.ndarray:
        """Where the digits are: [N, S, S] in 0..1."""
        masks = np.stack(
            [
                self.masks[label][int(where * len(self.masks[label]))]
                for label, where in zip(drawn["label"], drawn["object"], strict=True)
            ]
        )
        padded = np.pad(masks, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)))
        moved = np.empty_like(masks)
        for down, right in np.ndindex(2 * SHIFT + 1, 2 * SHIFT + 1):
            chosen = (drawn["shift"] == (down, right)).all(1)
            moved[chosen] = padded[chosen, down : down + self.size, right : right + self.size]
        return moved


def _enlarged(image: np.ndarray, size: int) -> np.ndarray:
    """A digit uint8 [h, w, 1] at another size, float32 in 0..1."""
    larger = size > len(image)
    method = cv2.INTER_CUBIC if larger else cv2.INTER_AREA
    return cv2.resize(np.float32(image) / 255, (size, size), interpolation=method).clip(0, 1)


def _colour(hue: np.ndarray) -> np.ndarray:
    """RGB [N, 3] of hues in 0..1, of mean 1: HSV with the saturation of all grounds."""
    k = (np.array([5, 3, 1]) + 6 * hue[:, None]) % 6
    rgb = 1 - SATURATION * np.minimum(k, 4 - k).clip(0, 1)
    return rgb / rgb.mean(1, keepdims=True)
