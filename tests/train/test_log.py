"""The timer, the metrics file and the progress line."""

import json
import math
import sys

import pytest

from perceiver_jax.train.log import Log, Recent, Timer, duration, progress, read_metrics


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_timer_leaves_out_pauses_and_the_compile():
    clock = Clock()
    timer = Timer(clock=clock)
    clock.now = 10.0  # compiling the first step
    timer.tick()
    assert math.isnan(timer.overall())
    for _ in range(4):
        clock.now += 0.5
        timer.tick()
    with timer.pause():
        clock.now += 100.0
    clock.now += 0.5
    timer.tick()
    assert timer.seconds == 12.5
    assert timer.overall() == timer.recent().steps_per_second == 2.0

    again = Timer(**timer.saved(), clock=clock)  # a restart
    clock.now += 7.0
    again.tick()
    clock.now += 1.0
    again.tick()
    assert again.seconds == 20.5
    assert again.recent().steps_per_second == 1.0
    assert again.overall() == pytest.approx(6 / 3.5)


def test_the_time_of_a_step_is_split():
    clock = Clock()
    timer = Timer(clock=clock)

    def step(input, device, host):
        with timer.waiting("input"):
            clock.now += input
        clock.now += host
        with timer.waiting("device"):
            clock.now += device
        timer.tick()

    step(50.0, 50.0, 50.0)  # compiling: not counted
    step(1.0, 2.0, 1.0)
    step(1.0, 2.0, 1.0)
    assert timer.recent() == Recent(0.25, {"input": 0.25, "device": 0.5, "host": 0.25})
    assert timer.recent() == Recent(0.25, {})  # nothing since


def test_log_drops_what_came_after_the_step_and_never_writes_twice(tmp_path):
    log = Log(tmp_path, step=0, tensorboard=False)
    for step in (1, 2, 3):
        log.write(step, "train", {"loss": 1.0 / step})
    log.write(2, "eval", {"loss": math.nan})
    log.close()
    path = tmp_path / "metrics.jsonl"
    with path.open("a") as file:
        file.write('{"step": 3, "kind": "ev')  # killed within a line
    log = Log(tmp_path, step=2, tensorboard=False)
    assert log.has(2, "eval") and not log.has(3, "train")
    log.write(2, "eval", {"loss": 5.0})
    log.write(3, "train", {"loss": 0.0})
    log.close()
    assert read_metrics(path) == [
        {"step": 1, "kind": "train", "loss": 1.0},
        {"step": 2, "kind": "train", "loss": 0.5},
        {"step": 2, "kind": "eval", "loss": None},  # strict JSON knows no nan
        {"step": 3, "kind": "train", "loss": 0.0},
    ]
    assert "NaN" not in path.read_text()


def test_tensorboard_is_optional_and_says_how_to_get_it(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    log = Log(tmp_path, step=0, tensorboard=True)
    log.write(1, "train", {"loss": 1.0})
    log.close()
    assert list((tmp_path / "tensorboard").glob("events*"))
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"perceiver_jax\[tensorboard\]"):
        Log(tmp_path, step=0, tensorboard=True)
    Log(tmp_path / ".", step=0, tensorboard=False).close()


def test_progress_line():
    line = progress(
        1200,
        4000,
        {"loss": 0.12345, "accuracy": 0.5},
        recent=Recent(35.0, {"input": 0.1, "device": 0.8, "host": 0.1}),
        batch_size=100,
        flops_per_example=1e8,
    )
    assert line == (
        "step 1200/4000 30% | loss 0.1235 accuracy 0.5 | 3.5k examples/s | 1.05 TFLOP/s model | "
        "1m20s left"
    )
    sizes = {"batch_size": 1, "flops_per_example": 1.0}
    unknown = progress(1, 4, {"loss": 1.0}, recent=Recent(math.nan, {}), **sizes)
    assert unknown == "step 1/4 25% | loss 1"
    shares = {"input": 0.6, "device": 0.3, "host": 0.1}
    bound = progress(1, 4, {"loss": 1.0}, recent=Recent(1.0, shares), **sizes)
    assert bound.endswith("3s left | input-bound: 60% of the time waits for data")
    assert [duration(s) for s in (9.4, 80, 7500)] == ["9s", "1m20s", "2h05m"]
    assert json.dumps(line)
