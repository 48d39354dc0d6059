"""Small videos of a bouncing shape with its sound: video and sound predict each other.

Each shape has its own note. The loudness of the note is the height of the shape, the loudness of
the octave above it is the place from left to right, and every bounce clicks. So the sound
determines the shape and its path, and the video determines every sample of the sound.
"""

import dataclasses
import functools

import numpy as np

from perceiver_jax.data.transforms import Example
from perceiver_jax.datasets.generated.source import (
    Generated,
    check_generated,
    configured,
    require_range,
    require_size,
)

# Distance of (x, y) to the outline of a shape of radius 1, negative within; the order is `label`.
SHAPES = {
    "disc": lambda x, y: np.hypot(x, y) - 1,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) - 0.85,
    "diamond": lambda x, y: (abs(x) + abs(y) - 1) / np.sqrt(2),
    "plus": lambda x, y: np.minimum(
        np.maximum(abs(x) - 1, abs(y) - 0.35), np.maximum(abs(x) - 0.35, abs(y) - 1)
    ),
}
LOWEST_NOTE, INTERVAL = 125.0, 1.5  # hertz; a fifth from one shape to the next
CLICK_SECONDS = 0.01  # its decay


@dataclasses.dataclass(frozen=True)
class Bounce:
    """Makes one clip when called with a random generator.

    An example is `video` uint8 [T, H, W, 3] (white on black), `audio` float32 [S] in -1..1 and
    `label` int32, the number of the shape in `SHAPES`. Sample s and frame s / samples_per_frame
    have the same time.

    Attributes:
      num_frames: T.
      size: (H, W) in pixels.
      frames_per_second, samples_per_frame: S = T * samples_per_frame. The highest octave, 844 Hz,
        needs 1,688 samples per second.
      radius: of the shape, as a fraction of the shorter side.
      speed: (slowest, fastest) along each axis, in widths or heights of its room per second.
    """

    num_frames: int = 16
    size: tuple[int, int] = (24, 24)
    frames_per_second: int = 20
    samples_per_frame: int = 160
    radius: float = 0.18
    speed: tuple[float, float] = (0.5, 2.5)

    def __post_init__(self):
        require_range("num_frames", self.num_frames, 1, 10_000, whole=True)
        require_size(self.size)
        require_range("radius", self.radius, 0.02, 0.4)
        require_range("speed", self.speed, 0, self.frames_per_second / 2)
        require_range("frames_per_second", self.frames_per_second, 1, 1000, whole=True)
        require_range("samples_per_frame", self.samples_per_frame, 1, 100_000, whole=True)
        needed = 4 * LOWEST_NOTE * INTERVAL ** (len(SHAPES) - 1)
        if self.frames_per_second * self.samples_per_frame < needed:
            raise ValueError(
                f"source_options.samples_per_frame={self.samples_per_frame} times "
                f"frames_per_second={self.frames_per_second} must be {needed:.0f} or more: the "
                "highest note's octave is half of that"
            )

    def __call__(self, rng: np.random.Generator) -> Example:
        label = int(rng.integers(len(SHAPES)))
        start = rng.uniform(0, 1, 2)
        velocity = rng.uniform(*self.speed, 2) * rng.choice((-1, 1), 2)
        return {
            "video": self.picture(label, start, velocity),
            "audio": self.sound(label, start, velocity),
            "label": np.int32(label),
        }

    def picture(self, label: int, start: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        """The video of a shape that starts at (x, y) in 0..1 of its room, y upwards."""
        seconds = np.arange(self.num_frames) / self.frames_per_second
        x, y = _reflected(start[:, None] + velocity[:, None] * seconds)[0]  # [T]
        height, width = self.size
        radius = self.radius * min(self.size)
        columns = radius + x * (width - 2 * radius)
        rows = height - radius - y * (height - 2 * radius)
        across = (np.arange(width) + 0.5 - columns[:, None])[:, None, :] / radius  # [T, 1, W]
        down = (np.arange(height) + 0.5 - rows[:, None])[:, :, None] / radius  # [T, H, 1]
        outside = SHAPES[tuple(SHAPES)[label]](across, down) * radius  # pixels
        grey = np.rint(255 * np.clip(0.5 - outside, 0, 1)).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=-1)

    def sound(self, label: int, start: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        """The samples that belong to `picture`."""
        rate = self.frames_per_second * self.samples_per_frame
        seconds = np.arange(self.num_frames * self.samples_per_frame) / rate
        (x, y), bounces = _reflected(start[:, None] + velocity[:, None] * seconds)
        turns = 2 * np.pi * LOWEST_NOTE * INTERVAL**label * seconds
        note = 0.4 * (0.1 + 0.9 * y) * np.sin(turns) + 0.3 * (0.1 + 0.9 * x) * np.sin(2 * turns)
        hits = np.abs(np.diff(bounces, axis=1, prepend=bounces[:, :1])).sum(0)  # at their samples
        length = round(5 * CLICK_SECONDS * rate)
        decay = np.exp(-np.arange(length) / (CLICK_SECONDS * rate))
        click = 0.3 * decay * np.cos(np.pi / 2 * np.arange(length))
        clicks = np.convolve(hits, click)[: len(seconds)]
        return np.clip(note + clicks, -1, 1).astype(np.float32)


check_options = functools.partial(check_generated, Bounce)


def load(split: str, *, data_dir: str = "", seed: int = 0, **options) -> Generated:
    """The source `bounce`; `options` are the attributes of `Bounce`."""
    del data_dir
    return Generated("bounce", split, seed, configured(Bounce, options))


def _reflected(place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A straight path folded into 0..1, and how many walls it has gone through by then."""
    walls = np.floor(place)
    inside = place - walls
    return np.where(walls % 2 == 0, inside, 1 - inside), walls
