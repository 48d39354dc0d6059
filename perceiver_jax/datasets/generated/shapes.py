"""Solids as points of their surfaces, drawn by area: a first set of point clouds.

Each cloud is stretched along its axes, turned, and has noise, so that no single coordinate tells
the class. A model must see how many points are where.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np

from perceiver_jax.config_types import Ascending, Fraction, Range, Size
from perceiver_jax.data.transforms import Example
from perceiver_jax.datasets.generated.source import Generated, check_generated, configured

TUBE = 0.4  # radius of the torus's tube, in radii of the torus


def sphere(rng: np.random.Generator, count: int) -> np.ndarray:
    """Points `[count, 3]` of a sphere of radius 1."""
    points = rng.normal(size=(count, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def cube(rng: np.random.Generator, count: int) -> np.ndarray:
    """Points of the cube from -1 to 1."""
    points = rng.uniform(-1, 1, (count, 3))
    points[np.arange(count), rng.integers(3, size=count)] = rng.choice((-1, 1), count)
    return points


def cylinder(rng: np.random.Generator, count: int) -> np.ndarray:
    """Points of a closed cylinder of radius 1 and height 2 about z."""
    on_side = rng.random(count) < 2 / 3  # 4 pi of 6 pi
    radius = np.where(on_side, 1, np.sqrt(rng.random(count)))
    height = np.where(on_side, rng.uniform(-1, 1, count), rng.choice((-1, 1), count))
    return _around_z(rng, radius, height)


def cone(rng: np.random.Generator, count: int) -> np.ndarray:
    """Points of a closed cone of radius 1 and height 2 about z, its tip at the top."""
    on_side = rng.random(count) < np.sqrt(5) / (1 + np.sqrt(5))
    radius = np.sqrt(rng.random(count))  # on both parts the area grows with its square
    return _around_z(rng, radius, np.where(on_side, 1 - 2 * radius, -1))


def torus(rng: np.random.Generator, count: int) -> np.ndarray:
    """Points of a torus of radius 1 about z; the outer half has more of them."""
    angle = np.empty(0)
    while len(angle) < count:
        drawn, level = rng.uniform(0, 2 * np.pi, count), rng.random(count)
        kept = level * (1 + TUBE) < 1 + TUBE * np.cos(drawn)  # the area at an angle
        angle = np.concatenate([angle, drawn[kept]])
    angle = angle[:count]
    return _around_z(rng, 1 + TUBE * np.cos(angle), TUBE * np.sin(angle))


def tetrahedron(rng: np.random.Generator, count: int) -> np.ndarray:
    """Points of a regular tetrahedron whose corners are corners of the cube."""
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    weights = rng.dirichlet(np.ones(3), count)  # uniform on a triangle
    weights = np.insert(weights, 0, 0.0, axis=1)
    turn = rng.integers(4, size=count)  # which corner the triangle lacks
    weights = np.take_along_axis(weights, (np.arange(4) + turn[:, None]) % 4, axis=1)
    return weights @ corners


def _around_z(rng: np.random.Generator, radius: np.ndarray, height: np.ndarray) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi, len(radius))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)


SOLIDS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    f.__name__: f for f in (sphere, cube, cylinder, cone, torus, tetrahedron)
}


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Makes one cloud when called with a random generator.

    An example is `points` float32 [n, 3], within about -2..2, and `label` int32, the number of the
    solid in `SOLIDS`.

    Attributes:
      num_points: (fewest, most) points of a cloud.
      stretch: the largest factor along each axis, before the turn; its inverse is the smallest.
      turn: about which axis a cloud is turned by a random angle; "all" is a uniform rotation.
      noise: standard deviation of what is added to every coordinate.
    """

    num_points: Annotated[tuple[Size, Size], Ascending()] = (128, 256)
    stretch: Annotated[float, Range(1, 4)] = 1.3
    turn: Literal["none", "z", "all"] = "z"
    noise: Fraction = 0.02

    def __call__(self, rng: np.random.Generator) -> Example:
        label = int(rng.integers(len(SOLIDS)))
        low, high = self.num_points
        points = SOLIDS[tuple(SOLIDS)[label]](rng, int(rng.integers(low, high + 1)))
        points = points * self.stretch ** rng.uniform(-1, 1, 3)
        points = points @ self.rotation(rng).T
        points += rng.normal(0, self.noise, points.shape)
        return {"points": points.astype(np.float32), "label": np.int32(label)}

    def rotation(self, rng: np.random.Generator) -> np.ndarray:
        """A matrix `[3, 3]`."""
        if self.turn == "none":
            return np.eye(3)
        if self.turn == "z":
            angle = rng.uniform(0, 2 * np.pi)
            cos, sin = np.cos(angle), np.sin(angle)
            return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        quaternion = rng.normal(size=4)
        w, x, y, z = quaternion / np.linalg.norm(quaternion)
        return np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
            ]
        )


check_options = functools.partial(check_generated, Shapes)


def load(split: str, *, data_dir: str = "", seed: int = 0, **options) -> Generated:
    """The source `shapes`; `options` are the attributes of `Shapes`."""
    del data_dir
    source = Generated("shapes", split, seed, configured(Shapes, options))
    source.classes = tuple(SOLIDS)
    return source
