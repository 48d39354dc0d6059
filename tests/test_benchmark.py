"""The benchmark: what it times is what it says, and what goes wrong is a row that says so."""

import contextlib
import csv
import sys

import jax
import numpy as np
import pytest
from failing_contenders import dying, failing

from configs import digits, points
from experiments.benchmark import __main__ as benchmark
from experiments.benchmark import contenders, port, reading, step
from experiments.benchmark.cases import CASES, SUITES
from experiments.benchmark.worker import Job, SkipError, answer, turn
from perceiver_jax import flops
from perceiver_jax.attention import softmax
from perceiver_jax.datasets import load

BEST = benchmark.Best(1e9, "given", "cpu")


def full_size(name):
    case = CASES[name]
    return case.make(case.batch_size, False, "float32")


@pytest.mark.parametrize(
    ("name", "inputs", "gflop"),
    [
        ("imagenet_fourier_b1", 224 * 224, 406.1),
        ("imagenet_fourier_b4", 224 * 224, 4 * 406.1),
        ("perceiver_2021", 224 * 224, 706.3),
        ("mnist_pixels", 28 * 28, None),
        ("imagenet_learned", 224 * 224, None),
        ("imagenet_conv", 56 * 56, None),
        ("language", 2048, None),
        ("flow_368x496", 368 * 496, None),
        ("kinetics_clip", 16 * 56 * 56 + 1920 + 1, None),
        ("kinetics_step", 16 * 56 * 56 + 1920 + 1, 260),
        ("pixels_16m", 2**24, None),
        ("audio_1m", 2**20, None),
        ("ar_131072", 131_072, None),
        ("sweep_2048x4096", 2**23, None),
    ],
)
def test_cases_have_the_sizes_of_their_names(name, inputs, gflop):
    subject = full_size(name)
    assert sum(tokens.num_tokens for tokens in subject.inputs()) == inputs
    assert gflop is None or subject.textbook == pytest.approx(gflop * 1e9, rel=1e-3)


FIRST = {case.suite: name for name, case in reversed(CASES.items())}  # of each suite


@pytest.mark.parametrize("name", FIRST.values())
def test_every_suite_is_small_when_tiny_and_its_phases_trace(name, monkeypatch):
    """Nothing is compiled: shapes go through every phase."""

    def trace(costs, function, *arguments, calls=1, donate=()):
        traced.append(jax.eval_shape(function, *arguments))

    monkeypatch.setattr(contenders.Costs, "compile", trace)
    monkeypatch.setattr(contenders, "initialize", jax.eval_shape)
    for phase in CASES[name].phases:
        traced = []
        program = contenders.ours(Job(name, phase, tiny=True))
        assert traced
        assert 0 < program.facts["inputs"] <= 2000
        assert program.facts["textbook_flops"] > 0


