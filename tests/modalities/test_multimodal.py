"""Video, sound and label together: one softmax in, one decoder out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_jax import flops, pretrained
from perceiver_jax.layers import CrossAttention
from perceiver_jax.modalities import audio, label, multimodal, video
from perceiver_jax.position import Fourier, Table
from perceiver_jax.tokens import Tokens

SMALL = pretrained.released(
    "kinetics",
    num_frames=2,
    image_size=8,
    samples_per_frame=16,
    samples_per_patch=4,
    num_classes=5,
    audio_bands=3,
    video_bands=2,
    label_query_channels=6,
    output_channels=10,
    num_latents=4,
    latent_channels=16,
    num_self_attends_per_block=1,
)


@pytest.fixture(scope="module")
def small():
    model = SMALL.build()
    keys = jax.random.split(jax.random.key(1), 2)
    batch = {
        "audio": jax.random.normal(keys[0], (2, 32)),
        "label": jnp.array([3, -1]),
        "video": jax.random.uniform(keys[1], (2, 2, 8, 8, 3)),
    }
    variables = jax.jit(lambda: model.init(jax.random.key(0), batch, train=False))()
    return jax.jit(model.apply, static_argnames=("train", "method")), batch, variables


def test_space_to_depth_is_its_definition():
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 6, 3))
    y = np.asarray(video.space_to_depth(jnp.asarray(x), (2, 2, 3)))
    assert y.shape == (2, 2, 2, 2, 36)
    for t, r, c in np.ndindex(2, 2, 2):
        block = x[:, 2 * t : 2 * t + 2, 2 * r : 2 * r + 2, 3 * c : 3 * c + 3]
        np.testing.assert_allclose(y[:, t, r, c], block.reshape(2, 36), rtol=1e-6)
    with pytest.raises(ValueError, match=r"block=\(1, 4, 4\) must divide .*\(4, 4, 6\)"):
        video.space_to_depth(jnp.asarray(x), (1, 4, 4))


def test_every_patch_of_sound_is_a_token():
    tokens = audio.Patches(4, num_bands=3).apply({}, {"audio": jnp.arange(24.0)[None]}, train=False)
    np.testing.assert_array_equal(tokens.content[0], np.arange(24.0).reshape(6, 4))
    assert tokens.position.shape == (6,)
    with pytest.raises(ValueError, match="25 samples must divide by samples_per_patch=4"):
        audio.Patches(4).apply({}, {"audio": jnp.zeros((1, 25))}, train=False)


def test_a_label_is_one_token_and_none_when_unknown():
    tokens = label.OneHot(4).apply({}, {"label": jnp.array([2, -1])}, train=False)
    np.testing.assert_array_equal(tokens.content, [[[0, 0, 1, 0]], [[0, 0, 0, 0]]])


def test_chosen_places_leave_the_end_point_out():
    grid = Fourier((4, 10), 1)
    chosen = grid.replace(endpoint=False).take(jnp.array([39, 5])).table()[:, :2]
    np.testing.assert_allclose(chosen, [[-1 + 6 / 4, -1 + 18 / 10], [-1, 0]], atol=1e-6)
    np.testing.assert_allclose(grid.table()[39, :2], [1, 1])
    np.testing.assert_allclose(grid.take(jnp.array([39])).table()[0, :2], [1, 1])


def test_padding_is_the_same_for_every_token_and_last():
    padding = jnp.array([7.0, 8.0])
    tokens = Tokens(jnp.ones((2, 3, 1)), Table(jnp.zeros((3, 4))), padding=padding)
    dense = tokens.dense(jnp.float32)
    assert dense.shape == (2, 3, 7) and tokens.width == 7
    np.testing.assert_array_equal(dense[1, 2], [1, 0, 0, 0, 0, 7, 8])
    np.testing.assert_array_equal(tokens.take(jnp.array([1])).dense(jnp.float32), dense[:, :1])


def test_sets_read_together_are_one_array():
    """One softmax over all sets: merging equals concatenating. Masks and batch size 1 included."""
    key = jax.random.key(0)
    a = Tokens(jax.random.normal(key, (2, 5, 4)), padding=jnp.ones(2))
    b = Tokens(
        jax.random.normal(key, (2, 3, 6)), mask=jnp.array([[True, False, True], [False] * 3])
    )
    c = Tokens(position=Table(jax.random.normal(key, (2, 6))))
    dense = [jnp.broadcast_to(t.dense(jnp.float32), (2, t.num_tokens, 6)) for t in (a, b, c)]
    mask = jnp.concatenate([jnp.ones((2, 5), bool), b.mask, jnp.ones((2, 2), bool)], axis=1)
    joined = Tokens(jnp.concatenate(dense, axis=1), mask=mask)
    block = CrossAttention(num_heads=2)
    queries = Tokens(jax.random.normal(key, (1, 4, 8)))
    variables = jax.jit(functools.partial(block.init, train=False))(key, queries, joined)

    @jax.jit
    def run(inputs):
        return block.apply(variables, queries, inputs, train=False, mutable=["intermediates"])

    (one, seen), (many, seen_many) = run(joined), run({"a": a, "b": b, "c": c})
    np.testing.assert_allclose(many, one, atol=1e-5)
    np.testing.assert_allclose(run((c, a, b))[0], one, atol=1e-5)
    weights = [s["intermediates"]["attention"]["weights"][0] for s in (seen, seen_many)]
    np.testing.assert_allclose(weights[0], weights[1], atol=1e-6)
    with pytest.raises(ValueError, match=r"need one width, got \[6, 4\]"):
        run((a, Tokens(jnp.ones((2, 3, 4)))))


def ends(model, variables, batch):
    def run(model, batch):
        tokens = model.input(batch, train=False)
        return tokens, model.output.queries(tokens)

    return model.apply(variables, batch, method=run)


def test_widths_and_modalities(small):
    _, batch, variables = small
    tokens, queries = jax.eval_shape(functools.partial(ends, SMALL.build()), variables, batch)
    assert list(tokens) == ["audio", "label", "video"]
    widest = 16 * 3 + 3 * 5  # a block of video and its place
    assert {t.width for t in tokens.values()} == {widest + 4}
    assert {n: t.num_tokens for n, t in tokens.items()} == {"audio": 8, "label": 1, "video": 8}
    assert tokens["video"].content.shape[-1] == 48  # content and position stay apart
    assert {t.width for t in queries.values()} == {15 + 2}
    assert {n: t.num_tokens for n, t in queries.items()} == {"audio": 8, "label": 1, "video": 128}


def test_the_label_is_always_masked(small):
    apply, batch, variables = small
    run = functools.partial(apply, variables, train=False)
    first, second = run(batch), run(batch | {"label": jnp.array([0, 1])})
    assert {n: x.shape for n, x in first.items()} == {
        "audio": (2, 32),
        "label": (2, 5),
        "video": (2, 2, 8, 8, 3),
    }
    for name, x in first.items():
        np.testing.assert_array_equal(x, second[name])
    silent = run(batch | {"audio": jnp.zeros((2, 32))})
    assert not np.allclose(silent["video"], first["video"], atol=1e-6)


def test_chunks_of_outputs_are_those_of_the_whole(small):
    """Encode once, decode in chunks: the same as all chosen outputs at once."""
    run, batch, variables = small
    every = {"audio": jnp.arange(8), "video": jnp.arange(128), "label": None}
    whole = run(variables, batch, train=False, indices=every)
    tokens, latents = run(variables, batch, train=False, method="encode")
    decode = functools.partial(run, variables, tokens, latents, train=False, method="decode")
    parts = [
        decode(
            indices={
                "audio": jnp.arange(2 * i, 2 * i + 2),
                "video": jnp.arange(32 * i, 32 * i + 32),
            }
        )
        for i in range(4)
    ]
    assert set(parts[0]) == {"audio", "video"}  # the label was not asked for
    for name in ("audio", "video"):
        joined = jnp.concatenate([part[name] for part in parts], axis=1)
        np.testing.assert_allclose(joined, whole[name], atol=1e-5)
    inclusive = run(variables, batch, train=False)["video"].reshape(2, 128, 3)
    assert not np.allclose(inclusive, whole["video"], atol=1e-6)  # other places, by definition
    with pytest.raises(ValueError, match=r"indices names \['sound'\]"):
        run(variables, batch, train=False, indices={"sound": None})


def test_some_tokens_are_masked_in_training_only():
    def inputs(rates):
        return multimodal.Inputs(
            {"label": label.OneHot(3), "video": video.Blocks((1, 1, 1), 2)}, rates
        )

    batch = {"label": jnp.array([1, 2]), "video": jnp.ones((2, 1, 20, 20, 1))}
    half = inputs({"video": 0.25})
    variables = half.init(jax.random.key(0), batch, train=False)
    assert set(half.apply(variables, batch, train=False)) == {"label", "video"}
    tokens = half.apply(variables, batch, train=True, rngs={"dropout": jax.random.key(2)})
    visible, masked = tokens["video"], tokens["video:masked"]
    np.testing.assert_array_equal(visible.mask, ~masked.mask)
    assert 0.18 < masked.mask.mean() < 0.32
    np.testing.assert_array_equal(
        masked.dense(jnp.float32)[0, 7], variables["params"]["mask_video"]
    )
    with pytest.raises(ValueError, match=r"mask_rates names \['sound'\]"):
        inputs({"sound": 1.0}).apply(variables, batch, train=False)


def test_whole_modalities_are_dropped_in_training_only():
    """From some examples all tokens of a modality, and none from the others."""

    def inputs(**rates):
        modalities = {"label": label.OneHot(3), "video": video.Blocks((1, 1, 1), 2)}
        return multimodal.Inputs(modalities, {}, **rates)

    batch = {"label": jnp.zeros(200, int), "video": jnp.ones((200, 1, 3, 3, 1))}
    some = inputs(drop_rates={"video": 0.25})
    variables = some.init(jax.random.key(0), batch, train=False)
    assert set(some.apply(variables, batch, train=False)) == {"label", "video"}
    tokens = some.apply(variables, batch, train=True, rngs={"dropout": jax.random.key(1)})
    assert set(tokens) == {"label", "video", "video:masked"}
    masked = np.asarray(tokens["video:masked"].mask)
    np.testing.assert_array_equal(masked.any(axis=1), masked.all(axis=1))
    assert 0.15 < masked.all(axis=1).mean() < 0.35
    np.testing.assert_array_equal(tokens["video"].mask, ~masked)
    with pytest.raises(ValueError, match=r"drop_rates names \['sound'\], not among"):
        inputs(drop_rates={"sound": 0.1}).apply(variables, batch, train=False)


def test_dropped_modalities_are_zeros_at_their_positions():
    """Perceiver 2021, section 4.2; at a rate of 1 in evaluation too, for all examples at once."""

    def inputs(rate):
        modalities = {"label": label.OneHot(3), "video": video.Blocks((1, 1, 1), 2)}
        return multimodal.Inputs(modalities, {}, {"video": rate}, dropped="zeros")

    batch = {"label": jnp.zeros(200, int), "video": jnp.ones((200, 1, 3, 3, 1))}
    variables = inputs(0.25).init(jax.random.key(0), batch, train=False)
    plain = inputs(0.25).apply(variables, batch, train=False)
    assert set(plain) == {"label", "video"} and bool((plain["video"].content == 1).all())
    tokens = inputs(0.25).apply(variables, batch, train=True, rngs={"dropout": jax.random.key(1)})
    assert set(tokens) == {"label", "video"} and tokens["video"].mask is None
    content = np.asarray(tokens["video"].content)  # [B, M, c]
    dropped = (content == 0).all(axis=(1, 2))
    assert 0.15 < dropped.mean() < 0.35 and (content[~dropped] == 1).all()
    always = inputs(1.0).apply(variables, batch, train=False)["video"]
    assert always.content.shape == (1, 9, 1) and not always.content.any()
    for name in ("position", "padding"):
        assert getattr(always, name) is not None
    np.testing.assert_array_equal(
        always.dense(jnp.float32)[..., 1:], plain["video"].dense(jnp.float32)[:1, :, 1:]
    )


def test_masked_tokens_hold_nothing_as_wide_as_a_token(small):
    _, batch, variables = small
    tokens, _ = jax.eval_shape(functools.partial(ends, SMALL.build()), variables, batch)
    masked = tokens["label"]
    assert masked.content.shape == (1, 1, 0) and masked.position is None
    assert masked.width == tokens["video"].width


def test_a_spectrogram_has_a_token_per_window():
    """A tone is where its frequency is, and louder is more; silence is zero."""
    rate, hertz = 8000, 1000
    wave = np.sin(2 * np.pi * hertz / rate * np.arange(1024))
    sound = jnp.asarray(np.stack([wave, 0.1 * wave, 0 * wave]))
    tokens = audio.Spectrogram(128, 64, num_bands=2).apply({}, {"audio": sound}, train=False)
    assert tokens.content.shape == (3, 1 + (1024 - 128) // 64, 65)
    assert tokens.position.shape == (15,)
    content = np.asarray(tokens.content)
    assert (content[:2].argmax(-1) == hertz * 128 // rate).all()
    np.testing.assert_allclose(content[0].max(-1), np.log1p(0.5 / 1e-3), rtol=1e-3)
    np.testing.assert_allclose(content[1].max(-1), np.log1p(0.05 / 1e-3), rtol=1e-3)
    assert not content[2].any()
    with pytest.raises(ValueError, match="100 samples is shorter than one window=128"):
        audio.Spectrogram(128).apply({}, {"audio": jnp.zeros((1, 100))}, train=False)


def test_a_mel_spectrogram_has_a_token_per_band_of_a_window():
    """A tone is in the band whose peak is nearest in mel; white in hertz is level, not rising."""
    rate, mels = 8000, 10
    top = 2595 * np.log10(1 + 4000 / 700)
    peaks = 700 * (10 ** (np.arange(1, mels + 1) * top / (mels + 1) / 2595) - 1)  # hertz
    time = np.arange(1100) / rate
    tones = np.stack([np.sin(2 * np.pi * hertz * time) for hertz in peaks[[2, 8]]])
    click = np.zeros((1, 1100))
    click[0, 256] = 1.0  # amid the first window alone
    sound = jnp.asarray(np.concatenate([tones, click]))
    fields = {"samples_per_second": rate, "num_mels": mels, "window": 512, "hop": 256}
    module = audio.MelSpectrogram(**fields, num_bands=2)
    tokens = module.apply({}, {"audio": sound}, train=False)
    assert tokens.content.shape == (3, 3 * mels, 1) and tokens.position.shape == (3, mels)
    content = np.asarray(tokens.content).reshape(3, 3, mels)
    assert (content[0].argmax(-1) == 2).all() and (content[1].argmax(-1) == 8).all()
    np.testing.assert_allclose(content[2, 0], content[2, 0, 0], rtol=1e-3)
    assert content[2, 0, 0] > 1 and not content[2, 2].any()
    with pytest.raises(ValueError, match=r"of num_mels=400 bands hold none of the 257 frequencies"):
        audio.MelSpectrogram(**fields | {"num_mels": 400}).apply({}, {"audio": sound}, train=False)


def test_every_parameter_but_unused_mask_tokens_learns(small):
    apply, batch, variables = small

    def loss(params):
        result = apply({"params": params}, batch, train=False)
        return sum(jnp.sum(x**2) for x in result.values())

    grads = jax.jit(jax.grad(loss))(variables["params"])
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        unused = name in ("input/mask_audio", "input/mask_video", "input/padding_label")
        assert unused != np.any(grad) or name.endswith("key/bias"), name


def test_textbook_flops_count_all_modalities():
    model = SMALL.build()
    total = flops.textbook(model, dict(SMALL.batch))
    read = flops.encoder(model.encoder, 8 + 1 + 8, 67)
    answered = flops.decoder(model.decoder, model.encoder, 8 + 1 + 128, 17)
    heads = 137 * 17 * 10 + 8 * 10 * 4 + 10 * 5 + 128 * 10 * 3
    assert total == read + answered + 2 * heads
