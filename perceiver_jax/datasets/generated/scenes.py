"""Textured pairs for optical flow and stereo: shapes that move before a background.

In the spirit of AutoFlow (Sun et al. 2021, arXiv 2104.14544) and FlyingThings3D (Mayer et al.
2016), in two dimensions: every layer has a shape, a texture and one affine map from the first frame
to the second. For stereo the map is horizontal only, an inclined plane in depth. Layers are painted
far to near. A pixel belongs to one layer (hard edges, no mixture), so the truth is exact: the
layer's map at that pixel. Texture is resampled linearly, once for each frame and from one plane.
"""

import dataclasses
import functools
import math
from typing import Any

import cv2
import numpy as np

from perceiver_jax.data.transforms import Example
from perceiver_jax.datasets import registry
from perceiver_jax.datasets.generated.layers import Layer, affine, apply, render
from perceiver_jax.datasets.generated.source import (
    Generated,
    check_generated,
    configured,
    require_choice,
    require_range,
    require_size,
)
from perceiver_jax.datasets.generated.textures import TEXTURES, picture

TASKS = ("flow", "stereo")
DIRECTIONS = ("forward", "backward", "random")


@dataclasses.dataclass(frozen=True)
class Scene:
    """Makes one pair when called with a random generator.

    An example is `frames` uint8 [2, H, W, 3] (first and second, or left and right), `field` float32
    in pixels ([H, W, 2] right, down for flow; [H, W, 1] for stereo, x_right = x_left - disparity),
    `valid` bool [H, W] and `occluded` bool [H, W]: True where the pixel moves behind a nearer layer
    or out of the frame.

    Attributes:
      task: `flow` or `stereo`.
      size: (H, W) in pixels.
      layers: (fewest, most) shapes before the background.
      radius: (smallest, largest) of a shape, as a fraction of the shorter side.
      displacement: of flow, the largest of a shape's centre in pixels. The background, and all
        shapes with it, move by up to half as much.
      rotation: of flow, the largest in degrees.
      scaling: of flow, the largest change of size, as a fraction.
      disparity: of stereo, (lowest, highest) in pixels, of every pixel.
      slant: of stereo, the largest change of disparity in pixels per pixel.
      direction: `backward` swaps the frames and gives the flow back; `random` draws one.
      photometric: strength of the second frame's own gain (at 1: up to 30 %), offset (20 grey
        levels), gamma (e^0.3) and noise (uniform, up to 10 grey levels); 0 is none.
      texture: one of `textures.TEXTURES`, or `mix` for one of them for each layer.
      images: a TFDS name (`cifar10`) whose images replace the procedural textures; '' is none.
      image_splits: its splits for the training and the test scenes.
    """

    task: str = "flow"
    size: tuple[int, int] = (64, 64)
    layers: tuple[int, int] = (3, 8)
    radius: tuple[float, float] = (0.08, 0.35)
    displacement: float = 8.0
    rotation: float = 10.0
    scaling: float = 0.1
    disparity: tuple[float, float] = (0.0, 8.0)
    slant: float = 0.05
    direction: str = "forward"
    photometric: float = 0.0
    texture: str = "mix"
    images: str = ""
    image_splits: tuple[str, str] = ("train", "test")

    def __post_init__(self):
        require_choice("task", self.task, TASKS)
        require_choice("direction", self.direction, DIRECTIONS)
        require_choice("texture", self.texture, (*TEXTURES, "mix"))
        require_size(self.size)
        require_range("layers", self.layers, 0, 100, whole=True)
        require_range("radius", self.radius, 0.01, 2)
        require_range("displacement", self.displacement, 0, max(self.size))
        require_range("rotation", self.rotation, 0, 180)
        require_range("scaling", self.scaling, 0, 0.5)
        require_range("disparity", self.disparity, -self.size[1], self.size[1])
        require_range("slant", self.slant, 0, 0.5)
        require_range("photometric", self.photometric, 0, 1)
        if self.task == "stereo" and self.direction != "forward":
            raise ValueError(
                "source_options.direction of a stereo scene is 'forward': its field is a disparity "
                "of the left view"
            )

    def __call__(self, rng: np.random.Generator, pictures: Any = None) -> Example:
        """Draws the layers, then renders them. `pictures`: a source with a field `image`."""
        layers = self.draw(rng, pictures)
        coin = rng.random() < 0.5
        backward = self.direction == "backward" or (self.direction == "random" and coin)
        example = render(layers, self.size, backward=backward)
        if self.task == "stereo":
            example["field"] = -example["field"][..., :1]
        if self.photometric:
            second = _relit(rng, example["frames"][1], self.photometric)
            example["frames"] = np.stack([example["frames"][0], second])
        return example

    def draw(self, rng: np.random.Generator, pictures: Any = None) -> list[Layer]:
        """The layers, far to near; the first is the background."""
        height, width = self.size
        count = int(rng.integers(self.layers[0], self.layers[1] + 1))
        low, high = self.disparity
        disparities = np.sort(rng.uniform(low, high, count + 1))
        camera, layers = np.eye(3), []
        for number in range(count + 1):
            if number == 0:
                outline = np.float64([(-1, -1), (width, -1), (width, height), (-1, height)])
                centre, reach = np.array([width - 1, height - 1]) / 2, (width + height) / 2
            else:
                outline, centre, reach = self._shape(rng)
            if self.task == "stereo":
                motion = self._inclined(rng, centre, reach, disparities[number])
            elif number == 0:
                motion = camera = self._moved(rng, centre, share=0.5)
            else:
                motion = camera @ self._moved(rng, centre, share=1.0)
            side = math.ceil(2 * min(reach, max(height, width) / 2))
            shape = (height, width) if number == 0 else (side, side)
            if pictures is not None:
                texture = picture(rng, pictures, shape)
            else:
                kind = str(rng.choice(tuple(TEXTURES))) if self.texture == "mix" else self.texture
                texture = TEXTURES[kind](rng, shape)
            # Centred on the shape and rotated: textures share no upright direction.
            middle = np.array(shape[::-1]) / 2
            angle = rng.uniform(0, 2 * np.pi) if number else 0.0
            turn = affine(centre, angle, 1.0, middle - centre)
            layers.append(Layer(outline if number else None, texture, turn, motion))
        return layers

    def _shape(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
        """A polygon of 3 to 8 corners or a smooth blob: (outline [n, 2] x y, centre, reach)."""
        side = min(self.size)
        radius = side * np.exp(rng.uniform(*np.log(self.radius)))
        if rng.random() < 0.5:
            angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 9)))
            radii = rng.uniform(0.5, 1, len(angles))
        else:
            angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
            waves = np.arange(2, 5)[:, None]
            phases = rng.uniform(0, 2 * np.pi, (3, 1))
            radii = 0.75 + rng.uniform(0, 0.08, (3, 1)).T @ np.cos(waves * angles + phases)
            radii = radii.reshape(-1)
        outline = radius * radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], -1)
        outline[:, 1] *= rng.uniform(0.4, 1)
        centre = rng.uniform(0, 1, 2) * np.array(self.size[::-1])
        turn = affine(np.zeros(2), rng.uniform(0, 2 * np.pi), 1.0, centre)
        return apply(turn, outline), centre, radius

    def _moved(self, rng: np.random.Generator, centre: np.ndarray, share: float) -> np.ndarray:
        """A random rotation, scaling and shift about `centre`, to `share` of the options' limits.

        The length of the shift is uniform, so small ones are common.
        """
        direction = rng.uniform(0, 2 * np.pi)
        length = share * self.displacement * rng.random()
        angle = math.radians(share * self.rotation * rng.uniform(-1, 1))
        scale = 1 + share * self.scaling * rng.uniform(-1, 1)
        shift = length * np.array([np.cos(direction), np.sin(direction)])
        return affine(centre, angle, scale, shift)

    def _inclined(
        self, rng: np.random.Generator, centre: np.ndarray, reach: float, disparity: float
    ) -> np.ndarray:
        """x_right = x - d(x, y): a plane with `disparity` at its centre that stays in the range."""
        low, high = self.disparity
        steepest = min(self.slant, min(disparity - low, high - disparity) / (1.5 * reach))
        slope = steepest * rng.uniform(-1, 1, 2)
        motion = np.eye(3)
        motion[0] -= [*slope, disparity - slope @ centre]
        return motion


