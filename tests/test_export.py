"""A run handed on: the exported model is the run's, whole, and answers without this library."""

import json
import re
import subprocess
import sys

import chex
import jax
import numpy as np
import pytest
from calling import call
from etils import epath
from image_files import write_folder

import perceiver_jax as pj
from configs import flow, folder, kinetics, language
from experiments import make_task
from experiments.tasks import image
from perceiver_jax import pretrained
from perceiver_jax.config_types import ConfigError
from perceiver_jax.files.paths import new_folder
from perceiver_jax.train import loop, sharding, start
from perceiver_jax.train.workdir import load_config, make_ours

PORT = {"module": "image.Pixels", "num_bands": 64, "max_resolution": (224, 224)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run on a folder of images, averaged, whose sizes transformers can have."""
    home = tmp_path_factory.mktemp("export")
    write_folder(home / "pets")
    config = folder.get_config("tiny")
    config.data.data_dir = str(home / "pets")
    for line in ("train", "eval"):
        config.data[line] = re.sub(r"\b32\b", "8", config.data[line])
    config.data.source_options.short_side = 8
    config.model.input.update(PORT)
    encoder = config.model.encoder
    encoder.cross_attend_qk_channels = encoder.cross_attend_v_channels = 32
    config.optimizer.ema = 0.5
    make_mesh, one = sharding.make_mesh, jax.devices()[:1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            sharding, "make_mesh", lambda parallel, devices=None: make_mesh(parallel, one)
        )
        loop.train(make_task(config), config, str(home / "run"))
    return home / "run"


@pytest.fixture
def export(monkeypatch, capsys):
    def export(run, output, to, *args):
        args = (f"--workdir={run}", f"--output={output}", f"--to={to}", *args)
        return call("experiments.export.__main__", *args, monkeypatch=monkeypatch, capsys=capsys)

    return export


def pixels(count):
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)


def expected(run, images):
    """The run's logits, by its own evaluation."""
    model, variables = pj.load(run)
    asked = image.ask(load_config(epath.Path(run)))
    return model, variables, jax.jit(asked.logits)(variables, {"image": images})


def test_safetensors_hold_the_run(run, export, tmp_path):
    code, out, _ = export(run, tmp_path / "out", "safetensors")
    assert code == 0 and "model.safetensors" in out
    model, variables = pj.load(run)
    again, loaded = pj.load(tmp_path / "out")
    assert again == model
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)
    configs = (json.loads((f / "config.json").read_text()) for f in (run, tmp_path / "out"))
    assert next(configs) == next(configs)
    assert pretrained.class_names(str(tmp_path / "out"), 3) == ["cat", "dog", "eel"]
    code, _, err = export(run, tmp_path / "out", "safetensors")
    assert (code, err.count("\n")) == (1, 0) and "out is there already: choose another" in err


def test_a_run_starts_from_an_exported_one(run, export, tmp_path):
    export(run, tmp_path / "new", "safetensors")
    config = load_config(epath.Path(run))
    config.start.weights = str(tmp_path / "new")

    def begin():
        program = start.build(make_task(config), config, jax.devices()[:1])
        return start.start(config, epath.Path(tmp_path / "next"), program, set_aside=None)[0]

    _, variables = pj.load(run)
    chex.assert_trees_all_equal(begin().params, variables["params"])
    config.model.encoder.num_latents += 1
    with pytest.raises(ValueError, match="differs: params/encoder/latents"):
        begin()
    config.start.conv_kernel = "OIHW"
    with pytest.raises(ConfigError, match=r"conv_kernel='OIHW' is about released weights"):
        begin()


def test_huggingface_folders_hold_the_run_and_its_classes(run, export, tmp_path):
    code, _, err = export(run, tmp_path / "out", "huggingface")
    assert code == 0, err
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["architectures"] == ["PerceiverForImageClassificationFourier"]
    assert config["id2label"] == {"0": "cat", "1": "dog", "2": "eel"}
    _, _, logits = expected(run, pixels(2))
    model, variables = pj.load(tmp_path / "out")
    mean, std = folder.MEAN, folder.STD
    images = ((pixels(2) - mean) / std).astype(np.float32)
    again = jax.jit(lambda v, x: model.apply(v, {"image": x}, train=False))(variables, images)
    np.testing.assert_allclose(again, logits, rtol=1e-5, atol=1e-5)


