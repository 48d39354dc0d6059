"""Broken, wrong and malicious files: refused, and the message says what is at fault."""

import collections
import io
import os
import pathlib
import pickle
import re
import zipfile

import golden_models
import numpy as np
import pytest
from test_load import write_bin

from perceiver_jax import pretrained
from perceiver_jax.pretrained import convert, pickles

NAME = "imagenet_fourier"


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def load(path):
    return pretrained.load(path, model=golden_models.released(NAME))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_is_refused_by_name_and_not_run(protocol, tmp_path):
    proof = tmp_path / "proof"
    attack = Malicious(f"touch {proof}")
    content = golden_models.official_content(NAME) | {"params": attack}
    path = tmp_path / "weights.pystate"
    path.write_bytes(pickle.dumps(content, protocol))
    with pytest.raises(pickles.RefusedError, match=r"nothing of it was run: .* posix.system"):
        load(path)
    assert not proof.exists()

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"x": attack}, protocol))
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(pickles.RefusedError, match=r"posix.system"):
        load(path)
    assert not proof.exists()
    pickle.loads(pickle.dumps(attack, protocol))  # the attack is one
    assert proof.exists()


@pytest.mark.parametrize(
    "value",
    [
        np.array([{"a": 1}, None], object),
        np.zeros(2, [("a", "f4")]),
        np.array(["text"]),
        pathlib.Path("x"),
        collections.deque([1]),
        1j,
    ],
    ids=["objects", "structure", "strings", "path", "deque", "complex"],
)
def test_only_numbers_are_admitted(value, tmp_path):
    path = tmp_path / "weights.pystate"
    path.write_bytes(pickle.dumps({"module": {"w": value}}))
    with pytest.raises(pickles.RefusedError, match=re.escape(str(path))):
        pickles.read(path)


@pytest.mark.parametrize(
    "code",
    [
        b"cnumpy\ndtype\n(K\x01dK\x02ub.",  # items set on a function
        b"cnumpy\ndtype\n(dN}\x8c\x09_functionNsb.",
        b"cnumpy\ndtype\nN}\x8c\x09_functionNs\x86b.",  # its slot set
        b"cnumpy\ndtype\n)\x81.",  # an instance without its arguments
        b"ccollections\nOrderedDict\n)R\x8c\x01xM\x00\x00Q.",
        b"cbuiltins\neval\n.",
        b"\x80\x04\x8c\x0bnumpy\xff",
    ],
)
def test_crafted_instructions_change_nothing(code, tmp_path):
    path = tmp_path / "weights.pystate"
    path.write_bytes(code)
    with pytest.raises(ValueError, match=r"weights\.pystate"):
        load(path)
    good = golden_models.write_official(NAME, tmp_path / "good.pystate")
    load(good)


def test_a_tensor_outside_its_storage_is_refused():
    storage = np.arange(6, dtype=np.float32)
    np.testing.assert_array_equal(pickles._tensor(storage, 1, (2, 2), (3, 1)), [[1, 2], [4, 5]])
    for offset, size, stride in ((3, (2, 2), (3, 1)), (0, (7,), (1,)), (5, (2,), (-1,))):
        with pytest.raises(pickles.RefusedError):
            pickles._tensor(storage, offset, size, stride)


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.999])
def test_a_truncated_file(keep, tmp_path):
    whole = golden_models.write_official(NAME, tmp_path / "whole.pystate").read_bytes()
    path = tmp_path / "weights.pystate"
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    with pytest.raises(ValueError, match=r"weights.pystate cannot be read.*truncated"):
        load(path)
    released = golden_models.released(NAME)
    variables = load(tmp_path / "whole.pystate")[1]
    path = pretrained.save_huggingface(released, variables, tmp_path) / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    with pytest.raises(ValueError, match=r"model.safetensors cannot be read.*truncated"):
        load(path)
    path.rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model.bin cannot be read.*truncated"):
        load(tmp_path / "pytorch_model.bin")
    path = write_bin(tmp_path / "whole.bin", {"latents": np.ones((40, 50), np.float32)})
    whole = path.read_bytes()
    path.write_bytes(whole[: max(4, keep if isinstance(keep, int) else int(keep * len(whole)))])
    with pytest.raises(ValueError, match=r"whole.bin is not a whole zip archive: truncated"):
        load(path)


def test_a_file_of_another_model(tmp_path):
    path = golden_models.write_official("flow", tmp_path / "weights.pystate")
    with pytest.raises(ValueError) as caught:
        load(path)
    message = str(caught.value)
    assert (
        "weights.pystate is not 'imagenet_fourier' at this size. Its names are those of 'flow'."
        in message
    )
    assert "\n  missing: classification_decoder/~/basic_decoder/output/w (32, 10)" in message
    assert "\n  unexpected: image_preprocessor/patches_linear/w (54, 64)" in message
    with pytest.raises(ValueError, match="cannot be model='flow'"):
        pretrained.load("kinetics", model="flow")


@pytest.mark.parametrize("format", ["haiku", "huggingface"])
def test_every_key_at_fault_is_named(format):
    released, golden = golden_models.released(NAME), golden_models.vectors(NAME)
    variables = convert.to_variables(golden["params"], released, "haiku")
    tensors = convert.to_tensors(variables, released, format)
    first, second, third, *_ = tensors
    tensors["renamed"] = tensors.pop(first)
    tensors[second] = tensors[second][:, 1:]
    tensors[third] = tensors[third].astype(np.int32)
    with pytest.raises(ValueError) as caught:
        convert.to_variables(tensors, released, format, source="file")
    lines = str(caught.value).split("\n  ")
    assert lines[0] == "file is not 'imagenet_fourier' at this size."
    assert [line.split()[0] for line in lines[1:]] == ["missing:", "unexpected:", "wrong", "wrong"]
    for name, line in zip([first, "renamed", second, third], lines[1:], strict=True):
        assert name in line


def test_what_is_no_checkpoint(tmp_path):
    with pytest.raises(ValueError, match=r"neither a file nor one of \['flow'"):
        pretrained.load("imagenet")
    with pytest.raises(ValueError, match=r"has neither model\.safetensors nor pytorch_model\.bin"):
        pretrained.load(tmp_path)
    path = tmp_path / "weights.pystate"
    for content, message in (
        ([1, 2], "holds a list"),
        ({"module": {"w": 3}}, "module/w is int"),
        ({"params": {}, "optimizer": {}}, r"holds \['optimizer'\]"),
        ({"linear": {"w": np.ones(3)}}, "holds none of"),
    ):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(ValueError, match=message):
            pretrained.load(path)
