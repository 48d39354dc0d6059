"""Autoencoding: encoded once, decoded in chunks; video and sound in and out."""

import functools

import flax.linen as nn
import jax
import numpy as np
import pytest
from small_models import apply, model

from perceiver_jax import inference
from perceiver_jax.inference import clips
from perceiver_jax.perceiver import Encoder

SIZES = {"num_frames": 2, "image_size": 16}  # 512 pixels, 8 patches of 16 samples
FRAMES, SAMPLES = 2, 128


def clip(count=1):
    rng = np.random.default_rng(0)
    video = rng.integers(0, 256, (count * FRAMES, 16, 16, 3), np.uint8)
    return video, rng.uniform(-1, 1, count * SAMPLES).astype(np.float32)


def whole(video, audio):
    """Everything asked at once, at the sub-sampled outputs' places."""
    perceiver, variables = model("kinetics", **SIZES)
    batch = {
        "video": video[None].astype(np.float32) / 255,
        "audio": audio[None],
        "label": np.array([-1]),
    }
    indices = {"video": np.arange(512), "audio": np.arange(8), "label": None}
    return batch, apply(perceiver, variables, batch, indices=indices)


@pytest.mark.parametrize("chunk_size", [200, 5])
def test_chunks_are_parts_of_the_whole(chunk_size):
    """512 does not divide by either: the ragged end is part of the test."""
    batch, expected = whole(*clip())
    net = model("kinetics", **SIZES)
    tokens, latents = inference.programs.encode(*net, batch)
    decode = functools.partial(inference.programs.decode, *net, tokens, latents)
    parts = clips.decode_clips(decode, net[0].output, chunk_size)
    for name, shape in (("video", (512, 3)), ("audio", (8, 16)), ("label", (10,))):
        np.testing.assert_allclose(
            np.reshape(parts[name], shape),
            np.reshape(expected[name], shape),
            rtol=0,
            atol=1e-5,
            err_msg=name,
        )


def test_a_clip_comes_back_in_its_order():
    video, audio = clip(2)
    steps = []
    result = inference.autoencode(
        *model("kinetics", **SIZES),
        video,
        audio,
        k=3,
        chunk_size=300,
        progress=lambda *step: steps.append(step),
    )
    for i in range(2):
        _, expected = whole(video[2 * i : 2 * i + 2], audio[128 * i : 128 * i + 128])
        pixels = np.clip(np.asarray(expected["video"])[0].reshape(2, 16, 16, 3), 0, 1) * 255
        assert np.abs(result.video[2 * i : 2 * i + 2] - pixels).max() < 0.51
        assert 0 < pixels.mean() < 255
        sound = np.clip(np.asarray(expected["audio"])[0], -1, 1)
        np.testing.assert_allclose(result.audio[128 * i : 128 * i + 128], sound, atol=1e-5)
        chances = np.asarray(jax.nn.softmax(expected["label"][0]))
        best = np.argsort(-chances)[:3]
        assert result.labels.classes[i].tolist() == best.tolist()
        np.testing.assert_allclose(result.labels.probabilities[i], chances[best], rtol=1e-4)
    assert result.video.dtype == np.uint8
    assert steps == [(i, 8) for i in [*range(9)]]


def test_the_encoder_runs_once(monkeypatch):
    """Once encoded, and no program that decodes contains the encoder."""
    calls, traced = [], []

    def count(name):
        program = getattr(clips, name).__wrapped__  # traced here, whatever was compiled before

        def counted(model, *args):
            calls.append(name)
            traced.append(name)
            return zeros(jax.eval_shape(functools.partial(program, model), *args))

        monkeypatch.setattr(clips, name, counted)

    def note(run, args, kwargs, context):
        if isinstance(context.module, Encoder) and context.method_name == "__call__":
            calls.append(f"the encoder in {traced[-1]}")
        return run(*args, **kwargs)

    def zeros(shapes):
        return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)

    net = model("kinetics", **SIZES)  # whose initialisation is not counted
    count("encode"), count("decode")
    with nn.intercept_methods(note):
        inference.autoencode(*net, *clip(), chunk_size=200)
    assert calls[:2] == ["encode", "the encoder in encode"]
    assert len(calls) > 3 and set(calls[2:]) == {"decode"}


def test_refusals():
    net, (video, audio) = model("kinetics", **SIZES), clip()
    for wrong in (video[:1], np.concatenate([video, video[:1]]), video[:0], video[:, :8]):
        with pytest.raises(ValueError, match="a multiple of 2 frames of 16 x 16 pixels, got"):
            inference.autoencode(*net, wrong, audio)
    with pytest.raises(ValueError, match="2 frames go with 128 samples of sound, got 127"):
        inference.autoencode(*net, video, audio[:-1])
    with pytest.raises(ValueError, match=r"audio must be float \[S\], got int16"):
        inference.autoencode(*net, video, audio.astype(np.int16))
    with pytest.raises(ValueError, match="uint8"):
        inference.autoencode(*net, video / 255, audio)
    with pytest.raises(ValueError, match="chunk_size=0"):
        inference.autoencode(*net, video, audio, chunk_size=0)
    with pytest.raises(ValueError, match="autoencode needs a model with Outputs"):
        inference.autoencode(*model("language"), video, audio)
