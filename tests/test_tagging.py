"""Labels of clips: single ones in training, whole files in evaluation, modalities hidden."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clip_files import write_tagged_clips

from configs import audioset, common
from experiments.tasks import tagging
from experiments.tasks.data import TaskData
from perceiver_jax import flops
from perceiver_jax.metrics import mean_average_precision
from perceiver_jax.train import evaluation, sharding
from perceiver_jax.train.start import Program
from perceiver_jax.train.state import TrainState
from perceiver_jax.train.step import make_eval_step

COUNT = 5  # files; the third is damaged


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audioset")
    write_tagged_clips(folder, count=COUNT, damaged=(2,))
    config = audioset.get_config("raw:tiny")
    config.data.data_dir = str(folder)
    config.model.output.num_classes = 6  # the last two are nowhere
    return config


@pytest.fixture(scope="module")
def task(config):
    return tagging.make_task(config)


@pytest.fixture(scope="module")
def variables(task):
    """Of small numbers, none of them zero."""
    shapes = jax.eval_shape(
        lambda: task.model.init(
            jax.random.key(0), task.prepare(dict(task.example), None), train=False
        )
    )
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.2, x.shape), jnp.float32), shapes)


def test_targets_and_pixels(task):
    batch = next(task.eval_data())
    prepared = task.prepare(batch, None)
    np.testing.assert_array_equal(batch["row"], [0, 0, 1, 1, 2, 2, 3, 3])
    np.testing.assert_array_equal(
        prepared["target"][::2],
        [[1, 0, 1, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0] * 6, [1, 0, 1, 0, 0, 0]],
    )
    np.testing.assert_array_equal(prepared["mask"], [1, 1, 1, 1, 0, 0, 1, 1])
    np.testing.assert_allclose(prepared["video"], batch["video"] / 127.5 - 1, atol=1e-6)


def evaluate(task, variables, sizes=(1, 2)):
    """The evaluation of the loop with the task's own data, in batches on one and on two devices."""
    state = TrainState(jnp.int32(0), variables["params"], {}, {}, jax.random.key(0))
    results = []
    for devices in sizes:
        layout = sharding.make_layout(common.parallel(), jax.devices()[:devices])
        target = sharding.place(jax.eval_shape(lambda: state), layout)
        step = sharding.compile_eval_step(make_eval_step(task), layout, target)
        placed = jax.device_put(state, sharding.replicated(layout.mesh))
        program = Program(layout, None, None, target, None, step)
        results.append(evaluation.evaluate_state(task, program, placed))
    return results


def test_map_is_that_of_the_whole_evaluation_on_any_number_of_devices(task, variables):
    """Two ragged batches, unreadable clips among them, against all clips at once."""

    def predict(variables, batch):
        """Cheap, and another number for every clip."""
        mean = jnp.mean(batch["video"], axis=(1, 2, 3, 4))[:, None]
        return jnp.sin(mean * jnp.arange(1.0, 7.0)[None] * 20)

    task = dataclasses.replace(task, predict=predict)
    parts = [task.prepare(batch, None) for batch in task.eval_data()]
    assert [int(p["mask"].sum()) for p in parts] == [6, 2]
    rows = [task.collect(predict(None, part), part) | {"mask": part["mask"]} for part in parts]
    rows = [{n: np.asarray(x)[np.asarray(r["mask"])] for n, x in r.items()} for r in rows]
    whole = {name: np.concatenate([r[name] for r in rows]) for name in rows[0]}
    assert whole["score"].shape == (8, 6)
    expected = mean_average_precision(whole)
    parted = np.mean([mean_average_precision(r) for r in rows])
    assert abs(parted - expected) > 0.01  # no mean over batches
    for result in evaluate(task, variables):
        assert result["mean_average_precision"] == pytest.approx(expected, rel=1e-6)
        assert set(result) == {"loss", "mean_average_precision"}


