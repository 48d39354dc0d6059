"""A training config starts from released weights: evaluated as they are, or trained on."""

import json
import pathlib
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from calling import call
from safetensors import numpy
from tfds_files import write_tfds

from configs import imagenet
from experiments.tasks import image
from perceiver_jax import pretrained
from perceiver_jax.pretrained import convert
from perceiver_jax.train import checkpoint, loop, start

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("one_device")
IMAGE = {"image": jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """ImageNet's validation split alone: 12 random JPEGs of many sizes."""
    folder, rng = tmp_path_factory.mktemp("tfds"), np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (*rng.integers(20, 90, 2), 3), np.uint8) for _ in range(12)]
    examples = [(picture, "JPEG", i) for i, picture in enumerate(pictures)]
    write_tfds(folder, "imagenet2012", "5.1.0", {"validation": examples})
    return str(folder)


def tiny(variant, data_dir, **settings):
    config = imagenet.get_config(f"{variant}:tiny")
    config.data.data_dir, config.data.train_split = data_dir, ""
    config.start.update(settings)
    return config.lock()


def random_weights(variant):
    """(released model of the tiny config, random variables in which nothing is zero)."""
    model = pretrained.described(imagenet.get_config(f"{variant}:tiny").model.to_dict(), IMAGE)
    rng = np.random.default_rng(0)
    draw = lambda x: rng.uniform(0.01, 0.3, x.shape).astype(np.float32)  # noqa: E731
    return model, jax.tree.map(draw, model.shapes)


def exported(variant, folder):
    model, variables = random_weights(variant)
    return str(pretrained.save_huggingface(model, variables, folder)), variables


def assert_same(state, variables):
    ours = {"params": state.params, **state.model_state}
    jax.tree.map(np.testing.assert_array_equal, ours, variables)


@pytest.fixture
def command(monkeypatch, capsys):
    """Calls the command on a tiny config; returns the exit code and what stderr got."""

    def command(variant, workdir, *settings):
        config = f"--config={ROOT}/configs/imagenet.py:{variant}:tiny"
        flags = (config, f"--workdir={workdir}", *settings)
        code, _, err = call("experiments.run", *flags, monkeypatch=monkeypatch, capsys=capsys)
        return code, err

    return command


def test_data_that_are_not_there_are_told_in_one_message(command, tmp_path):
    missing = f"--config.data.data_dir={tmp_path / 'none'}"
    code, said = command("fourier", tmp_path / "run", "--mode=eval", missing)
    assert code == 1 and "Traceback" not in said
    assert f"FileNotFoundError: imagenet2012 is not prepared: nothing in {tmp_path}" in said
    assert f"tfds build imagenet2012 --file_format=array_record --data_dir={tmp_path}" in said
    assert not (tmp_path / "run").exists()


def test_training_needs_the_training_split(data_dir):
    config = tiny("fourier", data_dir)
    with pytest.raises(ValueError, match=r"config.data.train_split is ''"):
        image.make_task(config).train_data(0)
    config.data.train_split = "train"
    with pytest.raises(ValueError, match=r"has the splits \['validation'\], so not 'train': .*''"):
        image.make_task(config)


def test_evaluation_is_of_the_released_weights(command, data_dir, tmp_path):
    """By the command line, where only the validation split was prepared."""
    folder, variables = exported("conv", tmp_path / "weights")
    settings = [f"--config.data.data_dir={data_dir}", "--config.data.train_split="]
    start_weights = f"--config.start.weights={folder}"
    code, said = command("conv", tmp_path / "run", "--mode=eval", start_weights, *settings)
    assert code == 0, said
    result = json.loads((tmp_path / "run" / "result.json").read_text())

    task = image.make_task(tiny("conv", data_dir))

    @jax.jit
    def loss(batch):
        batch = task.prepare(batch, None)
        logits = task.model.apply(variables, batch, train=False)
        return jnp.sum(task.loss(logits, batch) * batch["mask"])

    expected = sum(float(loss(batch)) for batch in task.eval_data()) / 12
    assert abs(result["loss"] - expected) < 1e-5 * expected
    assert result["step"] == 0


@pytest.mark.parametrize("variant", ["fourier", "learned"])
def test_official_files_are_read_too(variant, data_dir, tmp_path):
    model, variables = random_weights(variant)
    modules: dict = {}
    for name, x in convert.to_tensors(variables, model, "haiku").items():
        module, _, parameter = name.rpartition("/")
        modules.setdefault(module, {})[parameter] = x
    path = tmp_path / "official.pystate"
    path.write_bytes(pickle.dumps({"params": modules, "state": {}}))
    config = tiny(variant, data_dir, weights=str(path))
    program = start.build(image.make_task(config), config)
    items, origin = start.restore_weights(str(path), config, program)
    jax.tree.map(np.testing.assert_array_equal, items["params"], variables["params"])
    assert (items["model_state"], origin) == ({}, str(path))


