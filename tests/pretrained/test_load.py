"""Weights in and out: official files, Hugging Face files, live state_dicts; bits do not change."""

import json
import pickle
import sys
import types
import zipfile

import golden_models
import jax
import numpy as np
import pytest

from perceiver_jax import pretrained
from perceiver_jax.pretrained import convert, huggingface


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def official(name, tmp_path):
    released = golden_models.released(name)
    path = golden_models.write_official(name, tmp_path / "weights.pystate")
    return released, pretrained.load(path, model=released)[1]


@pytest.mark.parametrize("name", golden_models.FILES)
def test_round_trips_are_bit_exact(name, tmp_path):
    """Official file -> ours -> Hugging Face directory -> ours -> official names."""
    released, variables = official(name, tmp_path)
    directory = pretrained.save_huggingface(released, variables, tmp_path / "exported")
    model, back = pretrained.load(directory, model=released)
    assert_same(variables, back)
    assert model == released.build()

    golden = golden_models.vectors(name)
    original = golden["params"] | golden["state"]
    tensors = convert.to_tensors(back, released, "haiku")
    for key, x in tensors.items():
        np.testing.assert_array_equal(x, original[key], strict=True)
    assert all(
        key.rpartition("/")[2] in ("hidden", "counter") for key in set(original) - set(tensors)
    )
    config = json.loads((directory / "config.json").read_text())
    assert config["architectures"] == [huggingface.ARCHITECTURES[name]]
    assert config["hidden_act"] == "gelu_new"


def test_the_model_is_known_by_its_names_and_sizes_are_the_released_ones(tmp_path):
    path = golden_models.write_official("flow", tmp_path / "weights.pystate")
    with pytest.raises(ValueError, match=r"(?s)not 'flow' at this size.*wrong shape: \S+ is \("):
        pretrained.load(path)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("mapping", ["FlatMapping", "FlatMap", "frozendict"])
def test_haikus_mappings_need_no_haiku(mapping, protocol, tmp_path, monkeypatch):
    module = types.ModuleType("haiku._src.data_structures")
    cls = type(mapping, (), {"__module__": module.__name__, "__init__": lambda self, d: None})
    cls.__reduce__ = lambda self: (cls, (self.content,))
    setattr(module, mapping, cls)

    def wrap(content):
        result = cls(None)
        result.content = content
        return result

    released, variables = official("imagenet_fourier", tmp_path)
    content = golden_models.official_content("imagenet_fourier")["params"]
    content = wrap({key: wrap(parameters) for key, parameters in content.items()})
    path = tmp_path / "weights.pickle"
    with monkeypatch.context() as patch:
        for name in ("haiku", "haiku._src", module.__name__):
            patch.setitem(sys.modules, name, module)
        path.write_bytes(pickle.dumps(content, protocol))
    assert_same(pretrained.load(path, model=released)[1], variables)


def test_old_numpy_arrays(tmp_path):
    """Files of NumPy 1 call the same functions by other module paths; orders and types vary."""
    released, variables = official("imagenet_fourier", tmp_path)
    content = golden_models.official_content("imagenet_fourier")["params"]
    content = {
        module: {key: np.asfortranarray(x.astype(">f4")) for key, x in parameters.items()}
        for module, parameters in content.items()
    }
    data = pickle.dumps(content, 2)
    assert b"numpy._core.multiarray" in data
    path = tmp_path / "old.pickle"
    path.write_bytes(data.replace(b"cnumpy._core.multiarray", b"cnumpy.core.multiarray"))
    assert_same(pretrained.load(path, model=released)[1], variables)