def test_a_clip_is_encoded_once_or_for_each_chunk_and_all_of_it_is_answered(monkeypatch):
    asked, encoding = {}, []

    def trace(costs, function, *arguments, calls=1, donate=()):
        answer = jax.eval_shape(function, *arguments)
        costs.executed += calls * flops.executed(function, *arguments)
        if function.__name__ == "encode":
            encoding.append(flops.executed(function, *arguments))

        def call(*args):
            asked.setdefault(function.__name__, []).append(args[-1])
            return answer if function.__name__ == "encode" else {}

        return call

    monkeypatch.setattr(contenders.Costs, "compile", trace)
    monkeypatch.setattr(contenders, "initialize", jax.eval_shape)
    job = Job("kinetics_clip", "autoencode", tiny=True)
    once, again = contenders.ours(job), contenders.rerun(job)
    once.run(), again.run()
    assert {name: len(args) for name, args in asked.items()} == {
        "encode": 1,
        "decode": 4,
        "everything": 4,
    }
    for name in ("decode", "everything"):
        for modality, count in (("video", 4 * 32 * 32), ("audio", 4 * 64 // 16)):
            chosen = np.concatenate([part[modality] for part in asked[name]])
            assert set(chosen.tolist()) == set(range(count))
        assert [part["label"] for part in asked[name]] == [None] * 4
    # The same answers, and the encoding three times more.
    more = again.facts["executed_flops"] - once.facts["executed_flops"]
    assert more == pytest.approx(3 * encoding[0])


def test_dense_memory_is_foreseen():
    """Beside the temporaries of the compiled dense program: 516 MB, and 1.46 GB with gradients."""
    subject = full_size("cross_attention_224")
    for phase, measured in (("forward", 516e6), ("gradient", 1460e6)):
        expected = contenders.dense_bytes(subject, Job("cross_attention_224", phase))
        assert 0.6 < measured / expected < 1


def test_dense_is_not_tried_where_it_cannot_fit(monkeypatch):
    monkeypatch.setattr(softmax, "forced", contextlib.nullcontext, raising=False)
    monkeypatch.setattr(contenders, "free_memory", lambda: 20e9)
    monkeypatch.setattr(contenders, "build", None)  # is not reached
    with pytest.raises(SkipError, match=r"the dense formula needs 27\d\.\d GB, 20\.0 GB are free"):
        contenders.dense(Job("pixels_16m", "gradient"))


def test_a_rematerialisation_policy_is_a_contender():
    job = Job("imagenet_fourier_16x16", "gradient", tiny=True)
    (_, chosen), *_ = benchmark.plan(["latents"], ["remat_full"])
    built = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contenders, "build", lambda subject, job: built.append(subject))
        for contender in chosen.values():
            contender(job)
    assert list(chosen) == ["ours", "remat_full"]
    assert [subject.model.encoder.remat for subject in built] == ["dots", "full"]


def test_what_does_not_fit_is_compiled_and_not_run(monkeypatch):
    monkeypatch.setattr(contenders, "free_memory", lambda: 1e6)
    with pytest.raises(SkipError, match="the compiled program needs"):
        contenders.Costs().compile(lambda x: x @ x, jax.ShapeDtypeStruct((600, 600), "float32"))


def test_plan_leaves_out_what_there_is_not_for_a_case():
    jobs = {
        (job.case, job.phase): list(chosen)
        for job, chosen in benchmark.plan(["flow", "kinetics"], ["rerun", "torch"], tiny=True)
    }
    assert jobs == {
        ("flow_368x496", "forward"): ["ours", "torch"],
        ("kinetics_clip", "autoencode"): ["ours", "rerun", "torch"],
    }
    assert {CASES[job.case].suite for job, _ in benchmark.plan(["all"], [])} == set(SUITES)


@pytest.mark.parametrize(
    ("suites", "against", "message"),
    [
        (["imagnet"], [], "--suite=imagnet is none of cross_attention, imagenet"),
        (["imagenet"], ["tensorflow"], "--against=tensorflow is none of ours, dense"),
    ],
)
def test_unknown_names_are_named(suites, against, message):
    with pytest.raises(ValueError, match=message):
        benchmark.plan(suites, against)


def test_the_docstring_explains_every_suite_contender_and_column():
    said = ["suite", "case", "phase", "contender", "inputs", "batch_size", "dtype"]
    said += ["command", "commit", "hardware", "software", "date"]
    names = {*SUITES, *benchmark.CONTENDERS, *benchmark.COLUMNS} - {*said}
    names = {"remat_POLICY" if n.startswith("remat_") else n for n in names}
    names = {n.replace("executed_util", "*_util").replace("textbook_util", "*_util") for n in names}
    assert not [name for name in names if name not in benchmark.__doc__]


def test_turns_alternate_and_ratios_are_of_medians(monkeypatch):
    turns = []

    class Clock:
        status = "ok"

        def __init__(self, contender, job):
            self.name, self.seconds = contender
            self.facts = {"compile_seconds": 1.0, "executed_flops": 4e9, "textbook_flops": 8e9}

        def turn(self):
            turns.append(self.name)
            return self.seconds.pop(0)

        def close(self):
            pass

    monkeypatch.setattr(benchmark, "Worker", Clock)
    chosen = {"ours": ("ours", [1.0, 9.0, 2.0]), "dense": ("dense", [8.0, 7.0, 4.0])}
    job = Job("flow_368x496", "forward")
    (rows,) = benchmark.measure([(job, chosen)], 3, lambda text, steps: None)
    benchmark.complete(rows, benchmark.Best(4e9, "given", "cpu"))
    assert turns == ["ours", "dense"] * 3
    assert [row["median_seconds"] for row in rows] == [2.0, 7.0]
    assert [row["times_ours"] for row in rows] == [1.0, 3.5]
    assert (rows[0]["lowest_seconds"], rows[0]["highest_seconds"]) == (1.0, 9.0)
    assert rows[0]["executed_utilisation"] == 0.5
    assert rows[0]["textbook_utilisation"] == 1.0

    turns.clear()
    plan = [
        (Job("sweep_64x64", "forward"), {"ours": ("small", [9.0, 1.0, 9.0, 2.0])}),
        (Job("sweep_128x128", "forward"), {"ours": ("large", [9.0, 3.0, 9.0, 3.0])}),
    ]
    groups = benchmark.measure(plan, 2, lambda text, steps: None)
    assert turns == ["small", "small", "large", "large"] * 2  # the first of two is not timed
    assert [row["median_seconds"] for (row,) in groups] == [1.5, 3.0]


def test_the_sizes_of_a_curve_take_turns():
    def phases(suite):
        jobs = benchmark.plan([suite], ["dense"], tiny=True)
        return [[(job.case, job.phase) for job, _ in group] for group in benchmark.together(jobs)]

    forward, gradient = phases("sweep")
    assert len(forward) > 5 and {phase for _, phase in forward} == {"forward"}
    assert [case for case, _ in gradient] == [case for case, _ in forward]
    assert all(len(group) == 1 for group in phases("released"))


def test_a_suite_with_several_sizes_is_drawn(tmp_path):
    known = {"suite": "sweep", "phase": "forward", "contender": "ours", "status": "ok"}
    rows = [known | {"case": str(n), "inputs": n, "median_seconds": n / 7} for n in (4, 8, 16)]
    table, picture = benchmark.write(tmp_path, rows)
    assert next(csv.DictReader(table.open()))["median_seconds"] == "0.5714"
    assert picture.name == "benchmark_sweep.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert benchmark.write(tmp_path, rows[:2]) == [table]
    models = [row | {"suite": "released"} for row in rows]  # of which each has a size of its own
    assert [path.suffix for path in benchmark.write(tmp_path, models)] == [".csv"]


def test_a_short_run_is_repeated_within_its_turn():
    runs = []
    assert turn(lambda: runs.append(1)) < 0.01
    assert len(runs) > 10


def test_what_is_refused_says_why():
    def refused():
        raise SkipError("too large")

    assert answer(refused) == ("skipped: too large", None)
    assert answer(lambda: 3) == ("ok", 3)


def test_what_fails_is_a_row_and_the_rest_goes_on(tmp_path, capsys):
    chosen = {"failing": failing, "dying": dying, "ours": contenders.ours}
    jobs = [(Job("cross_attention_224", "forward", tiny=True), chosen)]
    _, paths = benchmark.run(jobs, BEST, tmp_path, repeats=2)
    assert paths == [tmp_path / "benchmark_cross_attention.csv"]
    rows = {row["contender"]: row for row in csv.DictReader(paths[0].open())}
    assert rows["failing"]["status"] == "failed: ValueError: out of luck"
    assert rows["dying"]["status"].startswith("failed: the process ended with exit code -9 (killed")
    assert not rows["failing"]["median_seconds"]
    ours = rows["ours"]
    assert ours["status"] == "ok" and len(ours["all_seconds"].split()) == 2
    assert float(ours["median_seconds"]) > 0 and float(ours["times_ours"]) == 1
    assert float(ours["compile_seconds"]) > 0 and int(ours["temporaries_bytes"]) > 0
    assert 1e8 < int(ours["peak_rss_bytes"]) < 2e9
    assert float(ours["executed_flops"]) > 0 and int(ours["inputs"]) == 7 * 7
    assert all(ours[name] for name in ("command", "hardware", "software", "date"))
    assert "left" in capsys.readouterr().out


def test_without_pytorch_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="pip install torch transformers"):
        port.port(Job("flow_368x496", "forward", tiny=True))


