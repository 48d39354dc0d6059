"""Weights are told by their content: any suffix, nested, sharded, other sizes, other models."""

import gzip
import io
import json
import shutil
import zipfile

import golden_models
import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors
from test_load import write_bin

import perceiver_jax as pj
from perceiver_jax import pretrained
from perceiver_jax.pretrained import convert, huggingface

NAME = "imagenet_fourier"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """(released at small sizes, its variables, its tensors by Hugging Face names)."""
    released = golden_models.released(NAME)
    path = tmp_path_factory.mktemp("official") / "weights.pystate"
    _, variables = pretrained.load(golden_models.write_official(NAME, path), model=released)
    tensors = convert.to_tensors(variables, released, "huggingface")
    return released, variables, {k: np.ascontiguousarray(x) for k, x in tensors.items()}


def assert_loads(source, weights, **options):
    released, variables, _ = weights
    model, loaded = pretrained.load(source, **({"model": released} | options))
    assert model == released.build()
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)


@pytest.mark.parametrize(
    "suffix", ["bin", "pt", "pth", "ckpt", "safetensors", "pystate", "weights"]
)
def test_the_suffix_decides_nothing(suffix, weights, tmp_path):
    path = write_bin(tmp_path / f"a.{suffix}", weights[2])
    assert pretrained.holds_weights(str(path))
    assert_loads(path, weights)
    safetensors.save_file(weights[2], path)
    assert_loads(path, weights)
    assert_loads(golden_models.write_official(NAME, path), weights)


def write_nested(path, tensors, wrap):
    """A checkpoint of a training script: the state_dict under a name, beside other values."""
    flat = write_bin(path.with_suffix(".flat"), tensors)
    with zipfile.ZipFile(flat) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    # Protocol 2 of {name: <state_dict>, "epoch": 3}, around the program of the state_dict.
    inner = files["archive/data.pkl"].removeprefix(b"\x80\x02").removesuffix(b".")
    key = b"X" + len(wrap).to_bytes(4, "little") + wrap.encode()
    program = b"\x80\x02}(" + key + inner + b"X\x05\x00\x00\x00epochK\x03u."
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (files | {"archive/data.pkl": program}).items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("wrap", ["state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod."])
def test_nested_parameters_with_prefixes(wrap, prefix, weights, tmp_path):
    tensors = {prefix + name: x for name, x in weights[2].items()}
    assert_loads(write_nested(tmp_path / "a.ckpt", tensors, wrap), weights)


def test_a_checkpoint_without_parameters_is_named(tmp_path):
    path = write_bin(tmp_path / "a.pt", {})
    with pytest.raises(ValueError, match=r"a\.pt holds \[\] and no tensors: save model\.st"):
        pretrained.load(path)


@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin"])
def test_shards_are_read_by_their_index(kind, weights, tmp_path):
    names = sorted(weights[2])
    stem, _, suffix = kind.partition(".")
    weight_map = {}
    for i, part in enumerate((names[::2], names[1::2]), start=1):
        shard = f"{stem}-{i:05}-of-00002.{suffix}"
        tensors = {name: weights[2][name] for name in part}
        weight_map |= dict.fromkeys(part, shard)
        (safetensors.save_file if suffix == "safetensors" else lambda t, p: write_bin(p, t))(
            tensors, tmp_path / shard
        )
    index = tmp_path / f"{kind}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert pretrained.holds_weights(str(tmp_path))
    assert_loads(tmp_path, weights)
    assert_loads(index, weights)
    (tmp_path / shard).unlink()
    with pytest.raises(ValueError, match=rf"names the shard {shard}, which is not beside"):
        pretrained.load(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "../outside.bin"}}))
    with pytest.raises(ValueError, match=r"no index of weights .*a shard outside of the folder"):
        pretrained.load(index)