def test_transformers_answer_as_the_run_does(run, export, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    export(run, tmp_path / "out", "huggingface")
    port = transformers.PerceiverForImageClassificationFourier.from_pretrained(tmp_path / "out")
    images = ((pixels(2) - np.array(folder.MEAN)) / np.array(folder.STD)).astype(np.float32)
    with torch.no_grad():
        logits = port.eval()(torch.from_numpy(images).permute(0, 3, 1, 2)).logits.numpy()
    np.testing.assert_allclose(logits, expected(run, pixels(2))[2], rtol=1e-5, atol=1e-5)
    assert port.config.id2label[2] == "eel"


def test_a_program_answers_with_jax_alone(run, export, tmp_path):
    code, out, err = export(run, tmp_path / "out", "stablehlo")
    assert code == 0, err
    about = json.loads((tmp_path / "out/interface.json").read_text())
    assert about["inputs"] == {"image": "uint8 (batch, 8, 8, 3)"}
    assert about["outputs"]["logits"] == "float32 (batch, 3)"
    assert about["classes"] == ["cat", "dog", "eel"]
    assert about["platforms"] == ["cpu", "cuda", "tpu"]
    assert "decode | central_crop(8, 0) | resize_area(8)" in out
    for count in (1, 3):
        np.save(tmp_path / f"{count}.npy", pixels(count))
    alone = (
        "import runpy, sys\n"
        "sys.modules.update(dict.fromkeys(('perceiver_jax', 'experiments', 'configs', 'flax')))\n"
        "answer = runpy.run_path('answer.py')['load']()\n"
        "import numpy as np\n"
        "for n in '13': np.savez(f'{n}.npz', **answer(image=np.load(f'../{n}.npy')))\n"
    )
    command = [sys.executable, "-I", "-c", alone]
    subprocess.run(command, check=True, cwd=tmp_path / "out", timeout=300)
    _, _, logits = expected(run, pixels(3))
    for count in (1, 3):
        found = np.load(tmp_path / f"out/{count}.npz")
        np.testing.assert_allclose(found["logits"], logits[:count], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found["probabilities"].sum(axis=-1), 1, rtol=1e-5)


def test_what_cannot_be_exported_leaves_nothing(run, export, tmp_path):
    config = language.get_config("small:tiny")
    make_ours(epath.Path(tmp_path / "text/config.json"), json.loads(config.to_json()))
    for args, message in (
        ((tmp_path / "text", tmp_path / "out", "stablehlo"), "config.experiment='language' "),
        ((tmp_path, tmp_path / "out", "safetensors"), "is not the workdir of a run"),
        ((tmp_path / "text", tmp_path / "out", "safetensors"), "no weights in "),
        ((run, tmp_path / "out", "stablehlo", "--platforms=abacus"), "['abacus'] are none of"),
        ((run, "gs://bucket/out", "stablehlo"), "is in a bucket: write a local folder"),
    ):
        code, _, err = export(*args)
        assert code == 1 and message in err and err.count("\n") == 0, err
    assert [path.name for path in tmp_path.iterdir()] == ["text"]
    with pytest.raises(RuntimeError), new_folder(tmp_path / "out") as folder:
        (folder / "half").write_text("")
        raise RuntimeError
    assert not list(tmp_path.glob("*out*"))


def counterpart(config, image_size=224, **fields):
    if config.model.output.get("num_classes", 0) is None:
        config.model.output.num_classes = 5
    config.update_from_flattened_dict(fields)
    return pretrained.counterpart(config.model.to_dict(), image_size=image_size)


@pytest.mark.parametrize("kind", ["fourier", "learned", "conv"])
def test_models_of_our_configs_have_their_counterpart(kind):
    name = {"fourier": "finetune"}.get(kind, f"finetune_{kind}")
    found = counterpart(folder.get_config(name))
    assert found.name == f"imagenet_{kind}"
    assert found.spec["output"]["num_classes"] == 5


def test_other_tasks_have_their_counterpart():
    assert counterpart(language.get_config("bytes")).name == "language"
    assert counterpart(flow.get_config("sintel")).name == "flow"
    found = counterpart(kinetics.get_config("autoencode"))
    assert found.name == "kinetics" and found.spec["output"]["channels"] == 512


@pytest.mark.parametrize(
    "config, fields, message",
    [
        (folder.get_config("small"), {}, r"input\.num_bands=8, where they have 64"),
        (folder.get_config("small"), {}, r"encoder\.cross_attend_qk_channels=64, where they have"),
        (folder.get_config("finetune"), {"model.encoder.cross_attend_widening": 4},
         r"config\.model\.encoder\.cross_attend_widening=4, where they have 1"),
        (folder.get_config("finetune"), {"model.decoder.query_residual": False},
         r"config\.model\.decoder\.query_residual=False, where they have True"),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_is_named(config, fields, message):
    with pytest.raises(ValueError, match=message) as error:
        counterpart(config, **fields)
    assert "--to=safetensors takes every model" in str(error.value)


def test_baselines_have_no_counterpart():
    with pytest.raises(ValueError, match=r"config\.model\.module='baselines\.ResNet'"):
        pretrained.counterpart({"module": "baselines.ResNet"})
