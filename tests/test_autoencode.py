"""The autoencoding experiment: what is asked for, hidden, left out, weighed and reported."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clip_files import write_clips

from configs import kinetics
from experiments.tasks import autoencode
from experiments.tasks.data import TaskData
from perceiver_jax import metrics, pretrained
from perceiver_jax.build import build
from perceiver_jax.train.state import TrainState
from perceiver_jax.train.step import make_eval_step

FRAMES, SIZE, SAMPLES = 4, 32, 256


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    write_clips(folder, count=4, damaged=(2,))
    config = kinetics.get_config("tiny")
    config.data.data_dir = str(folder)
    config.data.eval_batch_size = 4
    config.autoencode.eval_chunk_size = 1000  # 4,096 pixels do not divide by it
    config.autoencode.train_outputs = {"video": 24, "audio": 6}
    return config.lock()


@pytest.fixture(scope="module")
def task(config):
    return autoencode.make_task(config)


@pytest.fixture(scope="module")
def batch(task):
    return jax.tree.map(jnp.asarray, next(task.eval_data()))


@pytest.fixture(scope="module")
def variables(task, batch):
    """Of small numbers, none of them zero."""
    shapes = jax.eval_shape(
        lambda: task.model.init(jax.random.key(0), task.prepare(batch, None), train=False)
    )
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.15, x.shape), jnp.float32), shapes)


@pytest.fixture(scope="module")
def whole(task, batch, variables):
    return jax.jit(task.predict)(variables, task.prepare(batch, None))


def test_the_target_is_what_is_asked_for(task, batch):
    prepared = jax.jit(task.prepare)(batch, jax.random.key(1))
    indices, target = prepared["indices"], prepared["target"]
    assert indices["label"] is None
    assert {n: indices[n].shape for n in ("video", "audio")} == {"video": (4, 24), "audio": (4, 6)}
    pixels = batch["video"].reshape(4, -1, 3)
    patches = batch["audio"].reshape(4, -1, 16)
    for b in range(4):  # each example is asked for places of its own
        chosen = np.asarray(indices["video"][b])
        np.testing.assert_allclose(target["video"][b], pixels[b][chosen] / 255, atol=1e-6)
        chosen = np.asarray(indices["audio"][b])
        np.testing.assert_array_equal(target["audio"][b], patches[b][chosen].reshape(-1))
    assert len(np.unique(np.asarray(indices["video"]), axis=0)) == 4
    again = jax.jit(task.prepare)(batch, jax.random.key(2))["indices"]["video"]
    assert not np.array_equal(again, indices["video"])


def test_some_outputs_are_those_of_the_whole(task, batch, variables, whole):
    """Per-example indices, all in chunks within one program, and the model itself agree."""
    prepared = task.prepare(batch, jax.random.key(1)) | {"mask": jnp.ones(4, bool)}
    model = autoencode.hide(kinetics.get_config("tiny").model.to_dict(), ("label",))
    some = jax.jit(functools.partial(model.apply, train=False))(variables, prepared)
    assert {n: x.shape for n, x in whole.items()} == {
        "video": (4, FRAMES, SIZE, SIZE, 3),
        "audio": (4, SAMPLES),
        "label": (4, 10),
    }
    for name, parts in (("video", 3), ("audio", 16)):
        every = np.asarray(whole[name]).reshape(4, -1, parts)
        chosen = np.asarray(prepared["indices"][name])[..., None]
        expected = np.take_along_axis(every, chosen, axis=1)
        np.testing.assert_allclose(some[name].reshape(expected.shape), expected, atol=2e-5)
    np.testing.assert_allclose(some["label"], whole["label"], atol=2e-5)


def test_what_is_hidden_has_no_say(config, batch, variables):
    """Four examples: one, and the same with another label, sound and video."""
    prepared = autoencode.prepare_clips(
        jax.tree.map(lambda x: jnp.repeat(x[:1], 4, axis=0), batch),
        None,
        num_classes=10,
        samples_per_patch=16,
        outputs={},
    )
    for row, name in enumerate(("label", "audio", "video"), 1):
        prepared[name] = prepared[name].at[row].add(1)

    @jax.jit
    def changes(variables, batch):
        result = []
        for names in ((), ("label", "audio"), ("video",)):
            model = autoencode.hide(config.model.to_dict(), names)
            _, latents = model.apply(variables, batch, train=False, method="encode")
            result.append(jnp.abs(latents - latents[:1]).max(axis=(1, 2))[1:] > 1e-4)
        return jnp.stack(result)

    expected = [[True, True, True], [False, False, True], [True, True, False]]
    np.testing.assert_array_equal(changes(variables, prepared), expected)


def test_the_evaluation_leaves_out_what_cannot_be_read(task, batch, whole):
    """And takes `Task.predict` at its word."""
    np.testing.assert_array_equal(batch["readable"], [True, True, False, True])
    task = dataclasses.replace(task, predict=lambda variables, batch: whole)
    sums, _ = make_eval_step(task)(TrainState(0, {}, {}, {}, jax.random.key(0)), batch)
    readable = np.asarray(batch["readable"])
    error = (np.asarray(whole["video"]) - np.asarray(batch["video"]) / 255) ** 2
    psnr = -10 * np.log10(error.reshape(4, -1).mean(1))
    np.testing.assert_allclose(sums["psnr_video"], (psnr[readable].sum(), 3), rtol=1e-4)
    video = np.abs(np.asarray(whole["video"]) - np.asarray(batch["video"]) / 255)
    audio = np.abs(np.asarray(whole["audio"]) - np.asarray(batch["audio"]))
    chances = np.asarray(jax.nn.log_softmax(whole["label"]))
    entropy = -chances[np.arange(4), np.asarray(batch["label"])]
    loss = 0.03 * video.reshape(4, -1).mean(1) + audio.mean(1) + 1e-4 * entropy
    np.testing.assert_allclose(sums["loss"], (loss[readable].sum(), 3), rtol=1e-4)


def test_psnr():
    prediction = jnp.array([[0.5, 0.5], [0.0, 0.0], [1.0, 1.0]])
    batch = {"target": jnp.array([[0.4, 0.6], [0.0, 0.0], [0.0, 0.0]])}
    batch["mask"] = jnp.array([True, True, False])
    total, count = metrics.psnr(prediction, batch)
    np.testing.assert_allclose((total, count), (20 + 100, 2), rtol=1e-5)
    total, _ = metrics.psnr(prediction, batch, peak=2.0)
    np.testing.assert_allclose(total, 20 + 100 + 2 * 20 * np.log10(2), rtol=1e-5)


def released_size():
    config = kinetics.get_config()
    shape = {"video": (1, 16, 224, 224, 3), "audio": (1, 30720), "label": (1, 700)}
    target = {name: jax.ShapeDtypeStruct(s, jnp.float32) for name, s in shape.items()}
    batch = target | {"target": target, "label": jax.ShapeDtypeStruct((1,), jnp.int32)}
    return build(config.model.to_dict()), batch


def test_the_paper_s_model_has_its_size_and_its_compression():
    """Perceiver IO, Table 4: "88x" counts 480 sound tokens, we 1,920."""
    model, batch = released_size()
    shapes = jax.eval_shape(lambda b: model.init(jax.random.key(0), b, train=False), batch)
    assert sum(x.size for x in jax.tree.leaves(shapes)) == 19_858_855
    released = pretrained.released("kinetics").shapes
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, released)
    padded, values = autoencode.compression(model, batch)
    assert padded == 52_097 * 704 / (784 * 512)
    assert round(50_657 / 52_097 * padded) == 89  # the paper cuts it to 88
    assert values == 2_439_868 / (784 * 512)


def test_the_variants_differ_in_the_label_s_weight():
    plain, label = (kinetics.get_config(v) for v in ("autoencode", "label"))
    assert (plain.autoencode.loss_weights.label, label.autoencode.loss_weights.label) == (1e-4, 1)
    label.autoencode.loss_weights.label = 1e-4
    assert plain.to_json() == label.to_json()


def test_unknown_losses_are_refused(config):
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.autoencode.losses.video = "squares"
    with pytest.raises(ValueError, match=r"losses\.video='squares' is not in perceiver_jax/losses"):
        autoencode.make_task(config)


def test_losses_are_those_of_the_config():
    prediction, target = {"a": jnp.array([[3.0, 1.0]])}, {"a": jnp.array([[0.0, 2.0]])}
    for name, expected in (("mean_squared_error", 5.0), ("mean_absolute_error", 2.0)):
        functions = autoencode.loss_functions({"a": name})
        loss = autoencode.weighted_loss(functions, {"a": 0.5}, prediction, {"target": target})
        np.testing.assert_allclose(loss, [0.5 * expected])


def test_too_many_classes_are_refused(config):
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.model.output.modalities.label.num_classes = 2
    with pytest.raises(ValueError, match=r"clips\[validate\] has 3 classes, but .*num_classes=2"):
        autoencode.make_task(config)


def test_each_modality_seen_is_also_left_out():
    spec = {"input": {"modalities": {"video": {}, "label": {}, "audio": {}}}}
    assert autoencode.views(spec, ("label",)) == {
        "": ("label",),
        "_without_audio": ("label", "audio"),
        "_without_video": ("label", "video"),
    }
    assert autoencode.views(spec, ("label", "audio")) == {"": ("label", "audio")}


@pytest.fixture(scope="module")
def drawn(config, task, batch, variables, whole):
    """Of two clips; what is decoded without video is silent."""
    task_data = TaskData(None, lambda: (x for x in [jax.tree.map(np.asarray, batch)]), (), None)
    two = {name: x[:2] for name, x in whole.items()}
    return autoencode.draw(
        autoencode.hide(config.model.to_dict(), ("label",)),
        {
            "": lambda variables, batch: two,
            "_without_video": lambda variables, batch: two | {"audio": 0 * two["audio"]},
        },
        task.prepare,
        task_data,
        25,
        variables,
        2,
    )


def test_the_mass_is_that_of_the_attention_weights(config, task, batch, variables, drawn):
    """Beside weights computed here, of the dense tokens."""
    model = autoencode.hide(config.model.to_dict(), ("label",))
    batch = task.prepare(jax.tree.map(lambda x: x[:2], batch), None)
    tokens = model.apply(variables, batch, method=lambda m, b: m.input(b, train=False))
    params = jax.tree.map(np.asarray, variables["params"]["encoder"])
    names = params["cross_attend"]

    def normed(x, norm):
        x = np.asarray(x, np.float64)
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * norm["scale"] + norm["bias"]

    def project(x, name):
        weights = names["attention"][name]
        return x @ weights["kernel"] + weights["bias"]

    query = project(normed(params["latents"], names["norm_queries"]), "query")
    logits = {
        name: project(normed(np.asarray(part.dense(jnp.float32)), names["norm_inputs"]), "key")
        @ query.T
        for name, part in tokens.items()
    }  # [B, M, N]
    sums = {n: np.exp(x / np.sqrt(query.shape[-1])).sum(1) for n, x in logits.items()}
    table, total = drawn["attention_mass_table"], sum(sums.values())
    assert [row["latent"] for row in table] == [*range(8), "share of all tokens"]
    for name, value in sums.items():
        found = [row[name] for row in table[:-1]]
        np.testing.assert_allclose(found, np.broadcast_to(value / total, (2, 8)).mean(0), rtol=1e-3)
    counts = {name: part.num_tokens for name, part in tokens.items()}
    expected = {name: count / sum(counts.values()) for name, count in counts.items()}
    np.testing.assert_allclose([table[-1][n] for n in expected], [*expected.values()], rtol=1e-6)


def test_the_pictures_show_the_clip_and_what_became_of_it(batch, whole, drawn):
    axes = drawn["reconstructions"].axes
    rows, columns = 2, 4 + 2  # frames, wave and spectrogram; once per clip the label
    assert len(axes) == 2 * (rows * columns + 1)
    guess = int(np.argmax(whole["label"][0]))
    assert axes[0].get_title(loc="left") == f"0, taken for {guess}\nclip, frame 0"
    np.testing.assert_array_equal(axes[1].images[0].get_array(), batch["video"][0, 1])
    decoded = np.clip(whole["audio"], -1, 1)
    np.testing.assert_allclose(axes[4].lines[0].get_ydata(), batch["audio"][0])
    np.testing.assert_allclose(axes[10].lines[0].get_ydata(), decoded[0])
    assert axes[12].get_yticklabels()[0].get_text() == str(guess)
    np.testing.assert_allclose(
        axes[12].patches[0].get_width(), jax.nn.softmax(whole["label"][0]).max(), rtol=1e-5
    )
    seen = drawn["clips"]
    assert seen.video.shape == (2 * FRAMES, 2 * 2 * 2 * SIZE, 2 * 2 * SIZE, 3)
    np.testing.assert_array_equal(seen.video[FRAMES, : 4 * SIZE : 4, ::4], batch["video"][1, 0])
    np.testing.assert_array_equal(seen.audio, decoded[:2].ravel())
    assert (seen.frames_per_second, seen.samples_per_second) == (25, 25 * SAMPLES // FRAMES)
    assert not drawn["clips_without_video"].audio.any()
    assert len(drawn["reconstructions_without_video"].axes) == len(axes)
