"""The lab's runner: what is trained, skipped, refused and written; no training but in the last."""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import types

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tfds_files import write_tfds

from configs import lab, lab_change, lab_models, robustness
from experiments import check_config
from experiments.lab import __main__ as lab_command
from experiments.lab import runner, surgery
from experiments.lab.studies import RATES, STUDIES, TOLERANCE, TUNING_SEED
from perceiver_jax import flops
from perceiver_jax.build import build
from perceiver_jax.datasets.shifts import imagenet9
from perceiver_jax.train.stop import Diverged

IN9 = [f"{k:02d}_class" for k in range(9)]
ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.fixture
def trained(monkeypatch):
    """Stands in for the training: the list of what was trained, as (folder, learning rate)."""
    done = []

    def train(task, config, folder, *, program):
        rate = config.optimizer.learning_rate
        done.append(("/".join(folder.parts[-3:]), rate))
        accuracy = 1 - abs(rate - 2e-3) * 100
        values = {"accuracy": accuracy, "accuracy_uncorrelated": accuracy, "step": config.steps}
        return values | {"seconds": 1.0, "commit": "", "device": ""}

    params = {"kernel": jnp.zeros((3, 2))}
    program = types.SimpleNamespace(target=types.SimpleNamespace(params=params))
    task = types.SimpleNamespace(flops_per_example=2.8e6)
    monkeypatch.setattr(runner, "make_task", lambda config: task)
    monkeypatch.setattr(runner.start, "build", lambda task, config: program)
    monkeypatch.setattr(runner.loop, "train", train)
    monkeypatch.setattr(runner, "commit", lambda: "abc")
    return done


def table(workdir, study="sea"):
    with (workdir / f"lab_{study}.csv").open() as file:
        return list(csv.DictReader(file))


def sea_jobs(seeds=1, shard=(0, 1)):
    """The jobs of two models and one cue; without a correlation, rho 0.95 and 0.99."""
    found = runner.jobs(["sea"], seeds, tiny=False, shard=shard)
    wanted = {"stem", "vit"}, {"", "texture"}, {0.1, 0.95, 0.99}
    cells = [(job.cell.model, job.cell.cue, job.cell.rho) for job in found]
    return [
        job
        for job, cell in zip(found, cells, strict=True)
        if all(value in values for value, values in zip(cell, wanted, strict=True))
    ]


CELLS = [job.cell.name for job in sea_jobs() if job.learning_rate is None]


def test_every_cell_is_a_valid_config():
    for variant in lab.CELLS:
        check_config(lab.get_config(variant))
    assert len(lab.CELLS) == sum(len(study) for study in lab.STUDIES.values())
    assert set(lab.VARIANTS) <= set(lab.CELLS)


def test_models_cost_the_same():
    shapes = {"image": jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)}
    costs = [flops.forward(build(lab_models.model(m, 10).to_dict()), shapes) for m in lab.MODELS]
    for name in ("sea", "dominoes", "regularisation", "conv"):
        assert all(abs(cost / STUDIES[name].flops - 1) < TOLERANCE for cost in costs), costs
    with pytest.raises(ValueError, match=r"costs 4\.2 MFLOP .* configs/lab_models\.py"):
        STUDIES["sea"].check_cost(lab.STUDIES["sea"][0], 4.2e6)


def test_what_takes_another_input_costs_the_same_unless_the_input_is_larger():
    study = STUDIES["change"]
    for cell in study.cells(tiny=False):
        same = cell.setting in (*lab_change.EVALUATED, "raw", "wrong_places", "image")
        if (same and cell.model != "learned") or cell.setting.endswith("_6"):
            continue  # `test_models_cost_the_same`, or as without
        config = lab.get_config(f"change.{cell.name}")
        cost = flops.forward(build(config.model.to_dict()), surgery.example(config))
        study.check_cost(cell, cost)
        if cell.setting in ("side_by_side", "sound_below"):
            before = lab.get_config(f"change.{cell.model}.{lab_change.BEFORE[cell.setting]}")
            small = flops.forward(build(before.model.to_dict()), surgery.example(before))
            assert 1.9 < cost / small < 2.2, "the picture is twice as large"


