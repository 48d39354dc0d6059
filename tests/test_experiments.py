"""Every config, tiny, through the real data and the real loop; and the command lines."""

import importlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import types

import jax
import ml_collections
import numpy as np
import pair_files
import pytest
from calling import call
from clip_files import write_clips, write_tagged_clips
from etils import epath
from image_files import write_folder, write_tables
from point_files import write_princeton
from text_files import write_wordnet
from tfds_files import (
    write_cityscapes,
    write_glue,
    write_smallnorb,
    write_spoken_digits,
    write_texts,
    write_tfds,
)

from configs import common, digits, glue
from experiments import check_config, find_task, make_task, plot
from experiments.tasks import image
from perceiver_jax.train import checkpoint, loop, start
from perceiver_jax.train.workdir import load_config

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted(p.stem for p in (ROOT / "configs").glob("*.py"))
MODULES = {name: importlib.import_module(f"configs.{name}") for name in FILES}
MODULES = {name: module for name, module in MODULES.items() if hasattr(module, "VARIANTS")}
FOLDERS = (
    "sintel",
    "kitti",
    "autoflow",
    "sceneflow",
    "middlebury",
    "audioset",
    "folder",
    "wordnet",
    "points",
)
ALL = [f"{name}:{variant}" for name, module in MODULES.items() for variant in module.VARIANTS]


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """TFDS directories of 12 + 12 random images: mnist, cifar10, imagenet2012 (JPEG, any size).

    And spoken digits for mnist's; video files with sound, listed for `clips`; texts.
    """
    folder, rng = tmp_path_factory.mktemp("tfds"), np.random.default_rng(0)

    def examples(shape, kind, classes):
        sizes = [shape or (*rng.integers(20, 90, 2), 3) for _ in range(12)]
        return [
            (rng.integers(0, 256, size, np.uint8), kind, label % classes)
            for label, size in enumerate(sizes)
        ]

    for name, version, shape, kind, classes, test in (
        ("mnist", "3.0.1", (28, 28, 1), "PNG", 10, "test"),
        ("cifar10", "3.0.2", (32, 32, 3), "PNG", 10, "test"),
        ("imagenet2012", "5.1.0", None, "JPEG", 1000, "validation"),
        ("downsampled_imagenet/64x64", "2.0.0", (64, 64, 3), "PNG", 10, "validation"),
    ):
        splits = {split: examples(shape, kind, classes) for split in ("train", test)}
        write_tfds(folder, name, version, splits)
    write_spoken_digits(folder)
    words = ["some words to hide, and"] * 100
    write_texts(folder, dict.fromkeys(("train", "validation"), words))
    write_texts(folder, {"train": words}, "wikipedia/20230601.en", "1.0.0")
    write_texts(folder, {"train": words, "test": words}, "pg19", "0.1.1", field="book_text")
    write_glue(folder, glue.QUESTIONS)
    write_wordnet(folder / "wordnet", count=200)
    for split in ("train", "test"):
        (folder / split).mkdir()
        (folder / split / "a.txt").write_text("words of a file, to be hidden in part; " * 40)
    write_smallnorb(folder)
    write_cityscapes(folder)
    write_clips(folder)
    write_tagged_clips(folder / "audioset")
    write_folder(folder / "folder")
    write_tables(folder / "folder")
    write_princeton(folder / "points")
    pair_files.write_sintel(folder / "sintel")
    pair_files.write_kitti(folder / "kitti")
    pair_files.write_scene_flow(folder / "sceneflow")
    pair_files.write_autoflow(folder / "autoflow")
    pair_files.write_masked(folder / "middlebury")
    pair_files.write_middlebury_2014(folder / "middlebury")
    return str(folder)


def tiny(name, data_dir):
    file, _, variant = name.partition(":")
    config = MODULES[file].get_config(f"{variant}:tiny")
    folder = next((f for f in FOLDERS if f in name), "")
    config.data.data_dir = config.data.data_dir or str(pathlib.Path(data_dir) / folder)
    return config.lock()


