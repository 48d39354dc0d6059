"""The loop: starting in four ways, stopping in three, and what is left on disk."""

import contextlib
import dataclasses
import gzip
import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest
import toy

from perceiver_jax.train import checkpoint, evaluation
from perceiver_jax.train.log import TIMING, read_metrics
from perceiver_jax.train.loop import evaluate, train
from perceiver_jax.train.profile import parse_span
from perceiver_jax.train.start import build
from perceiver_jax.train.stop import Diverged, Preempted
from perceiver_jax.train.workdir import load_config


def lines(workdir):
    """The metrics file without the times."""
    rows = read_metrics(workdir / "metrics.jsonl")
    return [{n: v for n, v in row.items() if n not in TIMING} for row in rows]


def final_state(workdir, task=None, config=None):
    program = build(task or toy.make_task(**NET), config or toy.make_config())
    return checkpoint.restore_newest(workdir / "checkpoints", program.target, warn=pytest.fail)


def steps_in(workdir):
    return [int(path.name) for path in checkpoint.checkpoints(workdir / "checkpoints")]


NET = {"dropout": 0.2, "noise": 0.1, "batch_norm": True}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run and what `train` returned."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    return workdir, train(toy.make_task(**NET), toy.make_config(), workdir)


def interrupting(task, at, action):
    """The task, with `action()` called before the batch of step `at` is made (prefetched)."""

    def train_data(start):
        batches = task.train_data(start)
        try:
            while True:
                if batches.step == at:
                    action()
                yield next(batches)
        finally:
            batches.close()

    return dataclasses.replace(task, train_data=train_data)


def preempt(workdir, at, task=None, config=None, number=signal.SIGTERM):
    task = interrupting(task or toy.make_task(**NET), at, lambda: os.kill(os.getpid(), number))
    with pytest.raises(Preempted) as raised:
        train(task, config or toy.make_config(), workdir)
    return raised.value


def test_result(finished):
    workdir, result = finished
    assert json.loads((workdir / "result.json").read_text()) == result
    assert set(result) == {
        "loss", "accuracy", "step", "seconds", "examples_per_second", "commit", "device",
    }  # fmt: skip
    assert result["step"] == 8 and result["seconds"] > 0
    assert steps_in(workdir) == [8, 6, 4]
    assert [(r["step"], r["kind"]) for r in lines(workdir)] == [
        *((n, "train") for n in range(1, 5)),
        (4, "eval"),
        *((n, "train") for n in range(5, 9)),
        (8, "eval"),
    ]


def test_a_finished_run_is_only_evaluated(finished, tmp_path, capsys):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    before = lines(workdir)
    (workdir / "result.json").unlink()
    result = train(toy.make_task(**NET), toy.make_config(), workdir)
    assert "finished: evaluating it again" in capsys.readouterr().out
    assert (result["loss"], result["step"]) == (finished[1]["loss"], 8)
    assert lines(workdir) == before and (workdir / "result.json").exists()


