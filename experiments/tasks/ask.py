"""How the model of a run answers files: `ask(config)` of each task returns one of these records.

Nothing here opens the data of the run, only `config.json` and, where these say the shapes, what
stands for the data without files. The preprocessing is that of the run's own evaluation.
"""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from scipy import signal

from perceiver_jax import files
from perceiver_jax.ar import PerceiverAR
from perceiver_jax.config_types import ConfigError
from perceiver_jax.data import on_device, transforms
from perceiver_jax.data.transforms import Example
from perceiver_jax.datasets import fake, images, registry
from perceiver_jax.files.image import check_pixels, decode_image, existing
from perceiver_jax.perceiver import Perceiver

# What an evaluation reads and a person's file does not tell.
TRUTH = {
    "label": np.int32(0),
    "labels": np.zeros(1, np.float32),
    "row": np.int32(0),
    "readable": np.bool_(True),
    "position": 0,
}
PAIRING = ("label_pair", "cityscapes_pair")  # make a pair of a set's own fields; files are a pair


@dataclasses.dataclass(frozen=True)
class Scores:
    """A model of classes or tags.

    Attributes:
      kinds: what the files of one input are, such as ("image", "sound").
      read: `read(paths, part)` gives an example as the evaluation reads it, by field, on the host.
        Raises ValueError where a file cannot be read or does not fit.
      example: zeros of its shapes and types.
      logits: `logits(variables, batch)` of such examples `[B, ...]`; pure, for use in a compiled
        function. Images may be uint8: they are normalized in it.
      activation: logits to probabilities.
      names: of the classes; None if nothing tells.
      parts: clips of a file, whose probabilities are averaged.
      fixed_size: whether all examples have the shapes of `example`, so that batches are possible.
    """

    kinds: tuple[str, ...]
    read: Callable[[Sequence[str], int], Example]
    example: Example
    logits: Callable[[Any, Mapping[str, Any]], jax.Array]
    activation: Callable[[jax.Array], jax.Array] = jax.nn.softmax
    names: tuple[str, ...] | None = None
    parts: int = 1
    fixed_size: bool = True


@dataclasses.dataclass(frozen=True)
class Text:
    """A model that fills in hidden bytes."""

    model: Perceiver