check_options = functools.partial(check_generated, Scene)


def load(split: str, *, data_dir: str = "", seed: int = 0, **options) -> Generated:
    """The source `scenes`; `options` are the attributes of `Scene`, `data_dir` that of `images`."""
    scene = make = configured(Scene, options)
    if scene.images:
        part = scene.image_splits[split.startswith("test")]
        pictures = registry.load(scene.images, part, data_dir=data_dir)
        if "image" not in pictures[0]:
            raise ValueError(f"source_options.images: {pictures!r} has no field 'image'")
        make = functools.partial(scene, pictures=pictures)
    return Generated("scenes", split, seed, make)


def _relit(rng: np.random.Generator, frame: np.ndarray, strength: float) -> np.ndarray:
    """The frame under other light, with another camera's noise."""
    gain, offset, gamma = strength * rng.uniform(-1, 1, 3) * (0.3, 20, 0.3)
    tones = 255 * (np.arange(256) / 255) ** np.exp(gamma) * (1 + gain) + offset
    grain = 10 * strength * rng.random() * np.linspace(-1, 1, 256)
    noise = cv2.LUT(rng.integers(0, 256, frame.shape, np.uint8), grain.astype(np.float32))
    lit = cv2.LUT(frame, tones.astype(np.float32)) + noise
    return np.rint(np.clip(lit, 0, 255)).astype(np.uint8)