@pytest.mark.parametrize(
    ("name", "phase"),
    [
        ("imagenet_fourier_b1", "gradient"),
        ("imagenet_learned", "forward"),
        ("imagenet_conv", "forward"),
        ("language", "gradient"),
        ("flow_368x496", "forward"),
        ("kinetics_clip", "autoencode"),
    ],
)
def test_the_port_runs_at_the_same_sizes(name, phase):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    program = port.port(Job(name, phase, tiny=True))
    program.run()
    subject = contenders.make_subject(Job(name, phase, tiny=True))
    assert program.facts["inputs"] == sum(tokens.num_tokens for tokens in subject.inputs())


def test_a_step_is_timed_from_where_the_config_starts():
    config = digits.get_config("standard:tiny")
    config.batch_size = 16  # for each of the tests' devices two
    config.optimizer.multipliers = (("", 0.0), ("output", 1.0))
    row = step.time_step(config.copy_and_resolve_references(), steps=1)
    assert row["parameters_trained"] == 32 + 33 * 10 < row["parameters"] == 29_104
    assert 0 < row["seconds"] < 60 and row["peak_gb"] > 0.1 and row["batch_size"] == 16


def test_reading_counts_a_configs_examples_and_keeps_a_row_for_each_source(tmp_path):
    row = reading.measure(points.get_config("shapes:tiny"), 10)
    assert row["source"] == "shapes" and row["examples"] >= 10 and row["cpu_ms_per_example"] > 0
    for source, cost in (("texts", 2), ("shapes", 3), ("shapes", 1)):
        reading.write(tmp_path / "r.csv", row | {"source": source, "cpu_ms_per_example": cost})
    with (tmp_path / "r.csv").open(newline="") as file:
        found = [(r["source"], r["cpu_ms_per_example"]) for r in csv.DictReader(file)]
    assert found == [("shapes", "1"), ("texts", "2")]


def test_written_pairs_are_autoflows(tmp_path):
    reading.write_pairs(tmp_path, 1)
    source = load("autoflow", "train", data_dir=tmp_path)
    assert len(source) == 1
    assert source[0]["frames"].shape == (2, 448, 576, 3)
    assert source[0]["field"].shape == (448, 576, 2)