@dataclasses.dataclass(frozen=True)
class Questions:
    """A model that answers one or several questions about a text, or a pair of texts.

    Attributes:
      classes: the names of the answers by question; () where the answer is a number.
      read: `read(texts, number)` gives an example of question `number`, in alphabetical order.
        Raises ValueError where the question is about another number of texts.
      example: zeros of its shapes and types.
      answer: `answer(variables, batch)` gives by example `probability` `[B, K]`, 0 for classes that
        its question has not, and `number` `[B]`.
    """

    classes: Mapping[str, tuple[str, ...]]
    read: Callable[[Sequence[str], int], Example]
    example: Example
    answer: Callable[[Any, Mapping[str, Any]], dict[str, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Writer:
    """A model that goes on with a sequence.

    Attributes:
      model: writes ids.
      read: the ids of a text, or of all of an image file, with the start of a sequence where the
        run has one. Raises ValueError for what cannot be read or continued.
      allowed: bool `[num_ids]`, which ids may be written.
      end: the id behind which nothing follows; None if there is none.
      shape: of images `[H, W, C]`; None for texts.
    """

    model: PerceiverAR
    read: Callable[[str], np.ndarray]
    allowed: np.ndarray
    end: int | None
    shape: Sequence[int] | None


@dataclasses.dataclass(frozen=True)
class Field:
    """A model of optical flow or disparity.

    Attributes:
      model: whose output is a `PixelField`.
      kinds: what the two images are.
      read: `read(paths)` gives `frames` uint8 `[2, H, W, 3]`, at least as large as the model's
        window, and the size (height, width) of the images in them, before they were shrunk.
      min_overlap: pixels that neighbouring windows share at least.
      shrink: by which factor `frames` are smaller than the images.
    """

    model: Perceiver
    kinds: tuple[str, str]
    read: Callable[[Sequence[str]], tuple[np.ndarray, tuple[int, int]]]
    min_overlap: int
    shrink: int = 1


@dataclasses.dataclass(frozen=True)
class Clip:
    """An autoencoder of video and sound.

    Attributes:
      model: hides from itself what the evaluation hides, and the label.
      read: `read(paths, max_clips)` gives `video` uint8 `[T, H, W, 3]` and `audio` float32 `[S]` of
        as many of the model's clips as the files hold, at most `max_clips` (0: all).
      frames_per_second, samples_per_second: of both.
      names: of the classes; None if nothing tells.
    """

    model: Perceiver
    read: Callable[[Sequence[str], int], tuple[np.ndarray, np.ndarray]]
    frames_per_second: float
    samples_per_second: int
    names: tuple[str, ...] | None = None


def stand_in(config: ConfigDict) -> Any:
    """What stands for the evaluation's source without files: the same fields, shapes and types."""
    data = config.data
    name = registry.stand_in(data.source)
    options = data.source_options.to_dict() if registry.find(name).takes_options else {}
    return registry.load(name, data.eval_split, data_dir=data.data_dir, options=options)


def evaluation_line(
    config: ConfigDict, *fields: str
) -> tuple[Callable[[Example], Example], Example]:
    """The run's evaluation line on fields that are given, and the example that it makes of zeros.

    Args:
      config: of the run.
      fields: what a model reads of an example: `image`, `frames`, `audio`, `video`.

    Returns:
      `prepare(given)`, which maps an example with (some of) these fields, such as `image` uint8
      `[H, W, C]`, to the fields of an evaluation's example; and the shapes and types of it.
    """
    whole = transforms.parse(config.data.eval)
    line = whole.without(*PAIRING)

    def apply(pipeline, example):
        example = pipeline(TRUTH | example, np.random.default_rng(0))
        return {field: example[field] for field in fields}

    blank = stand_in(config)[0]
    example = apply(whole, blank)
    image = transforms.decode(blank, None).get("image")
    if np.shape(image)[:1] == (fake.IMAGE_SIZE,):  # stands for many sizes
        smaller = apply(whole, blank | {"image": image[:-8, :-8]})
        if any(np.shape(smaller[field]) != np.shape(example[field]) for field in fields):
            data = config.data  # only the data know the size
            options = data.source_options.to_dict()
            source = registry.load(
                data.source, data.eval_split, data_dir=data.data_dir, options=options
            )
            example = apply(whole, source[0])
    zeros = {field: np.zeros_like(value) for field, value in example.items()}
    return (lambda given: apply(line, blank | given)), zeros


def read_pixels(path: str, channels: int = 3) -> np.ndarray:
    """An image file -> uint8 `[H, W, channels]`, as the sources of images read it.

    Raises:
      ValueError: it is missing, too large or no image.
    """
    data = existing(path).read_bytes()
    check_pixels(data, path, images.Options.max_pixels)
    return decode_image(data, path, channels)


def clip_reading(config: ConfigDict) -> dict[str, Any]:
    """The arguments of `files.read_clip` with which the source of a run makes its clips.

    Raises:
      ConfigError: it is a source of one's own, of which nothing is known.
    """
    source, options = config.data.source.removeprefix(fake.PREFIX), config.data.source_options
    if source == "clips":
        fields = ("num_frames", "frames_per_second", "samples_per_second", "short_side")
        return {name: options[name] for name in fields}
    if source == "bounce":
        return {
            "num_frames": options.num_frames,
            "frames_per_second": options.frames_per_second,
            "samples_per_second": options.frames_per_second * options.samples_per_frame,
            "short_side": min(options.size),
        }
    raise ConfigError(
        f"config.data.source={source!r} does not say how video files become its clips: predict "
        "knows that of 'clips' and 'bounce'"
    )


def read_sound(path: str, samples_per_second: int, count: int) -> np.ndarray:
    """The first `count` samples of a WAV file at this rate, float32 `[count]`.

    Raises:
      ValueError: it cannot be read, or is shorter.
    """
    sound, rate = files.read_wav(path)
    if rate != samples_per_second:
        sound = signal.resample_poly(sound, samples_per_second, rate).astype(np.float32)
    if len(sound) < count:
        raise ValueError(
            f"{path} has {len(sound) / samples_per_second:.3g} s of sound; the video needs "
            f"{count / samples_per_second:.3g} s"
        )
    return sound[:count]


def read_clips(
    paths,
    size: int,
    *,
    frames: int,
    samples: int,
    frames_per_second: float,
    samples_per_second: int,
    max_clips: int,
    square: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """The whole clips of a video and its sound, one after the other, at most `max_clips` (0: all).

    Args:
      paths: the video, and a file of its sound where that is apart.
      size, square: see `files.read_video`.
      frames, samples: of one clip.

    Raises:
      ValueError: the video is shorter than a clip.
    """
    video, audio = files.read_video(
        paths[0],
        size,
        frames_per_second=frames_per_second,
        samples_per_second=samples_per_second,
        max_frames=max_clips * frames or None,
        square=square,
    )
    count = len(video) // frames
    if not count:
        raise ValueError(f"{paths[0]} has {len(video)} frames, the model needs {frames}")
    sound = sound_of(paths, audio, samples_per_second, count * samples)
    return video[: count * frames], sound


def sound_of(
    paths: Sequence[str], audio: np.ndarray | None, samples_per_second: int, count: int
) -> np.ndarray:
    """The sound of a video: that of a second file, else its own `audio`, else silence.

    Returns:
      float32 `[count]`.
    """
    if len(paths) > 1:
        return read_sound(paths[1], samples_per_second, count)
    if audio is None:
        print(f"{paths[0]} has no sound: silence", file=sys.stderr)
        return np.zeros(count, np.float32)
    return audio[:count]


def stack_pair(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Two images `[H, W, C]` of one size -> `[2, H, W, C]`."""
    if first.shape != second.shape:
        sizes = [f"{image.shape[0]} x {image.shape[1]}" for image in (first, second)]
        raise ValueError(f"the two images differ in size: {' and '.join(sizes)}")
    return np.stack([first, second])


def require_shapes(example: Example, wanted: Example, line: str) -> Example:
    """The example, if it has the shapes that a run takes.

    Raises:
      ValueError: says what the run takes.
    """
    for field, value in example.items():
        shape, needed = np.shape(value), np.shape(wanted[field])
        if shape != needed:
            raise ValueError(
                f"{field} {' x '.join(map(str, shape))} where the run takes "
                f"{' x '.join(map(str, needed))}: config.data.eval={line!r} makes no other of it"
            )
    return example


def normalized(config: ConfigDict, field: str, batch: Mapping[str, Any]) -> dict[str, Any]:
    """The batch whose images `field`, uint8 or float in 0..255, are normalized as in the run."""
    image = on_device.normalize(batch[field], config.data.mean, config.data.std)
    return {**batch, field: image}


def class_names(config: ConfigDict, num_classes: int) -> tuple[str, ...] | None:
    """The names of a run's classes: those saved with it, else those that its source knows."""
    data = config.data
    names = tuple(data.get("classes", ()))
    if not names:
        names = tuple(getattr(stand_in(config), "classes", ()))
        lists = tuple(filter(None, (data.train_split, data.eval_split)))
        names = names or registry.find(data.source).class_names(data.data_dir, lists)
    if not names or len(names) > num_classes:
        return None
    return (*names, *(f"class {k}" for k in range(len(names), num_classes)))
