"""Video and sound through the autoencoder: read once, answered in chunks of queries."""

import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

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
from perceiver_jax.inference.tiles import in_chunks
from perceiver_jax.modalities import multimodal
from perceiver_jax.perceiver import Perceiver

KINDS = ("audio", "label", "video")


class Clip(NamedTuple):
    """What the autoencoder makes of a clip.

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
    """Compresses a clip into the latents and brings it back; its label is guessed on the way.

    Each clip of the model's length is encoded once. Its outputs are answered in chunks, which
    changes nothing but the memory needed: a query is answered by itself.

    Args:
      video: uint8 `[T, H, W, 3]`, RGB, H and W the model's, T a multiple of its frames.
      audio: float `[S]` in [-1, 1], as long as the video.
      k: how many labels.
      chunk_size: queries (pixels, or patches of sound) answered at a time.
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
    total = clips * sum(1 for _ in chunks(model, chunk_size))
    videos, sounds, logits = [], [], []
    progress(0, total)
    for clip in range(clips):
        batch = {
            "video": video[None, clip * frames : (clip + 1) * frames].astype(np.float32) / 255,
            "audio": audio[None, clip * samples : (clip + 1) * samples].astype(np.float32),
            "label": np.full(1, -1, np.int32),  # unknown
        }
        done = clip * (total // clips)
        answers = decode_in_chunks(
            model, variables, *encode(model, variables, batch), chunk_size, progress, done, total
        )
        videos.append(answers["video"].reshape((*shape, 3)))
        sounds.append(answers["audio"].reshape(-1))
        logits.append(answers["label"])
    return Clip(
        (np.clip(np.concatenate(videos), 0, 1) * 255).round().astype(np.uint8),
        np.clip(np.concatenate(sounds), -1, 1),
        top_k(np.stack(logits), k),
    )


def clip_lengths(model: Perceiver) -> tuple[int, int]:
    """(frames, samples of sound) that the model takes at a time."""
    require(model.output, multimodal.Outputs, "autoencode")
    outputs = model.output.modalities
    if sorted(outputs) != list(KINDS):
        raise ValueError(f"autoencode needs a model of {KINDS}, not of {sorted(outputs)}")
    audio = outputs["audio"]
    return outputs["video"].shape[0], audio.num_patches * audio.samples_per_patch


def chunks(model: Perceiver, chunk_size: int) -> Iterator[tuple[str, np.ndarray | None, int]]:
    """(modality, flat indices or None for all, how many of them count), in order.

    All chunks of a modality have one size, so that each compiles once: the last one asks for the
    last output again and again, and what it says then does not count.
    """
    outputs = model.output.modalities
    for name, count in (
        ("video", int(np.prod(outputs["video"].shape))),
        ("audio", outputs["audio"].num_patches),
    ):
        size = min(chunk_size, count)
        for start in range(0, count, size):
            indices = np.minimum(np.arange(start, start + size, dtype=np.int32), count - 1)
            yield name, indices, min(size, count - start)
    yield "label", None, 1


def decode_all(model, variables, tokens, latents, chunk_size: int) -> dict[str, jax.Array]:
    """All answers by modality, chunk after chunk within one program, for a batch of clips.

    Returns:
      `video [B, T, H, W, 3]`, `audio [B, S]`, `label [B, K]`, float32.
    """

    def ask(name, indices):
        chosen = {name: indices}
        return model.apply(
            variables, tokens, latents, train=False, indices=chosen, method="decode"
        )[name]

    outputs = model.output.modalities
    video, patches = outputs["video"].shape, outputs["audio"].num_patches
    answers = {"label": ask("label", None)}
    for name, count, shape in (
        ("video", math.prod(video), (*video, 3)),
        ("audio", patches, (-1,)),
    ):
        answer = in_chunks(functools.partial(ask, name), count, min(chunk_size, count))
        answers[name] = answer.reshape(latents.shape[0], *shape)
    return answers


def decode_in_chunks(
    model, variables, tokens, latents, chunk_size, progress=silent, done=0, total=0
) -> dict[str, np.ndarray]:
    """All answers by modality: pixels `[n, 3]`, patches `[n, samples_per_patch]`, logits `[K]`."""
    answers: dict[str, list[np.ndarray]] = {name: [] for name in KINDS}
    for i, (name, indices, count) in enumerate(chunks(model, chunk_size)):
        answer = decode(model, variables, tokens, latents, {name: indices})[name]
        rows = 1 if indices is None else len(indices)
        answers[name].append(jax.device_get(answer).reshape(rows, -1)[:count])
        progress(done + i + 1, total)
    return {name: np.concatenate(parts) for name, parts in answers.items()} | {
        "label": answers["label"][0][0]
    }