def modules(section):
    """The modules that a config's model is made of."""
    for name, value in sorted(section.items()):
        if isinstance(value, ml_collections.ConfigDict):
            yield from modules(value)
        elif name == "module":
            yield value


def one_of_each_kind():
    """Every config; marked slow if another of the same task is made of the same modules."""
    kinds = set()
    for name in ALL:
        file, _, variant = name.partition(":")
        config = MODULES[file].get_config(f"{variant}:tiny")
        kind = (config.experiment, *modules(config.model))
        yield pytest.param(name, marks=[pytest.mark.slow] * (kind in kinds))
        kinds.add(kind)


@pytest.mark.parametrize("name", [*one_of_each_kind()])
def test_configs_train(name, data_dir, tmp_path, one_device):
    config = tiny(name, data_dir)
    result = loop.train(make_task(config), config, tmp_path)
    assert result["step"] == 2 and np.isfinite(result["loss"])
    assert json.loads((tmp_path / "result.json").read_text()) == result


def traced(task, config):
    """`start.build`, whose programs are traced and not compiled; what they return is ones."""
    program = start.build(task, config)

    def ones(x):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.key(0)
        return jax.device_put(np.ones(x.shape, x.dtype), program.layout.mesh.devices.flat[0])

    def train_step(state, batch):
        _, metrics = jax.eval_shape(program.train_step, state, batch)
        step = jax.device_put(np.asarray(jax.device_get(state.step) + 1))
        return state.replace(step=step), jax.tree.map(ones, metrics)

    def eval_step(state, batch):
        return jax.tree.map(ones, jax.eval_shape(program.eval_step, state, batch))

    def init(seed):
        state = jax.tree.map(ones, jax.eval_shape(program.init, seed))
        return state.replace(step=jax.device_put(np.int32(0)))

    return program._replace(init=init, train_step=train_step, eval_step=eval_step)


SECTIONS = (
    "ar",
    "audiovisual",
    "autoencode",
    "data",
    "dense",
    "optimizer",
    "start",
    "tagging",
    "text_tasks",
)


@pytest.mark.parametrize("name", ALL)
def test_every_config_reads_every_field(name, data_dir, tmp_path, monkeypatch, one_device):
    """Through the real data and the real loop; nothing is compiled."""
    config = tiny(name, data_dir)
    check_config(config)
    with config.unlocked():
        config.data.planted = 1  # an unused field, which must be found
    with pytest.raises(ValueError, match=r"config\.data has no field 'planted'"):
        check_config(config)
    seen, recording = set(), [True]
    sections = {id(config): "config"}
    for key, value in config.iteritems():
        if isinstance(value, ml_collections.ConfigDict):
            sections[id(value)] = f"config.{key}"
    get, to_json = ml_collections.ConfigDict.__getitem__, ml_collections.ConfigDict.to_json

    def record(self, key):
        if recording[0] and id(self) in sections:
            seen.add(f"{sections[id(self)]}.{key}")
        return get(self, key)

    def unrecorded(self, *args, **kwargs):  # writing the config down is not using it
        recording[0] = False
        try:
            return to_json(self, *args, **kwargs)
        finally:
            recording[0] = True

    monkeypatch.setattr(ml_collections.ConfigDict, "__getitem__", record)
    monkeypatch.setattr(ml_collections.ConfigDict, "to_json", unrecorded)
    monkeypatch.setattr(loop, "build", traced)
    monkeypatch.setattr(checkpoint, "save", lambda manager, state, meta: int(state.step))
    task = find_task(config.experiment).make_task(config)  # unchecked: the check uses every field
    assert loop.train(task, config, tmp_path)["step"] == 2
    monkeypatch.undo()

    # `model` is passed on as keyword arguments, of which an unknown one raises.
    own = [section for section in SECTIONS if section in config]
    wanted = {
        f"{path}.{key}"
        for section, path in [(config, "config"), *((config[s], f"config.{s}") for s in own)]
        for key in section
    }
    assert wanted - seen == {"config.data.planted"}