@pytest.mark.parametrize(
    ("name", "share", "modules"),
    [
        ("pixels.two_eyes", 0.0, 0),  # its input module alone
        ("pixels.separate_eyes", 0.101, 1),  # keys and values of tokens with a code; the module
        ("resnet.two_eyes", 0.012, 0),  # its first convolution
        ("resnet.side_by_side", 0.0, 0),
        ("vit.side_by_side", 0.029, 0),  # positions
        ("pixels.image_and_sound", 0.174, 2),  # tokens are wider: keys and values
        ("resnet.image_and_sound", 0.324, 1),  # the second trunk
        ("resnet.wrong_places", 0.0, 0),
    ],
)
def test_surgery_is_counted(name, share, modules):
    found = STUDIES["change"].about(lab.CELLS[f"change.{name}"])
    assert found["surgery_share"] == pytest.approx(share, abs=1e-3)
    assert found["surgery_modules"] == modules


def test_the_seed_draws_data_and_weights():
    config = lab.get_config("sea.stem.colour.rho95")
    config.seed = 7
    assert config.data.source_options.seed == 7
    assert runner.config_hash(config) == runner.config_hash(lab.get_config("sea.stem.colour.rho95"))
    config.optimizer.learning_rate = 0.5
    assert runner.config_hash(config) != runner.config_hash(lab.get_config("sea.stem.colour.rho95"))


def test_the_rate_is_chosen_without_the_shortcut_by_a_seed_that_no_cell_has(trained, tmp_path):
    runner.Runner(tmp_path, sea_jobs()).run()
    tried, cells = trained[: 2 * len(RATES)], trained[2 * len(RATES) :]
    assert {rate for _, rate in tried} == set(RATES) and {rate for _, rate in cells} == {2e-3}
    for model, variant in STUDIES["sea"].tuning.cells.items():
        cell = lab.CELLS[variant]
        assert (cell.model, cell.rho, cell.setting) == (model, lab.CHANCE["sea"], "base")
    assert all(row["seed"] != str(TUNING_SEED) for row in table(tmp_path))
    told = json.loads((tmp_path / "tuning.json").read_text())
    assert "2e-3" in told["rule"] or "0.002" in told["rule"]
    assert told["sea"]["vit"]["chosen"] == 2e-3 and len(told["sea"]["vit"]["tried"]) == len(RATES)


def test_a_row_says_what_was_trained(trained, tmp_path):
    runner.Runner(tmp_path, sea_jobs()).run()
    rows = {row["cell"]: row for row in table(tmp_path)}
    assert list(rows) == CELLS
    row = rows["vit.texture.rho99"]
    wanted = {"study": "sea", "model": "vit", "cue": "texture", "rho": "0.99", "setting": "base"}
    wanted |= {"seed": "0", "status": "ok", "learning_rate": "0.002", "commit": "abc"}
    wanted |= {"parameters": "6", "steps": str(lab.STEPS["sea"])}
    assert wanted.items() <= row.items()
    assert row["command"] == (
        "python -m experiments.run --config=configs/lab.py:sea.vit.texture.rho99 --config.seed=0 "
        f"--config.optimizer.learning_rate=0.002 --workdir={tmp_path}/sea/vit.texture.rho99/0"
    )


def test_what_is_finished_is_not_trained_again(trained, tmp_path):
    runner.Runner(tmp_path, sea_jobs()).run()
    before = len(trained)
    runner.Runner(tmp_path, sea_jobs()).run()
    assert len(trained) == before
    runner.Runner(tmp_path, sea_jobs(seeds=2)).run()
    assert len(trained) == before + len(CELLS)