def test_a_tilde_is_the_home_folder(finished, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    workdir, result = finished
    shutil.copytree(workdir, tmp_path / "first")
    assert evaluate(toy.make_task(**NET), toy.make_config(), "~/first")["loss"] == result["loss"]
    for origin in ("weights", "run"):
        config = toy.make_config(**{f"start__{origin}": "~/first"})
        assert evaluate(toy.make_task(**NET), config, f"~/{origin}")["loss"] == result["loss"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "run", "weights"]


def test_evaluate(finished, tmp_path, capsys, monkeypatch):
    workdir, result = finished
    (workdir / "result.json").unlink()
    monkeypatch.setattr(evaluation, "EVALUATION_SAYS", 0.0)
    found = evaluate(toy.make_task(**NET), toy.make_config(), workdir)
    said = capsys.readouterr().out
    assert "toy\n" in said and "evaluating step 8" in said
    assert "evaluation | 16 examples | " in said and "evaluation | 32 examples | " in said
    assert json.loads((workdir / "result.json").read_text()) == found
    for name in ("loss", "accuracy", "step", "examples_per_second", "commit"):
        assert found[name] == result[name]
    # Exact: the same over batches of another size, whose last one is ragged in another way.
    again = evaluate(toy.make_task(**NET, eval_batch_size=8), toy.make_config(), workdir)
    for name in ("loss", "accuracy"):
        assert again[name] == pytest.approx(result[name], rel=1e-6)
    with pytest.raises(FileNotFoundError, match="nothing to evaluate"):
        evaluate(toy.make_task(**NET), toy.make_config(), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    # Weights of somewhere else, in a workdir of their own.
    config = toy.make_config(start__weights=str(workdir / "checkpoints" / "4"))
    older = evaluate(toy.make_task(**NET), config, tmp_path / "new")
    assert older["loss"] == next(r["loss"] for r in lines(workdir) if r["kind"] == "eval")
    assert (tmp_path / "new" / "result.json").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_preempted_run_goes_on_to_the_same_end(finished, tmp_path, number):
    """Stopped at step 5, where neither a checkpoint nor an evaluation is due."""
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    stopped = preempt(tmp_path / "run", at=5, number=number)
    assert stopped.exit_code == 75
    assert signal.Signals(number).name in str(stopped) and "same command" in str(stopped)
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers
    (newest, *_) = steps_in(tmp_path / "run")
    assert newest == 5
    assert not (tmp_path / "run" / "result.json").exists()
    result = train(toy.make_task(**NET), toy.make_config(), tmp_path / "run")
    toy.assert_equal(final_state(tmp_path / "run")[0], final_state(finished[0])[0])
    assert lines(tmp_path / "run") == lines(finished[0])
    assert result["loss"] == finished[1]["loss"]
    meta = final_state(tmp_path / "run")[1]
    assert meta["timer"]["timed_steps"] < 8 and meta["timer"]["seconds"] > 0


def test_preempted_in_an_evaluation(finished, tmp_path):
    """It is cut short, not logged, and made up for."""
    task = toy.make_task(**NET)
    calls = []

    def eval_data():
        calls.append(1)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return toy.eval_batches()

    with pytest.raises(Preempted):
        train(dataclasses.replace(task, eval_data=eval_data), toy.make_config(), tmp_path)
    assert (lines(tmp_path)[-1]["step"], lines(tmp_path)[-1]["kind"]) == (4, "train")
    train(task, toy.make_config(), tmp_path)
    assert lines(tmp_path) == lines(finished[0])


def test_lines_after_the_checkpoint_are_dropped_on_resuming(finished, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    for step in ("6", "8"):  # as if killed after step 8's lines, before its checkpoint and step 6's
        shutil.rmtree(workdir / "checkpoints" / step)
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "ki')
    train(toy.make_task(**NET), toy.make_config(), workdir)
    assert lines(workdir) == lines(finished[0])
    toy.assert_equal(final_state(workdir)[0], final_state(finished[0])[0])


def test_a_damaged_latest_checkpoint_costs_steps_not_the_run(finished, tmp_path, capsys):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints" / "8" / "weights")
    result = train(toy.make_task(**NET), toy.make_config(), workdir)
    said = capsys.readouterr()
    assert "8 is damaged" in said.err and "going on from step 6" in said.out
    assert [path.name for path in (workdir / "damaged").iterdir()] == ["8"]
    assert result["loss"] == finished[1]["loss"]
    toy.assert_equal(final_state(workdir)[0], final_state(finished[0])[0])


def test_a_workdir_of_another_config_is_refused(finished):
    config = toy.make_config(optimizer__b1=0.8, steps=9)
    before = sorted(str(path) for path in finished[0].rglob("*"))
    for function in (train, evaluate):
        with pytest.raises(ValueError) as raised:
            function(toy.make_task(**NET), config, finished[0])
        text = str(raised.value)
        assert "config.optimizer.b1: 0.9 -> 0.8" in text and "config.steps: 8 -> 9" in text
        assert "config.seed" not in text and "Choose another workdir" in text
    assert sorted(str(path) for path in finished[0].rglob("*")) == before


def test_the_config_can_be_read_back(finished, tmp_path):
    assert load_config(finished[0]).to_dict() == toy.make_config().to_dict()
    with pytest.raises(FileNotFoundError, match="not the workdir of a run"):
        load_config(tmp_path)


def test_continuing_another_run_is_the_longer_run(finished, tmp_path):
    config = toy.make_config(steps=12)
    train(toy.make_task(**NET), config, tmp_path / "long")
    continued = toy.make_config(steps=12, start__run=str(finished[0]))
    result = train(toy.make_task(**NET), continued, tmp_path / "continued")
    assert result["step"] == 12
    one, other = (final_state(tmp_path / name)[0] for name in ("long", "continued"))
    toy.assert_equal(one, other)
    assert lines(tmp_path / "continued")[0]["step"] == 8  # its evaluation
    assert steps_in(finished[0]) == [8, 6, 4]
    # Its own checkpoints come first from now on.
    again = train(toy.make_task(**NET), continued, tmp_path / "continued")
    assert again["loss"] == result["loss"]


def test_weights_start_a_fresh_optimizer_at_step_0(finished, tmp_path):
    config = toy.make_config(steps=1, start__weights=str(finished[0]))
    config.optimizer.learning_rate = 0.0
    train(toy.make_task(**NET), config, tmp_path / "tuned")
    tuned, before = final_state(tmp_path / "tuned", config=config)[0], final_state(finished[0])[0]
    toy.assert_equal(tuned.params, before.params)
    assert int(tuned.step) == 1
    counts = [x for name, x in toy.arrays(tuned.opt_state).items() if name.endswith("count")]
    assert counts and all(count == 1 for count in counts)
    mean = lambda s: np.array(s.model_state["batch_stats"]["batchnorm"]["mean"])  # noqa: E731
    assert np.abs(mean(tuned)).max() > 0
    with pytest.raises(checkpoint.Mismatch, match=r"differs: weights/params/head/kernel"):
        train(toy.make_task(**NET, width=4), config, tmp_path / "narrow")


def test_starts_that_cannot_be(tmp_path):
    task = toy.make_task()
    with pytest.raises(ValueError, match="set one of"):
        train(task, toy.make_config(start__run="a", start__weights="b"), tmp_path / "a")
    with pytest.raises(FileNotFoundError, match=r"config.start.run=.*no checkpoint in"):
        train(task, toy.make_config(start__run=str(tmp_path / "none")), tmp_path / "b")
    with pytest.raises(FileNotFoundError, match=r"no weights in .*none"):
        train(task, toy.make_config(start__weights=str(tmp_path / "none")), tmp_path / "c")


def test_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    """The batch of step 6 is poisoned, and step 6 is one to save: it must not be."""
    task = toy.make_task(poison=6)
    with pytest.raises(Diverged) as raised:
        train(task, toy.make_config(), tmp_path)
    assert raised.value.exit_code == 70
    text = str(raised.value)
    assert text.startswith("step 6: loss, l2_grads") and "last good checkpoint is 4" in text
    assert steps_in(tmp_path) == [4, 2]
    state, _ = final_state(tmp_path, task)
    assert all(np.isfinite(x).all() for x in toy.arrays(state).values())
    assert lines(tmp_path)[-1]["step"] == 6 and lines(tmp_path)[-1]["loss"] is None
    # Noticed one step late, it does not slip into a checkpoint of the next step either.
    with pytest.raises(Diverged, match=r"step 5: .*checkpoint is 4"):
        train(toy.make_task(poison=5), toy.make_config(), tmp_path / "odd")
    assert steps_in(tmp_path / "odd") == [4, 2]


def test_data_is_closed_however_the_run_ends(tmp_path):
    for poison in (None, 3):
        before = toy.Batches.closed
        with contextlib.suppress(Diverged):
            train(toy.make_task(poison=poison), toy.make_config(), tmp_path / str(poison))
        assert toy.Batches.closed == before + 1


def test_data_that_ends_is_an_error(tmp_path):
    task = dataclasses.replace(
        toy.make_task(), train_data=lambda start: iter([toy.examples(16, 0)] * 2)
    )
    with pytest.raises(RuntimeError, match="ended at step 2"):
        train(task, toy.make_config(), tmp_path)


@pytest.mark.parametrize(
    "switch",
    [
        {"seed": 1},
        {"accumulate": 2},
        {"eval_every": 3},
        {"log_every": 2},
        {"checkpoint_every": 4},
        {"checkpoints_kept": 1},
        {"tensorboard": True},
    ],
    ids=lambda switch: next(iter(switch)),
)
def test_switch_leaves_another_run_on_disk(finished, tmp_path, switch):
    if "tensorboard" in switch:
        pytest.importorskip("tensorboardX")

    def seen(workdir):
        loss = lines(workdir)[-1]["loss"]
        rows = [(row["step"], row["kind"]) for row in lines(workdir)]
        return {
            "weights": loss,
            "rows": rows,
            "checkpoints": steps_in(workdir),
            "board": (workdir / "tensorboard").exists(),
        }

    train(toy.make_task(**NET), toy.make_config(**switch), tmp_path)
    plain, switched = seen(finished[0]), seen(tmp_path)
    changed = {name for name in plain if plain[name] != switched[name]}
    expected = {
        "seed": {"weights"},
        "accumulate": {"weights"},
        "eval_every": {"rows"},
        "log_every": {"rows"},
        "checkpoint_every": {"checkpoints"},
        "checkpoints_kept": {"checkpoints"},
        "tensorboard": {"board"},
    }
    assert changed == expected[next(iter(switch))]


def test_starting_opens_no_data():
    task = dataclasses.replace(toy.make_task(**NET), train_data=None, eval_data=None)
    assert build(task, toy.make_config()).target.params["head"]["kernel"].shape == (8, 2)


def test_batch_size_must_divide(tmp_path):
    devices = jax.device_count()
    if devices == 1:
        pytest.skip("needs several devices")
    with pytest.raises(ValueError, match=f"config.batch_size={devices + 1}"):
        train(toy.make_task(), toy.make_config(batch_size=devices + 1), tmp_path / "w")
    assert not (tmp_path / "w").exists()


def test_profile_traces_the_steps_asked_for(tmp_path, capsys):
    train(toy.make_task(), toy.make_config(eval_every=0), tmp_path, profile=(3, 5))
    assert f"steps 3 to 5 are traced in {tmp_path / 'profile'}" in capsys.readouterr().out
    (trace,) = tmp_path.glob("profile/**/*.trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    steps = [e["args"]["step_num"] for e in events if e.get("name") == "train"]
    assert sorted(steps) == ["3", "4"]
    rows = [row for row in read_metrics(tmp_path / "metrics.jsonl") if "input_share" in row]
    assert len(rows) >= 5  # all but the one that compiled
    train(toy.make_task(), toy.make_config(eval_every=0), tmp_path, profile=(3, 5))
    assert "none of these steps was run" in capsys.readouterr().err  # the run is finished
    for row in rows:
        shares = [row[f"{name}_share"] for name in ("input", "device", "host")]
        assert sum(shares) == pytest.approx(1) and min(shares) >= 0


def test_profile_span():
    assert parse_span("10:15") == (10, 15) and parse_span("") is None
    for text in ("10", "15:10", "a:b", "5:5"):
        with pytest.raises(ValueError, match="write START:STOP"):
            parse_span(text)