def test_training_goes_on_from_them(data_dir, tmp_path):
    """Two steps at the tiny config's own small rate leave everything near where it was."""
    folder, variables = exported("conv", tmp_path / "weights")
    config = tiny("conv", data_dir, weights=folder)
    with config.unlocked():
        config.data.train_split = "validation"
    task = image.make_task(config)
    program = start.build(task, config)
    state, _ = start.start(config, tmp_path / "run", program, set_aside=None)
    assert_same(state, variables)
    assert int(state.step) == 0
    loop.train(task, config, tmp_path / "run")
    items, _ = checkpoint.restore_weights(tmp_path / "run", program.target, warn=pytest.fail)
    old, new = variables["params"], items["params"]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-2), old, new)
    assert not np.array_equal(old["output"]["query"], new["output"]["query"])
    moved = items["model_state"]["batch_stats"]["input"]["norm"]["mean"]
    assert np.abs(moved - variables["batch_stats"]["input"]["norm"]["mean"]).min() > 0


@pytest.mark.parametrize(
    ("variant", "settings", "message"),
    [
        (
            "learned",
            {},
            r"(?s)not 'imagenet_learned' at this size. Its names are those of 'imagenet_fourier'."
            r".*missing: perceiver.input_preprocessor.convnet_1x1.bias \(256,\)",
        ),
        (
            "fourier",
            {"num_latents": 9, "num_self_attends_per_block": 1},
            r"(?s)unexpected: perceiver.encoder.self_attends.1.attention.output.dense.bias \(32,\)"
            r".*wrong shape: perceiver.embeddings.latents is \(8, 32\), must be \(9, 32\)",
        ),
        (
            "fourier",
            {"num_cross_attends": 2, "num_blocks": 2},
            r"missing: params/encoder/cross_attend_1/attention/key/kernel \(\d+, \d+\), in no rel",
        ),
        (
            "perceiver",
            {},
            r"config.model, from image.Pixels to label.PooledClassification, is none of the rel",
        ),
    ],
)
def test_weights_of_another_model_are_refused(variant, settings, message, data_dir, tmp_path):
    folder, _ = exported("fourier", tmp_path)
    config = tiny(variant, data_dir, weights=folder)
    with config.unlocked():
        config.model.encoder.update(settings)
    program = start.build(image.make_task(config), config)
    with pytest.raises(ValueError, match=message):
        start.restore_weights(folder, config, program)


@pytest.mark.parametrize("variant", ["fourier", "learned", "conv"])
def test_the_configs_at_full_size_are_the_released_models(variant):
    name = f"imagenet_{variant}"
    batch = {"image": jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)}
    model = pretrained.described(imagenet.get_config(variant).model.to_dict(), batch)
    assert model.name == name
    assert model.shapes == pretrained.released(name).shapes


def test_what_no_released_model_has_cannot_be_exported():
    config = imagenet.get_config("fourier:tiny")
    config.model.encoder.update({"num_cross_attends": 2, "num_blocks": 2})
    model = pretrained.described(config.model.to_dict(), IMAGE)
    variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), model.shapes)
    with pytest.raises(
        ValueError, match=r"'imagenet_fourier' has no names for \['params/encoder/cr"
    ):
        convert.to_tensors(variables, model, "huggingface")


def test_what_holds_no_weights_and_a_kernel_without_axes(data_dir, tmp_path):
    config = tiny("conv", data_dir)
    program = start.build(image.make_task(config), config)
    with pytest.raises(
        FileNotFoundError, match=r"config.start.weights='imagenet_cnv': it is neith"
    ):
        start.restore_weights("imagenet_cnv", config, program)
    with pytest.raises(FileNotFoundError, match=r"no weights in \S+: it is neither a workdir"):
        start.restore_weights(str(tmp_path), config, program)
    model, variables = random_weights("conv")
    tensors = convert.to_tensors(variables, model, "huggingface")
    path = str(tmp_path / "model.safetensors")
    numpy.save_file({name: np.ascontiguousarray(x) for name, x in tensors.items()}, path)
    with pytest.raises(ValueError, match=r"pass conv_kernel='OIWH' .*config.start.conv_kernel"):
        start.restore_weights(path, config, program)
    for axes, order in (("OIHW", (0, 1, 2, 3)), ("OIWH", (1, 0, 2, 3))):
        config.start.conv_kernel = axes
        items, _ = start.restore_weights(path, config, program)
        expected = variables["params"]["input"]["conv"]["kernel"].transpose(order)
        np.testing.assert_array_equal(items["params"]["input"]["conv"]["kernel"], expected)
    config.start.conv_kernel = "HWIO"
    with pytest.raises(ValueError, match="conv_kernel='HWIO' is none of"):
        start.restore_weights(path, config, program)
    with pytest.raises(
        ValueError, match=r"conv_kernel is about config.start.weights, which is emp"
    ):
        start.start(config, tmp_path / "run", program, set_aside=None)