def test_a_killed_lab_goes_on(trained, tmp_path, monkeypatch):
    train = runner.loop.train

    def killed(task, config, folder, *, program):
        if len(trained) == 12:
            raise KeyboardInterrupt
        return train(task, config, folder, program=program)

    monkeypatch.setattr(runner.loop, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        runner.Runner(tmp_path, sea_jobs()).run()
    assert len(trained) == 12
    monkeypatch.setattr(runner.loop, "train", train)
    runner.Runner(tmp_path, sea_jobs()).run()
    assert len(trained) == len(set(trained)) == len(sea_jobs())


def test_conv_has_the_same_steps_and_model_at_every_number_of_images():
    """So its cells cost the same; the test shows the training images too."""
    configs = {v: lab.get_config(v) for v in lab.CELLS if v.startswith("conv.stem.")}
    for variant, config in configs.items():
        n, options = lab.CELLS[variant].n, config.data.source_options
        assert config.data.train_split == f"train[:{n}]" and options.seen == n
        moved = "wrong_places(0) | " * ("wrong_places" in variant)
        assert config.data.eval == f"{moved}keep('image', 'label', 'ground', 'condition')"
        assert config.data.train == f"flip | {moved}keep('image', 'label')"
    assert len({config.steps for config in configs.values()}) == 1
    base, shuffled = (configs[f"conv.stem.{s}n500"].model.to_dict() for s in ("", "shuffled_stem."))
    assert shuffled["input"].pop("permutation_seed") == lab_change.PERMUTATION + 1
    assert base["input"].pop("permutation_seed") is None and base == shuffled


def test_large_cells_are_those_that_are_asked_for():
    few, all_of_them = (
        [job.cell for job in runner.jobs(["conv"], 1, tiny=False, large=large) if job.seed == 0]
        for large in (False, True)
    )
    assert {cell.n for cell in few} == set(lab.COUNTS) and len(few) == 27
    assert {cell.n for cell in set(all_of_them) - set(few)} == {lab.LARGE}


def test_the_accuracy_is_that_on_images_as_they_are(trained, tmp_path, monkeypatch):
    values = {"accuracy": 0.2, "accuracy_original": 0.6, "step": 1, "seconds": 1.0}
    monkeypatch.setattr(runner.loop, "train", lambda *_, **__: dict(values))
    job = runner.Job("conv.stem.n500", 0, "conv/stem.n500/0", learning_rate=1e-3)
    row = runner.Runner(tmp_path, [job]).take(job)
    assert row["accuracy"] == 0.6 and row["n"] == 500 and row["rho"] is None


def test_a_cell_that_diverges_is_a_row(trained, tmp_path, monkeypatch):
    train = runner.loop.train

    def diverge(task, config, folder, *, program):
        if "stem.texture.rho95" in str(folder) or "tuning/sea/vit/0.002" in str(folder):
            raise Diverged("step 3: loss not finite")
        return train(task, config, folder, program=program)

    monkeypatch.setattr(runner.loop, "train", diverge)
    runner.Runner(tmp_path, sea_jobs()).run()
    rows = {row["cell"]: row for row in table(tmp_path)}
    assert rows["stem.texture.rho95"]["status"] == "diverged"
    assert rows["stem.texture.rho95"]["accuracy"] == ""
    assert rows["vit.uncorrelated"]["learning_rate"] == "0.001"
    assert sum(row["status"] == "ok" for row in rows.values()) == len(rows) - 1


def test_another_commit_or_config_is_refused(trained, tmp_path, monkeypatch):
    runner.Runner(tmp_path, sea_jobs()).run()
    monkeypatch.setattr(runner, "commit", lambda: "def")
    with pytest.raises(ValueError, match=r"lab_sea\.csv: .* commit 'abc', this is 'def': check"):
        runner.Runner(tmp_path, sea_jobs()).run()
    monkeypatch.setattr(runner, "commit", lambda: "abc")
    monkeypatch.setattr(lab, "STEPS", lab.STEPS | {"sea": 5000})
    with pytest.raises(ValueError, match=r"score\.json: .* has the config_hash '"):
        runner.Runner(tmp_path, sea_jobs()).run()


def test_permuted_pixels_are_no_training(trained, tmp_path, monkeypatch):
    """The weights of the same seed are evaluated, after they were trained; in one shard."""
    evaluated = []

    def evaluate(task, config, folder):
        evaluated.append((config.start.weights, config.model.input.permutation_seed))
        return {"accuracy": 0.5, "step": 1, "seconds": 1.0}

    monkeypatch.setattr(runner.loop, "evaluate", evaluate)
    monkeypatch.setattr(runner.permuted, "difference", lambda task, config, program: 1e-6)
    for shard in range(3):
        jobs = [
            job
            for job in runner.jobs(["change"], 2, tiny=False, shard=(shard, 3))
            if job.cell.model == "pixels" and job.cell.setting in ("raw", "permuted")
        ]
        for lone in (jobs[::-1], jobs):  # whichever comes first
            runner.Runner(tmp_path / str(shard), lone).run()
    assert len(evaluated) == 2
    for weights, seed in evaluated:
        shard, *_, place = pathlib.Path(weights).relative_to(tmp_path).parts
        assert "/".join(pathlib.Path(weights).parts[-3:]) in [folder for folder, _ in trained]
        rows = {(r["cell"], r["seed"]): r for r in table(tmp_path / shard, "change")}
        row = rows["pixels.permuted", place]
        assert seed == lab_change.PERMUTATION and row["steps"] == "0"
        assert row["logits_difference"] == "1e-06"
        assert f"--mode=eval --config.start.weights={weights}" in row["command"]


@pytest.mark.slow
def test_permuted_pixels_give_the_same_logits(tmp_path):
    """Of trained weights, as the study asserts."""
    images = [(np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8), "png", i % 10)
              for i in range(12)]  # fmt: skip
    write_tfds(tmp_path / "tfds", "cifar10", "3.0.2", {"train": images, "test": images})
    jobs = [
        job
        for job in runner.jobs(["change"], 1, tiny=True)
        if job.cell.model == "pixels" and job.cell.setting in ("raw", "permuted")
    ]
    lone = runner.Runner(tmp_path, jobs, data_dir=str(tmp_path / "tfds"), tiny=True)
    lone.run()
    raw, permuted = table(tmp_path, "change")
    assert raw["cell"] == "pixels.raw" and permuted["cell"] == "pixels.permuted"
    assert 0 <= float(permuted["logits_difference"]) < 1e-4
    assert permuted["accuracy"] == raw["accuracy"]