def archive(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in members.items():
            file.writestr(name.replace("__", "/"), data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html>", "a web page: fetch the file itself"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (gzip.compress(b"weights"), "compressed by gzip: unpack it first"),
        (archive(**{"a.npy": b""}), r"archive of NumPy arrays \(.npz\)"),
        (archive(a__constants=b"", **{"a/constants.pkl": b"", "a/data.pkl": b""}), "TorchScript"),
        (archive(**{"mimetype": b""}), "not an archive of torch.save"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.", "format before 1.6"),
        (b'{"a": 1}', "is JSON, but no index of weights"),
        (b"", "is empty"),
        (b"plain text", "truncated or not a checkpoint"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_what_is_no_checkpoint_is_named_for_what_it_is(content, message, tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"weights\.pt.*{message}") as caught:
        pretrained.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", golden_models.FILES)
def test_an_exported_folder_tells_its_sizes(name, tmp_path):
    """`config.json` and the shapes of the tensors say what `model=` would."""
    released = golden_models.released(name)
    path = golden_models.write_official(name, tmp_path / "weights.pystate")
    model, variables = pretrained.load(path, model=released)
    folder = pretrained.save_huggingface(released, variables, tmp_path / "exported")
    for options in ({}, {"model": name}):
        again, back = pj.load(folder, **options)
        assert again.encoder == model.encoder
        assert (again.input, again.decoder, again.output) == (
            model.input,
            model.decoder,
            model.output,
        )
        jax.tree.map(np.testing.assert_array_equal, back, variables)


def test_the_ports_own_image_size_is_not_taken_for_that_of_fourier_positions(weights, tmp_path):
    """Its Fourier models have bands for 224 pixels, and 56 for `image_size` in their configs."""
    released, variables, _ = weights
    folder = pretrained.save_huggingface(released, variables, tmp_path / "exported")
    config = json.loads((folder / "config.json").read_text()) | {"image_size": 56}
    (folder / "config.json").write_text(json.dumps(config))
    safetensors.save_file(weights[2], folder / "model.safetensors", metadata={"format": "pt"})
    model, _ = pretrained.load(folder)
    assert tuple(model.input.max_resolution) == (224, 224)


def test_another_model_of_the_same_library_is_not_taken_for_one_of_ours(weights, tmp_path):
    """Text classification there: the encoder and the decoder of ImageNet's names, other inputs."""
    released, _, tensors = weights
    tensors = tensors | {
        "perceiver.input_preprocessor.embeddings.weight": np.ones((262, 29), np.float32),
        "perceiver.input_preprocessor.position_embeddings.weight": np.ones((8, 29), np.float32),
    }
    path = tmp_path / "model.safetensors"
    safetensors.save_file(tensors, path)
    with pytest.raises(
        ValueError, match=r"is another model: .*also holds .*input_preprocessor\.embeddings\.weight"
    ):
        pretrained.load(path)
    config = huggingface.config(released) | {
        "architectures": ["PerceiverForSequenceClassification"]
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    for options in ({}, {"model": NAME}):
        with pytest.raises(ValueError, match=r"this is \['PerceiverForSequenceClassification'\]; "):
            pretrained.load(path, **options)
    del config["d_latents"]
    config["architectures"] = ["PerceiverForImageClassificationFourier"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"lacks a size, .*'d_latents'"):
        pretrained.load(path)


def test_a_file_alone_of_other_sizes_says_how_to_give_them(weights, tmp_path):
    path = write_bin(tmp_path / "a.pt", weights[2])
    with pytest.raises(ValueError, match=r"(?s)wrong shape: .*At other sizes, pass model="):
        pretrained.load(path)


def test_a_folder_names_the_files_it_has(weights, tmp_path):
    path = write_bin(tmp_path / "model.pt", weights[2])
    with pytest.raises(ValueError, match=r"it has \['model\.pt'\]: give the path of one"):
        pretrained.load(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    shutil.move(path, home / "model.pt")


def test_home_is_expanded(weights, tmp_path, monkeypatch):
    write_bin(tmp_path / "a.pt", weights[2])
    monkeypatch.setenv("HOME", str(tmp_path))
    assert pretrained.holds_weights("~/a.pt")
    assert_loads("~/a.pt", weights)
    with pytest.raises(ValueError, match=r"gs://bucket/a\.pt: weights are read from local files"):
        pretrained.load("gs://bucket/a.pt")
