"""The public names: complete, resolved when used, and cheap to import; `load` of every source."""

import ast
import json
import pathlib
import subprocess
import sys

import golden_models
import jax
import numpy as np
import pytest

import perceiver_jax as pj
from configs import digits
from experiments import make_task
from perceiver_jax import pretrained
from perceiver_jax.train import loop

ROOT = pathlib.Path(__file__).parents[1]


def test_every_public_name_resolves_and_is_listed():
    for name in pj.__all__:
        assert getattr(pj, name) is not None
        assert name in dir(pj)
    assert pj.image.Pixels.__module__ == "perceiver_jax.modalities.image"
    assert pj.load is not None and callable(pj.load), "a function, not the module"
    with pytest.raises(AttributeError, match=r"'perceiver_jax' has no attribute 'Perciever'"):
        pj.Perciever  # noqa: B018


def test_type_checkers_see_the_same_names():
    """The imports under TYPE_CHECKING are the public names, each from where it is resolved."""
    (block,) = (
        node
        for node in ast.parse(pathlib.Path(pj.__file__).read_text()).body
        if isinstance(node, ast.If)
    )
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert sorted(seen) == sorted(pj.__all__)
    for name, module in seen.items():
        expected = pj._DEFINED_IN.get(name) or ("modalities" if name in pj._MODALITIES else "")
        assert module == f"perceiver_jax.{expected}".rstrip(".")


def test_the_import_is_cheap():
    """Nothing beyond NumPy; a model needs no more of other libraries than Flax does."""
    code = """
import sys, numpy
before = set(sys.modules)
import perceiver_jax as pj
new = set(sys.modules) - before
assert new == {"perceiver_jax", "perceiver_jax.memory"}, new
pj.Perceiver, pj.Encoder, pj.Decoder, pj.Tokens, pj.Fourier, pj.image.Pixels
heavy = {"cv2", "grain", "matplotlib", "optax", "orbax", "sklearn", "tensorflow_datasets"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A tiny run on digits: (workdir, its task)."""
    folder = tmp_path_factory.mktemp("digits")
    config = digits.get_config("tiny")
    config.steps, config.checkpoint_every = 2, 1
    task = make_task(config)
    loop.train(task, config, folder)
    return folder, task


def logits(model, variables, batch):
    return np.asarray(jax.jit(model.apply, static_argnames="train")(variables, batch, train=False))


def test_a_workdir_is_loaded_by_its_own_config(workdir):
    folder, task = workdir
    model, variables = pj.load(folder)
    assert model == task.model
    expected = json.loads((folder / "result.json").read_text())["loss"]
    assert set(variables) == {"params"}, "the optimizer is left out"
    total = count = 0
    for batch in (task.prepare(raw, None) for raw in task.eval_data()):
        loss = task.loss(logits(model, variables, batch), batch)
        total += np.sum(np.asarray(loss) * batch["mask"])
        count += np.sum(batch["mask"])
    assert abs(total / count - expected) < 1e-5 * expected


def test_the_newest_whole_checkpoint_is_taken(workdir, tmp_path):
    folder, _ = workdir
    _, newest = pj.load(folder)
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", folder, copy], check=True)
    (data, *_) = sorted((copy / "checkpoints" / "2" / "weights").rglob("d/*"))
    data.write_bytes(b"damaged")
    _, before = pj.load(str(copy))
    leaves = zip(*map(jax.tree.leaves, (newest, before)), strict=True)
    assert not all(np.array_equal(a, b) for a, b in leaves)
    with pytest.raises(ValueError, match=r"is a workdir, .*leave out model, conv_kernel and cache"):
        pj.load(folder, model="flow")
    subprocess.run(["rm", "-r", copy / "checkpoints"], check=True)
    with pytest.raises(FileNotFoundError, match=r"no weights in .*copy: it is neither"):
        pj.load(copy)


def test_released_weights_are_loaded_too(tmp_path):
    """A file, and a Hugging Face folder, whose `config.json` is not that of a workdir."""
    released = golden_models.released("flow")
    path = golden_models.write_official("flow", tmp_path / "weights.pystate")
    model, variables = pj.load(path, model=released)
    folder = pretrained.save_huggingface(released, variables, tmp_path / "exported")
    again, back = pj.load(folder, model=released)
    assert model == again == released.build()
    jax.tree.map(np.testing.assert_array_equal, variables, back)
