"""Weights in any file format -> tensors by name. The content tells the format, not the file's name.

Pickles are not executed, see `pickles`.
"""

import json
import pathlib
import zipfile
from typing import Any, NamedTuple

import numpy as np

from perceiver_jax.pretrained import pickles

# Files of weights in a directory; the first that exists is read.
FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pystate", ".pickle", ".pkl")
# The names under which training scripts nest the parameters in a checkpoint.
_NESTED = ("state_dict", "model_state_dict", "model")
# Prefixes that wrappers add to every name.
_PREFIXES = ("module.", "_orig_mod.", "model.")
# Old torch.save: a pickled magic number, then the protocol and more pickles.
_TORCH_BEFORE_1_6 = bytes.fromhex("8a0a6cfc9c46f9206aa85019")
_NOT_WEIGHTS = {  # by the first bytes: what it is, and the remedy
    b"version https://git-lfs": ("a Git LFS pointer, not the file", "run `git lfs pull`"),
    b"<!DOCTYPE": ("a web page", "fetch the file itself"),
    b"<html": ("a web page", "fetch the file itself"),
    b"\x89HDF": ("an HDF5 file (Keras)", "convert it to safetensors"),
    b"\x93NUMPY": ("a single NumPy array", "weights are many arrays by name"),
    b"\x1f\x8b": ("compressed by gzip", "unpack it first"),
    b"BZh": ("compressed by bzip2", "unpack it first"),
    b"\xfd7zXZ": ("compressed by xz", "unpack it first"),
}


class Content(NamedTuple):
    """A file's tensors by name.

    Attributes:
      format: of the names, "haiku" or "huggingface".
      conv_kernel: axes of the convolution, which our exports record; None where unknown.
      config: of a Hugging Face `config.json` beside the file, else `{}`.
    """

    format: str
    tensors: dict[str, np.ndarray]
    conv_kernel: str | None
    config: dict[str, Any]


def find(directory: pathlib.Path) -> pathlib.Path | None:
    """Returns the file of `FILES` to read in a directory, if there is one."""
    return next((directory / name for name in FILES if (directory / name).is_file()), None)


def read(path: pathlib.Path) -> Content:
    """Reads a file, an index of shards, or a directory with one of `FILES`.

    Raises:
      ValueError: the file is broken, unsafe or no weights; the message says what it is.
    """
    if path.is_dir():
        directory, path = path, find(path)
        if path is None:
            others = sorted(p.name for p in directory.iterdir() if p.suffix in SUFFIXES)
            hint = f"; it has {others}: give the path of one" if others else ""
            raise ValueError(
                f"{directory} has neither model.safetensors nor pytorch_model.bin, nor an index "
                f"of their shards{hint}"
            )
    kind = _kind(path)
    conv_kernel = None
    if kind == "index":
        tensors, conv_kernel = _read_shards(path)
    elif kind == "safetensors":
        tensors, conv_kernel = _read_safetensors(path)
    elif kind == "torch":
        tensors = _state_dict(pickles.read_torch(path), path)
    else:
        return Content("haiku", _flatten(pickles.read(path), path), None, {})
    return Content("huggingface", tensors, conv_kernel, _config(path.parent / "config.json"))


def _kind(path: pathlib.Path) -> str:
    """Returns "index", "safetensors", "torch" or "pickle"."""
    with open(path, "rb") as file:
        head = file.read(512)
    if not head:
        raise ValueError(f"{path} cannot be read (it is empty): truncated; fetch it again")
    for start, (what, remedy) in _NOT_WEIGHTS.items():
        if head.startswith(start):
            raise ValueError(f"{path} is {what}: {remedy}")
    if head.startswith(b"PK"):
        return _kind_of_archive(path)
    if head[8:9] == b"{":  # after the header's length in 8 bytes
        return "safetensors"
    if head.lstrip()[:1] == b"{":
        return "index"
    if _TORCH_BEFORE_1_6 in head[:20]:
        raise ValueError(
            f"{path} has PyTorch's file format before 1.6: with PyTorch, torch.load it and pass "
            "the state_dict itself, or torch.save it again"
        )
    return "pickle"


