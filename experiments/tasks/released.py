"""How the released models, and others of their kinds, answer files."""

from typing import Any

import numpy as np

from experiments.tasks.ask import Clip, Field, Scores, Text, read_clips, read_pixels, stack_pair
from perceiver_jax import inference
from perceiver_jax.data import on_device
from perceiver_jax.inference.clips import clip_lengths
from perceiver_jax.modalities import image as image_modality
from perceiver_jax.perceiver import Perceiver


def ask(
    model: Perceiver, variables: Any, *, native_size: bool, min_overlap: int, frame_rate: float
) -> Scores | Text | Field | Clip:
    """The record of a model; see `ask.py`.

    Args:
      model, variables: as `pj.load` gives them.
      native_size: of models of images: whether they see whole images at their own size.
      min_overlap: of optical flow: pixels that neighbouring windows share at least.
      frame_rate: of the autoencoder: frames per second that it gets.

    Raises:
      ValueError: learned positions at native size.
    """
    kind = type(model.output).__name__
    if kind == "Classification":
        return _classes_of_images(model, variables, native_size)
    if kind == "Flow":
        return _flow_of_pairs(model, min_overlap)
    return Text(model) if kind == "TiedLogits" else _clips_with_sound(model, frame_rate)


def _classes_of_images(model, variables, native: bool) -> Scores:
    """Prepared as in the official evaluation, or at their own size."""
    learned = isinstance(model.input, image_modality.LearnedPositions)
    if native and learned:
        raise ValueError("--native_size needs Fourier positions: the learned ones fit one size")
    size = inference.images.image_size(model, variables) if not native else 224

    def read(paths, part=0):
        image = read_pixels(paths[0])
        return {"image": image if native else inference.images.prepare(image, size)}

    def logits(variables, batch):
        image = on_device.normalize(batch["image"])
        return model.apply(variables, {"image": image}, train=False)

    kind = np.uint8 if native else np.float32
    example = {"image": np.zeros((size, size, 3), kind)}
    return Scores(("image",), read, example, logits, fixed_size=not native)


def _flow_of_pairs(model, min_overlap: int) -> Field:
    """Images at least as large as the model's window."""

    def read(paths):
        frames = stack_pair(*(read_pixels(path) for path in paths))
        return frames, frames.shape[1:3]

    return Field(model, ("first image", "second image"), read, min_overlap)


def _clips_with_sound(model, rate: float) -> Clip:
    """The central square of each frame, at `rate` frames a second."""
    frames, samples = clip_lengths(model)
    size = model.output.modalities["video"].shape[1]
    sample_rate = round(rate * samples / frames)

    def read(paths, max_clips):
        return read_clips(
            paths,
            size,
            frames=frames,
            samples=samples,
            frames_per_second=rate,
            samples_per_second=sample_rate,
            max_clips=max_clips,
        )

    return Clip(model, read, rate, sample_rate)