def test_released_weights_are_evaluated_once_by_name_or_from_a_folder(
    trained, tmp_path, monkeypatch
):
    evaluated = []

    def evaluate(task, config, folder):
        evaluated.append((config.data.source, config.data.data_dir, config.start.weights))
        return {"accuracy": 0.5, "accuracy_original": 0.9, "bg_gap": 0.1, "step": 0, "seconds": 1.0}

    monkeypatch.setattr(runner.loop, "evaluate", evaluate)
    jobs = runner.jobs(["released"], 5, tiny=False)
    assert len(jobs) == 21 and {job.seed for job in jobs} == {0}
    some = [job for job in jobs if job.variant.endswith(("fourier.imagenet9", "conv.imagenet_a"))]
    for folder in ("", "weights"):
        runner.Runner(tmp_path / f"run{folder}", some, data_dir="data", weights=folder).run()
    assert not trained and evaluated == [
        ("imagenet9", "data/imagenet9", "imagenet_fourier"),
        ("some_classes", "data", "imagenet_conv"),
        ("imagenet9", "data/imagenet9", "weights/imagenet_fourier"),
        ("some_classes", "data", "weights/imagenet_conv"),
    ]
    row = table(tmp_path / "run", "released")[0]
    assert (row["setting"], row["bg_gap"], row["steps"]) == ("imagenet9", "0.1", "0")


@pytest.mark.slow
def test_released_in_its_exact_formats(tmp_path, monkeypatch):
    """Random weights of a workdir, two images of each class of ImageNet-9: a row."""
    config = robustness.get_config("imagenet9.fourier:tiny")
    config.steps, config.optimizer.schedule.warmup_steps = 0, 0
    runner.loop.train(runner.make_task(config), config, tmp_path / "weights/imagenet_fourier")
    for variation in ("original", "mixed_same", "mixed_rand"):
        for k, name in enumerate(IN9):
            folder = tmp_path / "data/imagenet9" / variation / "val" / name
            folder.mkdir(parents=True)
            for i in range(2):
                image = np.random.default_rng((k, i)).integers(0, 256, (24, 24, 3), np.uint8)
                cv2.imwrite(str(folder / f"{i}.JPEG"), image)
    mapping = {str(i): i % 9 if i < 18 else -1 for i in range(1000)}
    (tmp_path / "data/imagenet9" / imagenet9.MAP).write_text(json.dumps(mapping))

    def small(variant):
        found = robustness.get_config("imagenet9.fourier:tiny")
        found.data.source, found.data.train_split, found.data.eval_split = "imagenet9", "", "val"
        found.start.weights = "imagenet_fourier"
        return found

    monkeypatch.setattr(lab, "get_config", small)
    job = runner.Job("released.fourier.imagenet9", 0, "released/fourier.imagenet9/0")
    given = {"data_dir": str(tmp_path / "data"), "weights": str(tmp_path / "weights")}
    assert lab_command.with_data([job], *given.values()) == [job]
    runner.Runner(tmp_path / "lab", [job], **given).run()
    (row,) = table(tmp_path / "lab", "released")
    assert row["status"] == "ok" and row["accuracy"] == row["accuracy_original"] != ""
    assert float(row["bg_gap"]) == pytest.approx(
        float(row["accuracy_mixed_same"]) - float(row["accuracy_mixed_rand"])
    )
    with pytest.raises(ValueError, match=r"released is left out: --weights='none' has no imagenet"):
        lab_command.with_data([job], given["data_dir"], "none")


def test_a_cell_that_another_process_has_is_left_to_it(trained, tmp_path):
    jobs = sea_jobs()
    mine, other = (runner.Runner(tmp_path, jobs) for _ in range(2))
    with runner.lock_file(tmp_path / "claims" / jobs[0].folder.replace("/", "."), warn=print):
        assert mine.take(jobs[0]) is None
    assert other.take(jobs[0])["status"] == "ok"
    assert mine.take(jobs[0]) is None, "it is done"
    assert len(trained) == 1