def _kind_of_archive(path: pathlib.Path) -> str:
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not a whole zip archive: truncated; fetch it again")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith(".npy") for name in names):
        raise ValueError(
            f"{path} is an archive of NumPy arrays (.npz): np.load it and pass the arrays as a "
            "dict by their Hugging Face names"
        )
    if any(name.endswith("/constants.pkl") for name in names):
        raise ValueError(
            f"{path} is a TorchScript program, not weights: in PyTorch, torch.jit.load it and pass "
            "its state_dict()"
        )
    return "torch"


def _read_shards(path: pathlib.Path) -> tuple[dict[str, np.ndarray], str | None]:
    """Reads an index `{"weight_map": {tensor: file}}` and the files that it names."""
    try:
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(weight_map.values()))
        if any(pathlib.PurePath(file).name != file for file in files):
            raise ValueError("a shard outside of the folder")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is JSON, but no index of weights (a 'weight_map' from tensors to files): "
            f"{type(error).__name__}: {error}"
        ) from error
    tensors: dict[str, np.ndarray] = {}
    conv_kernel = None
    for file in files:
        shard = path.parent / file
        if not shard.is_file():
            raise ValueError(f"{path} names the shard {file}, which is not beside it: fetch it")
        content = read(shard)
        tensors |= content.tensors
        conv_kernel = conv_kernel or content.conv_kernel
    if missing := sorted(set(weight_map) - set(tensors)):
        raise ValueError(f"{path} names {missing[:5]}, which its shards lack: fetch them again")
    return tensors, conv_kernel


def _read_safetensors(path: pathlib.Path) -> tuple[dict[str, np.ndarray], str | None]:
    library = import_safetensors()
    try:
        with library.safe_open(path, framework="numpy") as file:
            said = (file.metadata() or {}).get("conv_kernel")
            return {name: file.get_tensor(name) for name in file.keys()}, said  # noqa: SIM118
    except library.SafetensorError as error:
        raise ValueError(
            f"{path} cannot be read ({error}): truncated or not safetensors; fetch it again"
        ) from error


def _state_dict(content: Any, path: pathlib.Path) -> dict[str, np.ndarray]:
    """Finds the parameters in a PyTorch file, nested or with prefixed names."""
    if isinstance(content, dict):
        for name in _NESTED:
            if isinstance(content.get(name), dict):
                content = content[name]
                break
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not tensors by name")
    tensors = {str(name): x for name, x in content.items() if isinstance(x, np.ndarray)}
    if not tensors:
        raise ValueError(
            f"{path} holds {sorted(map(str, content))[:5]} and no tensors: save model.state_dict()"
        )
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): x for name, x in tensors.items()}
    return tensors


def _flatten(content: Any, path: pathlib.Path) -> dict[str, np.ndarray]:
    """An official file's content -> tensors by `module/parameter`.

    Either `{module: {parameter: array}}`, or such mappings under `params` and `state`.
    """
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not parameters by module")
    groups = [content]
    if "params" in content:
        if extra := sorted(set(content) - {"params", "state"}):
            raise ValueError(f"{path} holds {extra} beside 'params' and 'state'")
        groups = [content["params"], content.get("state") or {}]
    result = {}
    for group in groups:
        for module, parameters in group.items():
            for name, x in (
                parameters if isinstance(parameters, dict) else {"": parameters}
            ).items():
                if not isinstance(x, np.ndarray):
                    raise ValueError(f"{path}: {module}/{name} is {type(x).__name__}, not an array")
                result[f"{module}/{name}"] = x
    return result


def _config(path: pathlib.Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    return config if isinstance(config, dict) and "architectures" in config else {}


def import_safetensors():
    """Imports the optional dependency `safetensors`."""
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            "Hugging Face files need safetensors: pip install -e '.[pretrained]'"
        ) from error
    return safetensors
