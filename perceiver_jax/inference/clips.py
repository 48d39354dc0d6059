"""Video and sound through the autoencoder: encoded once, decoded in chunks of queries."""

import functools
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from perceiver_jax.inference.chunks import in_chunks, num_chunks
from perceiver_jax.inference.programs import (
    Progress,
    TopK,
    decode,
    encode,
    require,
    require_uint8,
    silent,
    top_k,
)
from perceiver_jax.modalities import multimodal
from perceiver_jax.perceiver import Perceiver

STREAMS = ("video", "audio")  # decoded in chunks; the label is a single query


class Clip(NamedTuple):
    """A decoded clip.

    Attributes:
      video: uint8 `[T, H, W, 3]`.
      audio: float32 `[S]`, within [-1, 1].
      labels: `TopK` of each of the model's clips in it.
    """

    video: np.ndarray
    audio: np.ndarray
    labels: TopK


def autoencode(
    model: Perceiver,
    variables: Any,
    video: np.ndarray,
    audio: np.ndarray,
    *,
    k: int = 5,
    chunk_size: int = 8192,
    progress: Progress = silent,
) -> Clip:
    """Encodes a clip into the latents and decodes video, sound and label from them.

    Each clip of the model's length is encoded once. The outputs are decoded in chunks, which limits
    memory and changes no value, because queries do not depend on each other.

    Args:
      video: uint8 `[T, H, W, 3]`, RGB, H and W the model's, T a multiple of its frames.
      audio: float `[S]` in [-1, 1], as long as the video.
      k: how many labels.
      chunk_size: queries (pixels, or patches of sound) decoded at a time.
      progress: called with (chunks done, of how many).

    Raises:
      ValueError: another number of frames or samples, another size, another model.
    """
    frames, samples = clip_lengths(model)
    video = require_uint8(video, 4, "video must be uint8 [T, H, W, 3]")
    audio = np.asarray(audio)
    if not np.issubdtype(audio.dtype, np.floating) or audio.ndim != 1:
        raise ValueError(f"audio must be float [S], got {audio.dtype} {list(audio.shape)}")
    shape = tuple(model.output.modalities["video"].shape)
    clips = len(video) // frames
    if clips == 0 or len(video) % frames or video.shape[1:3] != shape[1:]:
        raise ValueError(
            f"video must be a multiple of {frames} frames of {shape[1]} x {shape[2]} pixels, "
            f"got {list(video.shape)}"
        )
    if len(audio) != clips * samples:
        raise ValueError(
            f"{len(video)} frames go with {clips * samples} samples of sound, got {len(audio)}"
        )
    if chunk_size < 1:
        raise ValueError(f"chunk_size={chunk_size} must be at least 1")
    counts = [_num_outputs(model.output, name) for name in STREAMS]
    total = clips * (1 + sum(num_chunks(count, chunk_size) for count in counts))
    done = itertools.count(1)
    progress(0, total)

    def each(decode_chunk, indices):
        parts = []
        for chunk in indices:
            parts.append(jax.device_get(decode_chunk(chunk)))
            progress(next(done), total)
        return np.stack(parts)

    results = []
    for clip in range(clips):
        batch = {
            "video": video[None, clip * frames : (clip + 1) * frames].astype(np.float32) / 255,
            "audio": audio[None, clip * samples : (clip + 1) * samples].astype(np.float32),
            "label": np.full(1, -1, np.int32),  # unknown
        }
        tokens, latents = encode(model, variables, batch)
        decode_chosen = functools.partial(decode, model, variables, tokens, latents)
        decoded = decode_clips(decode_chosen, model.output, chunk_size, each=each)
        results.append(jax.tree.map(lambda x: np.asarray(x)[0], decoded))
        progress(next(done), total)  # the label
    videos, sounds, logits = ([r[name] for r in results] for name in (*STREAMS, "label"))
    return Clip(
        (np.clip(np.concatenate(videos), 0, 1) * 255).round().astype(np.uint8),
        np.clip(np.concatenate(sounds), -1, 1),
        top_k(np.stack(logits), k),
    )


def clip_lengths(model: Perceiver) -> tuple[int, int]:
    """Returns the (frames, samples of sound) of the model's clips."""
    require(model.output, multimodal.Outputs, "autoencode")
    outputs = model.output.modalities
    names = sorted((*STREAMS, "label"))
    if sorted(outputs) != names:
        raise ValueError(f"autoencode needs a model of {names}, not of {sorted(outputs)}")
    audio = outputs["audio"]
    return outputs["video"].shape[0], audio.num_patches * audio.samples_per_patch


def decode_clips(
    decode: Callable[[Mapping], Mapping],
    outputs: multimodal.Outputs,
    chunk_size: int,
    *,
    each: Callable = jax.lax.map,
) -> dict[str, jax.Array]:
    """Decodes all outputs of a batch of clips in chunks, from latents encoded once.

    Args:
      decode: flat indices by modality (None: all) -> its outputs there; see `Perceiver.decode`.
      outputs: of the model.
      chunk_size: queries (pixels, or patches of sound) decoded at a time.
      each: maps the chunks, see `in_chunks`.

    Returns:
      `video [B, T, H, W, 3]`, `audio [B, S]`, `label [B, K]`, float32.
    """

    def decode_modality(name):
        return in_chunks(
            lambda indices: decode({name: indices})[name],
            _num_outputs(outputs, name),
            chunk_size,
            each=each,
        )

    video, audio = decode_modality("video"), decode_modality("audio")
    return {
        "video": video.reshape(-1, *outputs.modalities["video"].shape, 3),
        "audio": audio.reshape(audio.shape[0], -1),
        "label": decode({"label": None})["label"],
    }


def _num_outputs(outputs: multimodal.Outputs, name: str) -> int:
    module = outputs.modalities[name]
    return math.prod(module.shape) if name == "video" else module.num_patches