def test_two_steps_learn_something(data_dir, tmp_path):
    """A check on the check above: with a learning rate of zero the parameters stay."""
    results = []
    for rate in (0.0, 1e-2):
        config = tiny("mnist:pixels", data_dir)
        with config.unlocked():
            config.optimizer.learning_rate = rate
        results.append(loop.train(image.make_task(config), config, tmp_path / str(rate)))
    assert results[0]["loss"] != results[1]["loss"]


@pytest.mark.parametrize("name", ALL)
def test_config_docstrings_are_the_experiments_record(name):
    text = MODULES[name.partition(":")[0]].__doc__
    assert "python -m experiments.run" in text
    assert f"`{name.partition(':')[2]}`" in text or name.partition(":")[2] == "standard"


def test_unknown_variants_are_named():
    with pytest.raises(ValueError, match="'nonsense:tiny' is none of"):
        digits.get_config("nonsense:tiny")
    assert common.parse("", ("a", "b")) == ("a", False)
    assert common.parse("tiny", ("a", "b")) == ("a", True)
    assert common.parse("b:tiny", ("a", "b")) == ("b", True)


def test_batch_size_sets_the_length_of_the_imagenet_recipe():
    config = MODULES["imagenet"].get_config("fourier")
    assert config.steps == 1_281_167 * 110 // 1024
    config.batch_size = 512
    assert config.steps == 1_281_167 * 110 // 512


def test_a_permuted_image_is_the_same_to_a_perceiver_and_not_to_a_convolution(data_dir):
    def change(name):
        plain, permuted = (tiny(n, data_dir) for n in name)
        task, other = image.make_task(plain), image.make_task(permuted)
        batch = task.prepare(next(task.eval_data()), None)
        variables = task.model.init(jax.random.key(0), batch, train=False)
        logits = [t.model.apply(variables, batch, train=False) for t in (task, other)]
        return np.abs(logits[0] - logits[1]).max()

    assert change(("cifar10:pixels", "cifar10:permuted")) < 1e-5
    assert change(("cifar10:conv", "cifar10:conv_permuted")) > 1e-3


def test_mock_imagenet_trains(tmp_path):
    """With TFDS's own stand-in, which needs TensorFlow to make its images."""
    pytest.importorskip("tensorflow")
    import tensorflow_datasets as tfds

    with tfds.testing.mock_data(num_examples=12):
        config = MODULES["imagenet"].get_config("fourier:tiny")
        assert loop.train(image.make_task(config), config, tmp_path)["step"] == 2


