"""Weights into a model with another head or another size of image, from wherever they come."""

import json

import jax
import numpy as np
import pytest
import toy
from ml_collections import ConfigDict
from safetensors import numpy as safetensors

from configs import imagenet
from perceiver_jax import pretrained
from perceiver_jax.build import build as build_model
from perceiver_jax.config_types import ConfigError
from perceiver_jax.pretrained import convert
from perceiver_jax.train import checkpoint, transfer
from perceiver_jax.train.start import build, restore_weights, start, warn_of_bands
from perceiver_jax.train.task import Task

OUTPUT = ["output/logits/bias", "output/logits/kernel", "output/query"]


def config_of(variant, *, size=32, num_classes=10, **settings):
    """A tiny ImageNet config with the loop's fields; `settings` of its start."""
    config = imagenet.get_config(f"{variant}:tiny")
    config.model.output.num_classes = num_classes
    config.start.update(settings)
    config.parallel.shard_params_above = 1000
    return config, {"image": np.zeros((1, size, size, 3), np.float32), "mask": np.ones(1, bool)}


def program_of(config, example):
    """Without data: only the model is asked for."""
    task = Task(
        model=build_model(config.model.to_dict()),
        example=example,
        train_data=None,
        eval_data=None,
        prepare=lambda batch, key: batch,
        loss=None,
        metrics={},
        flops_per_example=1.0,
    )
    return build(task, config)


@pytest.fixture(scope="module")
def weights():
    """Of the tiny models with 1000 classes: (sizes, random variables) by variant."""
    found = {}
    for variant in ("fourier", "learned", "conv"):
        config, example = config_of(variant, num_classes=1000)
        batch = {"image": jax.ShapeDtypeStruct(example["image"].shape, np.float32)}
        model = pretrained.described(config.model.to_dict(), batch)
        rng = np.random.default_rng(0)
        values = [rng.uniform(0.01, 0.3, x.shape) for x in jax.tree.leaves(model.shapes)]
        values = [x.astype(np.float32) for x in values]
        found[variant] = model, jax.tree.unflatten(jax.tree.structure(model.shapes), values)
    return found


def as_file(weights, folder):
    tensors = convert.to_tensors(*reversed(weights), "huggingface")
    path = folder / "weights.safetensors"
    tensors = {name: np.ascontiguousarray(x) for name, x in tensors.items()}
    safetensors.save_file(tensors, path, metadata={"conv_kernel": "OIHW"})
    return str(path)


def as_workdir(weights, folder):
    config, example = config_of("conv", num_classes=1000)
    state = program_of(config, example).init(0)
    variables = jax.tree.map(np.copy, weights[1])
    state = state.replace(params=variables.pop("params"), model_state=variables)
    with checkpoint.open_manager(folder / "run" / "checkpoints", 1) as manager:
        checkpoint.save(manager, state, {})
    return str(folder / "run")


ORIGINS = {
    "file": as_file,
    "folder": lambda weights, folder: str(pretrained.save_huggingface(*weights, folder / "hf")),
    "workdir": as_workdir,
    "released": as_file,
}


@pytest.mark.parametrize("origin", ORIGINS)
def test_ten_classes_on_weights_of_a_thousand(origin, weights, tmp_path, monkeypatch, capsys):
    source = ORIGINS[origin](weights["conv"], tmp_path)
    if origin == "released":
        monkeypatch.setattr(pretrained.download, "fetch", lambda address, cache, file=source: file)
        source = "imagenet_conv"
    config, example = config_of("conv", weights=source, fresh=("output",))
    program = program_of(config, example)
    initial = program.init(0)
    state, _ = start(config, tmp_path / "new", program, set_aside=None)
    expected = weights["conv"][1]
    for part in ("input", "encoder", "decoder"):
        toy.assert_equal(state.params[part], expected["params"][part])
    toy.assert_equal(state.model_state["batch_stats"], expected["batch_stats"])
    toy.assert_equal(state.params["output"], initial.params["output"])
    for x, place in zip(*map(jax.tree.leaves, (state, program.target)), strict=True):
        assert x.sharding == place.sharding
    said = capsys.readouterr().out
    assert "start: loaded 5" in said
    assert f"start: fresh 3 arrays, {32 * 10 + 10 + 32:,} numbers: {', '.join(OUTPUT)}\n" in said
    assert f"start: left over 3 arrays, {32 * 1000 + 1000 + 32:,} numbers" in said


def test_the_mismatch_names_the_setting(weights, tmp_path):
    source = as_file(weights["fourier"], tmp_path)
    config, example = config_of("fourier", weights=source)
    program = program_of(config, example)
    with pytest.raises(ValueError, match=r"(?s)wrong shape: .*config.start.fresh=\('output',\)"):
        restore_weights(source, config, program)
    config.start.fresh = ("output/query",)
    with pytest.raises(
        checkpoint.Mismatch,
        match=r"(?s)differs: params/output/logits/bias is \(1000,\), the model has \(10,\).*"
        "Add to config.start.fresh",
    ):
        restore_weights(source, config, program)
    config.start.fresh = ("output", "outputt")
    with pytest.raises(ConfigError, match=r"'outputt' is found in no parameter, .*'decoder', 'enc"):
        restore_weights(source, config, program)
    config.start.update(weights="", fresh=("output",))
    with pytest.raises(ConfigError, match=r"config.start.fresh is about config.start.weights"):
        start(config, tmp_path / "new", program, set_aside=None)