def test_what_is_hidden_has_no_say(config, task, variables):
    """Each clip beside the same with another video, and with another sound."""
    config = config.copy_and_resolve_references()
    config.tagging.eval_hidden = ("video",)
    hidden = tagging.make_task(config)
    assert hidden.description[-2] == "eval: hidden from the model: video"
    batch = next(task.eval_data())
    three = {name: np.repeat(x[:1], 3, axis=0) for name, x in batch.items()}
    three["video"][1] = 255 - three["video"][1]
    three["audio"][2] = three["audio"][2][::-1]

    @jax.jit
    def changes(variables, batch):
        logits = [t.predict(variables, t.prepare(batch, None)) for t in (task, hidden)]
        return jnp.stack([jnp.abs(x - x[:1]).max(axis=1) > 1e-5 for x in logits])

    expected = [[False, True, True], [False, False, True]]
    np.testing.assert_array_equal(changes(variables, three), expected)


def test_the_table_names_labels_and_guesses(config, task, variables):
    source = type("Source", (), {"classes": list("abcd"), "paths": ["x.mp4", "y.mp4"]})
    batch = {name: x[:3] for name, x in next(task.eval_data()).items()}
    task_data = TaskData(None, lambda: (x for x in [batch]), (), source)
    rows = tagging.draw(config.model.to_dict(), task.prepare, task_data, variables, 3)["tags"]
    assert [(r["file"], r["labels"]) for r in rows] == [
        ("x.mp4", "a; c"), ("x.mp4", "a; c"), ("y.mp4", "b"),
    ]  # fmt: skip
    assert list(rows[0]) == ["file", "labels", "all", "audio alone", "video alone"]
    guesses = [guess.split() for guess in rows[0]["all"].split("; ")]
    assert {name for name, _ in guesses} == set("abcd")
    scores = [float(score) for _, score in guesses]
    assert scores == sorted(scores, reverse=True) and 0 <= scores[-1] < scores[0] <= 1


def test_wrong_tasks_are_named(config, task):
    with pytest.raises(
        ValueError, match=r"whole_metrics \['mean_average_precision'\] need Task.col"
    ):
        make_eval_step(dataclasses.replace(task, collect=None))
    with pytest.raises(ValueError, match=r"\['loss'\] are reported by every step already"):
        make_eval_step(dataclasses.replace(task, whole_metrics={"loss": mean_average_precision}))
    config = config.copy_and_resolve_references()
    config.model.output.num_classes = 3
    with pytest.raises(ValueError, match=r"has 4 classes, but config.model.output.num_classes=3"):
        tagging.make_task(config)


@pytest.mark.parametrize(
    ("variant", "tokens", "parameters", "gflop"),
    [
        ("raw", 12_544 + 480, 109.05e6, 177.3),
        ("mel", 12_544 + 4_800, 109.05e6, 194.1),
        ("io_raw", 12_544 + 480, 25.0e6, 52.9),
        ("io_mel", 12_544 + 4_800, 88.2e6, 129.5),
    ],
)
def test_the_papers_inputs(variant, tokens, parameters, gflop):
    """Perceiver IO, Table 5: 13,024 or 17,344 tokens of 487 channels; Table 10: sizes of `io_*`."""
    config = audioset.get_config(variant)
    model = tagging.build(config.model.to_dict())
    batch = {
        "video": jax.ShapeDtypeStruct((1, 32, 224, 224, 3), jnp.float32),
        "audio": jax.ShapeDtypeStruct((1, 61_440), jnp.float32),
    }
    read = lambda b: model.init_with_output(  # noqa: E731
        jax.random.key(0), b, method=lambda m, b: m.input(b, train=False)
    )[0]
    parts = jax.eval_shape(read, batch)
    shapes = jax.eval_shape(lambda b: model.init(jax.random.key(0), b, train=False), batch)
    count = sum(x.size for x in jax.tree.leaves(shapes))
    assert count == pytest.approx(parameters, rel=0.02)
    assert flops.textbook(model, batch) / 1e9 == pytest.approx(gflop, rel=0.005)
    assert sum(part.num_tokens for part in parts.values()) == tokens
    assert {part.width for part in parts.values()} == {487}
    options = config.data.source_options
    assert options.num_frames * options.samples_per_second / options.frames_per_second == 61_440