def write_bin(path, tensors):
    """What torch.save writes, without PyTorch."""
    tensors = {name: x if x.ndim < 3 else x.copy() for name, x in tensors.items()}
    utils, torch = types.ModuleType("torch._utils"), types.ModuleType("torch")

    def rebuild(*args):
        raise AssertionError("never called")

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = rebuild
    storages = {
        np.dtype(dtype): type(name, (), {"__module__": "torch"})
        for dtype, name in (("f4", "FloatStorage"), ("f2", "HalfStorage"), ("i8", "LongStorage"))
    }
    for cls in storages.values():
        setattr(torch, cls.__name__, cls)

    class Tensor:
        def __init__(self, key, x):
            self.key, self.x = key, x  # transposed matrices stay so, by their strides

        def __reduce__(self):
            stride = tuple(step // self.x.itemsize for step in self.x.strides)
            return rebuild, (Storage(self), 0, self.x.shape, stride, False, {})

    class Storage:
        def __init__(self, tensor):
            self.id = ("storage", storages[tensor.x.dtype], tensor.key, "cpu", tensor.x.size)

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return obj.id if isinstance(obj, Storage) else None

    saved = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules |= {"torch": torch, "torch._utils": utils}
    try:
        with zipfile.ZipFile(path, "w") as archive:
            with archive.open("archive/data.pkl", "w") as file:
                items = enumerate(tensors.items())
                Pickler(file, 2).dump({name: Tensor(str(i), x) for i, (name, x) in items})
            for i, x in enumerate(tensors.values()):
                archive.writestr(f"archive/data/{i}", x.tobytes(order="A"))
    finally:
        for name, module in saved.items():
            sys.modules.pop(name) if module is None else sys.modules.update({name: module})
    return path


@pytest.fixture
def conv(tmp_path):
    released, variables = official("imagenet_conv", tmp_path)
    tensors = convert.to_tensors(variables, released, "huggingface")
    tensors[huggingface._BATCHES_SEEN] = np.array(7)
    return released, variables, tensors


def test_bin_files_need_no_torch(conv, tmp_path):
    released, variables, tensors = conv
    path = write_bin(tmp_path / "pytorch_model.bin", tensors)
    result = pretrained.load(tmp_path, model=released, conv_kernel="OIHW")[1]
    assert_same(result, variables)
    half = {name: x.astype(np.float16) for name, x in tensors.items()}
    path = write_bin(tmp_path / "half.bin", half)
    result = pretrained.load(path, model=released, conv_kernel="OIHW")[1]
    expected = jax.tree.map(lambda x: np.asarray(x, np.float16).astype(np.float32), variables)
    assert_same(result, expected)


def test_a_live_state_dict(conv):
    released, variables, tensors = conv

    class Tensor:  # what a PyTorch tensor is asked for
        def __init__(self, x):
            self.x = x

        def detach(self):
            return self

        cpu = float = detach

        def is_floating_point(self):
            return True

        def numpy(self):
            return self.x

    state = {name: Tensor(x) for name, x in tensors.items()}
    assert_same(pretrained.load(state, model=released, conv_kernel="OIHW")[1], variables)
    assert_same(pretrained.load(tensors, model=released, conv_kernel="OIHW")[1], variables)


def test_the_axes_of_the_convolution_are_asked_for(conv, tmp_path):
    released, variables, tensors = conv
    with pytest.raises(ValueError, match="conv_kernel='OIWH' for deepmind/vision-perceiver-conv"):
        pretrained.load(tensors, model=released)
    key = "perceiver.input_preprocessor.convnet.conv.weight"
    mirrored = tensors | {key: tensors[key].swapaxes(2, 3)}
    assert_same(pretrained.load(mirrored, model=released, conv_kernel="OIWH")[1], variables)
    other = pretrained.load(mirrored, model=released, conv_kernel="OIHW")[1]
    kernels = [np.asarray(v["params"]["input"]["conv"]["kernel"]) for v in (variables, other)]
    np.testing.assert_array_equal(kernels[0], kernels[1].swapaxes(0, 1))
    assert not np.array_equal(*kernels)
    pretrained.save_huggingface(released, variables, tmp_path / "ours")
    assert_same(pretrained.load(tmp_path / "ours", model=released)[1], variables)  # it says so


def test_the_counter_of_batches_is_optional(conv):
    released, variables, tensors = conv
    del tensors[huggingface._BATCHES_SEEN]
    assert_same(pretrained.load(tensors, model=released, conv_kernel="OIHW")[1], variables)


def test_running_statistics_are_the_averages(conv):
    _, variables, _ = conv
    state = golden_models.vectors("imagenet_conv")["state"]
    name = "image_preprocessor/~/conv2_d_downsample/~/batchnorm/~/{}_ema/average"
    norm = variables["batch_stats"]["input"]["norm"]
    for key in ("mean", "var"):
        np.testing.assert_array_equal(norm[key], state[name.format(key)].reshape(-1))


def test_export_names_what_does_not_fit(conv, tmp_path):
    released, variables, _ = conv
    del variables["params"]["output"]["query"]
    variables["params"]["extra"] = np.zeros(3)
    with pytest.raises(
        ValueError, match=r"(?s)missing: params/output/query.*unexpected: params/extra"
    ):
        pretrained.save_huggingface(released, variables, tmp_path / "out")
    assert not (tmp_path / "out").exists()
