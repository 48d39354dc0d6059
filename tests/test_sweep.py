"""The sweep: its commands, and which run is the best."""

import csv
import json
import shlex

import pytest
from calling import call

from configs import glue
from experiments import sweep
from perceiver_jax.train.workdir import as_json, make_ours

RTE = "--config=configs/glue.py:rte"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Calls the command on RTE in a folder."""

    def run(*args):
        flags = [RTE, f"--workdir={tmp_path}", "--config.data.data_dir=tfds", *args]
        return call("experiments.sweep", *flags, monkeypatch=monkeypatch, capsys=capsys)

    return run


def finish(point, **result):
    """Leaves what a finished run leaves."""
    make_ours(point.folder / "config.json", as_json(point.config))
    result = {"accuracy": 0.5, "step": 9, "seconds": 1.0, "commit": "abc"} | result
    (point.folder / "result.json").write_text(json.dumps(result))


def points(tmp_path):
    config = glue.get_config("rte")
    config.data.data_dir = "tfds"
    return sweep.points(config, sweep.TABLE_13, tmp_path)


def test_the_grid_is_that_of_table_13(tmp_path):
    found = points(tmp_path)
    assert len(found) == 12 == len({point.folder for point in found})
    sizes = {
        (point.config.batch_size, point.config.optimizer.learning_rate): point.config.steps
        for point in found
    }
    rates = (1e-4, 5e-5, 2e-5, 1e-5)
    assert sizes == {(b, r): 10 * 2490 // b for b in (16, 32, 64) for r in rates}


def test_the_commands_are_of_the_runs_that_are_not_finished(tmp_path, run):
    code, out, said = run()
    commands = [shlex.split(line) for line in out.splitlines()]
    assert code == 0 and len(commands) == 12 and said == "0 of 12 runs are finished"
    assert commands[0] == [
        *("python", "-m", "experiments.run", RTE, "--config.data.data_dir=tfds"),
        *("--config.batch_size=16", "--config.optimizer.learning_rate=1e-4"),
        f"--workdir={tmp_path}/batch_size-16_learning_rate-1e-4",
    ]
    finish(points(tmp_path)[0])
    code, out, said = run()
    assert len(out.splitlines()) == 11 and said == "1 of 12 runs are finished"
    assert "batch_size-16_learning_rate-1e-4" not in out


def test_the_best_is_chosen_by_the_metric(tmp_path, run):
    found = points(tmp_path)
    finish(found[0], accuracy=0.61, loss=0.9)
    finish(found[5], accuracy=0.64, loss=0.7)
    finish(found[7], accuracy=None, loss=None)
    code, out, said = run("--collect")
    assert code == 0 and said == "3 of 12 runs are finished"
    assert out.startswith("best accuracy 0.64: batch_size 32, optimizer.learning_rate 5e-5 (")
    _, out, _ = run("--collect", "--metric=loss")
    assert out.startswith("best loss 0.9: batch_size 16")
    _, out, _ = run("--collect", "--metric=loss", "--lowest")
    assert out.startswith("best loss 0.7: batch_size 32")
    with (tmp_path / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["accuracy"] for row in rows] == ["0.61", "0.64", ""]
    assert rows[1]["batch_size"] == "32" and rows[1]["folder"] == found[5].folder.name
    code, _, said = run("--collect", "--metric=f1")
    assert code == 1 and "--metric=f1 is in no result; there are ['accuracy', 'loss'" in said


def test_runs_of_another_config_are_refused(tmp_path, run):
    point = points(tmp_path)[3]
    point.config.seed = 7
    finish(point)
    for args in ((), ("--collect",)):
        code, _, said = run(*args)
        assert code == 1 and "config.seed: 7 -> 0" in said and "\n" not in said.partition("(")[0]


def test_a_test_split_is_warned_of(tmp_path, run):
    config = glue.get_config("rte")
    config.data.data_dir, config.data.eval_split = "tfds", "test"
    finish(sweep.points(config, sweep.TABLE_13, tmp_path)[0])
    code, _, said = run("--collect", "--config.data.eval_split=test")
    assert code == 0 and "config.data.eval_split='test': its score is too good" in said


def test_a_run_that_is_not_allowed_is_named(tmp_path, monkeypatch, capsys):
    """WNLI in batches of 32 has fewer steps than the warm-up."""
    flags = ["--config=configs/glue.py:wnli", f"--workdir={tmp_path}"]
    code, _, said = call("experiments.sweep", *flags, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 1 and "the run batch_size-32_learning_rate-1e-4 of the sweep: config." in said