def test_a_model_of_another_kind_takes_the_parts_that_it_has(weights, tmp_path):
    """A Perceiver with a mean for its decoder, from the weights of a Perceiver IO with a stem."""
    source = as_file(weights["conv"], tmp_path)
    config, example = config_of("perceiver", weights=source)
    config.model.encoder.num_cross_attends = config.model.encoder.num_blocks = 1
    program = program_of(config, example)
    with pytest.raises(ValueError, match=r"none of the released models.*(?s:.*)config.start.fresh"):
        restore_weights(source, config, program)
    config.start.fresh = ("^input/", "^decoder/", "^output/", "cross_attend")
    items, _ = restore_weights(source, config, program)
    assert set(items["params"]) == {"encoder"} and not items["model_state"]
    toy.assert_equal(
        items["params"]["encoder"]["blocks"], weights["conv"][1]["params"]["encoder"]["blocks"]
    )
    config.start.fresh = ("^decoder/", "^output/", "cross_attend")
    with pytest.raises(checkpoint.Mismatch, match=r"unexpected: batch_stats/input/norm/mean \(64"):
        restore_weights(source, config, program)


def test_positions_of_another_size_are_interpolated(weights, tmp_path, capsys):
    source = as_file(weights["learned"], tmp_path)
    table = weights["learned"][1]["params"]["input"]["positions"]
    side, channels = 32, table.shape[1]
    ramp = np.broadcast_to(np.arange(side, dtype=np.float32)[:, None, None], (side, side, channels))
    model, variables = weights["learned"]
    variables = jax.tree.map(np.copy, variables)
    variables["params"]["input"]["positions"] = ramp.reshape(-1, channels)
    source = as_file((model, variables), tmp_path)
    config, example = config_of("learned", size=64, num_classes=1000, weights=source)
    program = program_of(config, example)
    with pytest.raises(ValueError, match=r"(?s)\(1024, 256\), must be \(4096, 256\).*resize_posit"):
        restore_weights(source, config, program)
    config.start.fresh = ("output",)
    with pytest.raises(checkpoint.Mismatch, match=r"(?s)differs: params/input/pos.*resize_positio"):
        restore_weights(source, config, program)
    config.start.update(fresh=(), resize_positions=True)
    items, _ = restore_weights(source, config, program)
    assert "start: positions interpolated from 32 x 32 to 64 x 64" in capsys.readouterr().out
    found = np.asarray(items["params"]["input"]["positions"]).reshape(64, 64, channels)
    middle = np.arange(64) / 2 - 0.25  # the place of each new row among the old ones
    np.testing.assert_allclose(found[4:-4, 9, 3], middle[4:-4], atol=1e-4)
    toy.assert_equal(items["params"]["encoder"], variables["params"]["encoder"])


def test_positions_that_cannot_be_interpolated(weights, tmp_path):
    source = as_file(weights["fourier"], tmp_path)
    config, example = config_of("fourier", size=64, weights=source, resize_positions=True)
    with pytest.raises(ConfigError, match=r"no learned positions.* keep .*max_resolution"):
        restore_weights(source, config, program_of(config, example))
    target, batch = {transfer.POSITIONS: None}, {"image": np.zeros((1, 4, 6, 3))}
    with pytest.raises(ConfigError, match="the 24 positions of x are not those of a square"):
        transfer.resize_positions({transfer.POSITIONS: np.zeros((24, 2))}, target, batch, "x")
    with pytest.raises(ConfigError, match="x has no params/input/positions"):
        transfer.resize_positions({}, target, batch, "x")
    saved = {transfer.POSITIONS: np.ones((25, 2), np.float32)}
    transfer.resize_positions(saved, target, batch, "x")
    np.testing.assert_allclose(saved[transfer.POSITIONS], np.ones((24, 2)), rtol=1e-5)


def test_other_fourier_positions_than_those_trained_are_told(tmp_path, capsys):
    def told(module, max_resolution, size, weights="imagenet_fourier"):
        section = {"module": module, "max_resolution": max_resolution}
        config = ConfigDict({"model": {"input": section}, "start": {"weights": weights}})
        warn_of_bands(config, {"image": np.zeros((1, size, size, 3))})
        return "was trained with the Fourier positions" in capsys.readouterr().err

    assert told("image.Pixels", (), 128) and told("image.Pixels", (128, 128), 224)
    assert not told("image.Pixels", (), 224) and not told("image.Pixels", (224, 224), 128)
    assert told("image.ConvStem", (), 128, "imagenet_conv")
    assert not told("image.ConvStem", (), 224, "imagenet_conv")
    (tmp_path / "checkpoints").mkdir()
    saved = {"model": {"input": {"max_resolution": (8, 8)}}}
    (tmp_path / "config.json").write_text(json.dumps(saved))
    assert told("image.Pixels", (), 16, str(tmp_path))
    assert not told("image.Pixels", (), 8, str(tmp_path))