def test_shards_share_the_cells_and_have_the_rates_they_need():
    parts = [sea_jobs(seeds=2, shard=(i, 3)) for i in range(3)]
    cells = [job for part in parts for job in part if job.learning_rate is None]
    assert sorted(job.folder for job in cells) == sorted(
        job.folder for job in sea_jobs(seeds=2) if job.learning_rate is None
    )
    for part in parts:
        models = {job.cell.model for job in part}
        assert {j.cell.model for j in part if j.learning_rate is not None} == models
    with pytest.raises(ValueError, match="--shard=2/2: write i/n"):
        lab_command.parse_part("shard", "2/2")


def test_some_studies_have_another_number_of_seeds():
    seeds = lab_command.parse_seeds("5,conv=3")
    assert seeds["sea"] == 5 and seeds["conv"] == 3
    found = runner.jobs(["sea", "conv"], seeds, tiny=True)
    counts = {
        name: {job.seed for job in found if job.cell.study == name and job.learning_rate is None}
        for name in ("sea", "conv")
    }
    assert counts == {"sea": set(range(5)), "conv": set(range(3))}
    for text in ("", "0", "five", "5,con=3", "conv=3"):
        with pytest.raises(ValueError, match=f"--seeds={text}: "):
            lab_command.parse_seeds(text)


def test_cells_share_programs(trained, tmp_path, monkeypatch):
    made = []
    program = runner.start.build(None, None)
    monkeypatch.setattr(runner.start, "build", lambda *_: made.append(1) or program)
    jobs = [job for job in sea_jobs(seeds=2) if job.learning_rate is None]
    lone = runner.Runner(tmp_path, jobs)
    monkeypatch.setattr(lone, "rate", lambda job: 1e-3)
    lone.run()
    assert len(made) == 2, "one for each model"


def test_new_metrics_become_columns(trained, tmp_path):
    lone = runner.Runner(tmp_path, [])
    lone.append("sea", {"cell": "a", "seed": 0, "first": 1, "commit": "abc"})
    lone.append("sea", {"cell": "b", "seed": 0, "second": 2, "commit": "abc"})
    rows = table(tmp_path)
    assert [(r["first"], r["second"]) for r in rows] == [("1", ""), ("", "2")]
    assert list(rows[0])[:3] == ["study", "cell", "model"] and list(rows[0])[-1] == "date"


def test_a_study_without_its_data_is_left_out(monkeypatch, capsys):
    def open_data(config):
        if config.data.source in ("dominoes", "av_digits"):
            raise FileNotFoundError("mnist is not prepared in '': tfds build mnist")

    monkeypatch.setattr(lab_command, "open_data", open_data)
    sea, dominoes, change = (
        runner.jobs([name], 1, tiny=False) for name in ("sea", "dominoes", "change")
    )
    assert lab_command.with_data([*sea, *dominoes], "") == sea
    assert "study dominoes is left out: mnist is not prepared" in capsys.readouterr().err
    with pytest.raises(ValueError, match="study dominoes is left out: mnist"):
        lab_command.with_data(dominoes, "")
    left = lab_command.with_data(change, "")
    silent = {job.cell.setting for job in change} - set(lab_change.SOUND)
    assert {job.cell.setting for job in left} == silent
    told = capsys.readouterr().err
    assert "study change is left out in part (image, sound, image_and_sound, sound_below)" in told

    def no_photographs(config):
        if config.data.source == "centre":
            raise FileNotFoundError("cifar10 is not prepared")

    monkeypatch.setattr(lab_command, "open_data", no_photographs)
    assert lab_command.with_data([*sea, *change], "") == sea, "it would wait for learning rates"
    told = capsys.readouterr().err
    assert "change is left out: learning rates are chosen on data that are not there" in told


@pytest.mark.slow
def test_the_command_from_end_to_end(tmp_path):
    """Killed in the middle it goes on; the second time it trains nothing."""
    arguments = ["--study=sea", "--seeds=2", "--tiny", "--jobs=2", f"--workdir={tmp_path}"]
    start = [sys.executable, "-m", "experiments.lab", *arguments]
    first = subprocess.Popen(start, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("sea/*/*/result.json")):
        assert first.poll() is None
        time.sleep(0.1)
    os.kill(first.pid, signal.SIGTERM)
    assert first.wait(timeout=300) == 75
    before = len(table(tmp_path))
    wanted = 2 * len(STUDIES["sea"].cells(tiny=True))
    assert before < wanted
    for _ in range(2):
        done = subprocess.run(start, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert len(table(tmp_path)) == wanted
        assert (tmp_path / "lab.md").exists() and (tmp_path / "lab.html").exists()
    assert "| sea." not in done.stdout, "the second time nothing is trained"