def command(*args, check=True):
    """Runs a command line in a process of its own, on one device, optimised: it trains for long."""
    quick = ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS")
    env = {name: value for name, value in os.environ.items() if name not in quick}
    done = subprocess.run(
        [sys.executable, "-m", *args],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    """A short run of the first command of the README, by its command line."""
    workdir = tmp_path_factory.mktemp("digits")
    run = ("experiments.run", f"--config={ROOT}/configs/digits.py", f"--workdir={workdir}")
    settings = ("--config.steps=240", "--config.eval_every=120")
    return workdir, (*run, *settings), command(*run, *settings)


def test_the_main_job_learns_and_reports(digits_run):
    workdir, _, done = digits_run
    assert "digits[train] 1437 examples | shuffle(seed 0) | keep('image', 'label')" in done.stdout
    assert "examples/s" in done.stdout and "FLOP/s model" in done.stdout and "left" in done.stdout
    result = json.loads((workdir / "result.json").read_text())
    assert result["accuracy"] > 0.7, "240 steps reach 0.9; chance is 0.1"
    assert {"loss", "step", "seconds", "commit", "device"} <= set(result)
    kinds = [json.loads(line)["kind"] for line in (workdir / "metrics.jsonl").open()]
    assert kinds.count("eval") == 2 and kinds.count("train") == 4


def test_the_same_command_again_and_eval_give_the_same_result(digits_run):
    workdir, args, _ = digits_run
    first = json.loads((workdir / "result.json").read_text())
    (workdir / "result.json").unlink()
    assert "finished" in command(*args).stdout
    assert json.loads((workdir / "result.json").read_text())["loss"] == first["loss"]
    (workdir / "result.json").unlink()
    command(*args, "--mode=eval")
    again = json.loads((workdir / "result.json").read_text())
    assert (again["loss"], again["accuracy"]) == (first["loss"], first["accuracy"])
    assert again["step"] == 240


def test_another_config_is_refused_with_the_field(digits_run, monkeypatch, capsys):
    _, args, _ = digits_run
    setting = "--config.optimizer.learning_rate=0.5"
    code, _, said = call(*args, setting, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 1 and "config.optimizer.learning_rate: 0.002 -> 0.5" in said


def test_typos_are_named(tmp_path):
    """By the process as a whole; `test_commands.py` has many more."""
    setting = "--config.data.train=decode | keeep('image')"
    args = ("experiments.run", "--config=configs/digits.py", f"--workdir={tmp_path}/x", setting)
    done = command(*args, check=False)
    assert done.returncode == 1
    assert "unknown transform 'keeep'" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "x").exists()


def test_help_tells_how():
    done = command("experiments.run", "--help", check=False)
    assert "--config=configs/digits.py --workdir=runs/digits" in done.stdout
    assert "Exit codes" in done.stdout


def test_pictures_of_a_run(digits_run, tmp_path):
    """Even of one that was spread over more devices than there are."""
    workdir = shutil.copytree(digits_run[0], tmp_path / "copy")
    config = json.loads((workdir / "config.json").read_text())
    config["parallel"] |= {"model": 16, "shard_inputs": True}
    (workdir / "config.json").write_text(json.dumps(config))
    done = command("experiments.plot", f"--workdir={workdir}", "--examples=10")
    names = {"training.png", "predictions.png", "attention_cross_attend.png"}
    found = {pathlib.Path(line).name for line in done.stdout.splitlines()}
    assert found == names | {"index.html"}
    for name in names:
        assert (workdir / "plots" / name).read_bytes().startswith(b"\x89PNG")
    page = (workdir / "plots" / "index.html").read_text()
    assert "Worst mistakes" in page and "always the commonest class" in page
    assert "--config=configs/digits.py" in page


def test_pictures_need_a_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        plot.draw(tmp_path, num_examples=1)


def test_pictures_of_an_evaluation_are_of_the_weights_it_began_with(tmp_path, monkeypatch):
    monkeypatch.setattr(plot, "restore_weights", lambda weights, *_: ((weights, "began"), ""))
    monkeypatch.setattr(checkpoint, "restore_weights", lambda workdir, *_, warn: ("saved", ""))
    config, program = digits.get_config("tiny"), types.SimpleNamespace(target=None)
    config.start.weights = "runs/other"
    workdir = epath.Path(tmp_path)
    assert plot.read_weights(workdir, config, program) == ("runs/other", "began")
    (tmp_path / "checkpoints").mkdir()
    assert plot.read_weights(workdir, config, program) == "saved"


def test_a_config_survives_its_json(digits_run):
    workdir, _, _ = digits_run
    config = load_config(workdir)
    assert config.optimizer.no_decay == ("bias$", "norm")
    assert config.model.input.max_resolution == ()
    assert config.model.encoder.self_attend_qk_channels is None


def test_attention_maps_are_put_back_in_their_places():
    """Permuted tokens: each weight must land on the pixel that its token came from."""
    config = digits.get_config("permuted:tiny")
    task = image.make_task(config)
    batch = task.prepare(next(task.eval_data()), None)
    tokens = task.model.input.apply({}, batch, train=False)
    brightness = np.asarray(tokens.content)[..., 0][:, None, None]  # [B, 1 head, 1 latent, M]
    maps = image.to_grid(brightness, tokens, (8, 8))
    np.testing.assert_array_equal(maps[:, 0], np.asarray(batch["image"])[..., 0])
