"""Reads arrays from untrusted pickles.

A pickle is a program: it names functions to be called. Here each allowed name stands for an object
of this file, which only collects bytes. Every other name is an error before anything runs. NumPy's
own unpickling functions are not called either.

There are two dialects, and neither library is needed to read them: NumPy arrays in dicts or Haiku's
mappings (the official files), and PyTorch's zip archives (`pytorch_model.bin`).
"""

import io
import math
import pathlib
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

_DTYPE = re.compile(r"[<>|=]?([fiu]\d{1,2}|b1|\?)")
_STORAGES = {
    "BFloat16Storage": jnp.dtype("bfloat16"),
    "BoolStorage": np.bool_,
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "IntStorage": np.int32,
    "LongStorage": np.int64,
}


class RefusedError(ValueError):
    """The file asks for something that is not an array, a dict or a number."""


def read(path: str | pathlib.Path) -> Any:
    """The content of an official `.pystate` or `.pickle` file: dicts, lists and NumPy arrays.

    Raises:
      RefusedError: naming the function or class that the pickle asks for.
      ValueError: the file is truncated or no pickle.
    """
    with open(path, "rb") as file:
        return _load(file, _NUMPY, path)


def read_torch(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """The `state_dict` in a file of `torch.save`, as NumPy arrays. Raises: as `read`."""
    path = pathlib.Path(path)
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} is not a zip archive: truncated, or of PyTorch before 1.6; with PyTorch, "
            "torch.load it and pass the state_dict itself"
        )
    with zipfile.ZipFile(path) as archive:
        members = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in members if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"{path} is not an archive of torch.save: it has no single data.pkl")
        folder = pickles[0].removesuffix("data.pkl")

        def storage(reference):
            kind, dtype, key, _, size = reference
            name = f"{folder}data/{key}"
            if kind != "storage" or not isinstance(dtype, _Storage) or name not in members:
                raise RefusedError(f"{path} refers to {reference!r}, which is no tensor in it")
            if members[name].compress_type != zipfile.ZIP_STORED:
                raise RefusedError(f"{path}: {name} is compressed, which torch.save never does")
            data = archive.read(name)
            return np.frombuffer(data, dtype.dtype, count=size)

        return _load(io.BytesIO(archive.read(pickles[0])), _TORCH, path, storage)


class _Restricted(pickle.Unpickler):
    def __init__(self, file, admitted: Mapping[str, Any], path, storage: Callable | None):
        super().__init__(file)
        self._admitted, self._path, self._storage = admitted, path, storage

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in self._admitted:
            raise RefusedError(
                f"{self._path} is refused and nothing of it was run: it asks for {full}, which is "
                "neither a NumPy array nor a dict"
            )
        return self._admitted[full]

    def persistent_load(self, pid: Any) -> Any:
        if self._storage is None:
            raise RefusedError(f"{self._path} is refused: it refers to {pid!r} outside the file")
        return self._storage(pid)


def _load(file, admitted, path, storage=None) -> Any:
    try:
        return _plain(_Restricted(file, admitted, path, storage).load())
    except RefusedError as error:
        if str(path) in str(error):
            raise
        raise RefusedError(f"{path} is refused: {error}") from error
    except Exception as error:  # broken bytes raise many types
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}: {error}): truncated or not a "
            "checkpoint; delete it and fetch it again"
        ) from error


class _Admitted:
    """A function that a pickle may call but not change."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable):
        object.__setattr__(self, "_function", function)

    def __call__(self, *args):
        return self._function(*args)

    def __setattr__(self, name, value):
        raise RefusedError(f"the pickle tries to change {name!r} of a function")

    __setstate__ = None  # the pickle's BUILD instruction fails on a function


class _Dict(dict):
    """Any admitted mapping. Attributes set on it (PyTorch's version notes) are dropped."""

    __slots__ = ()

    def __setstate__(self, state):
        pass


class _Dtype:
    __slots__ = ("dtype",)

    def __init__(self, code: str, align: bool = False, copy: bool = False):
        if not isinstance(code, str) or not _DTYPE.fullmatch(code):
            raise RefusedError(f"an array of type {code!r} is not numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state):
        _, order, *structure = state
        if any(part is not None for part in structure[:3]):
            raise RefusedError("an array of structures is not numbers")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    __slots__ = ("array",)

    def __setstate__(self, state):
        _, shape, dtype, fortran, data = state
        if not isinstance(data, bytes | bytearray):
            raise RefusedError("an array of Python objects is not numbers")
        self.array = _array(data, dtype, shape, "F" if fortran else "C")


class _Storage:
    """Stands for a PyTorch storage class."""

    __slots__ = ("dtype",)

    def __init__(self, dtype):
        self.dtype = dtype


def _array(data, dtype: _Dtype, shape, order="C") -> np.ndarray:
    return np.frombuffer(data, dtype.dtype).reshape(shape, order=order)


def _frombuffer(data, dtype: _Dtype, shape, order) -> _Array:
    result = _Array()
    result.array = _array(data, dtype, shape, order)
    return result


def _scalar(dtype: _Dtype, data: bytes) -> _Array:
    return _frombuffer(data, dtype, (), "C")


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise RefusedError(f"bytes encoded as {encoding!r}")
    return text.encode("latin1")


def _tensor(storage, offset, size, stride, *_) -> np.ndarray:
    """A strided view of a storage, inside it."""
    if len(size) != len(stride) or min((offset, *size, *stride)) < 0:
        raise RefusedError(f"a tensor of size {size}, stride {stride}, offset {offset}")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) and last >= storage.size:
        raise RefusedError(f"a tensor of size {size} reaches outside its storage")
    strides = [step * storage.itemsize for step in stride]
    view = np.lib.stride_tricks.as_strided(storage[offset:], size, strides, writeable=False)
    return np.array(view)


def _admitted() -> tuple[dict[str, Any], dict[str, Any]]:
    """By full name, what a NumPy pickle and what a PyTorch pickle may use."""
    mapping = _Admitted(_Dict)
    shared = {"collections.OrderedDict": mapping, "_codecs.encode": _Admitted(_latin1)}
    arrays: dict[str, Any] = {
        "numpy.ndarray": "ndarray",  # only ever an argument of _reconstruct
        "numpy.dtype": _Admitted(_Dtype),
    }
    for core in ("numpy.core", "numpy._core"):
        arrays[f"{core}.multiarray._reconstruct"] = _Admitted(lambda *_: _Array())
        arrays[f"{core}.multiarray.scalar"] = _Admitted(_scalar)
        arrays[f"{core}.numeric._frombuffer"] = _Admitted(_frombuffer)
    for module in ("haiku._src.data_structures", "haiku.data_structures", "haiku"):
        for name in ("FlatMapping", "FlatMap", "frozendict"):
            arrays[f"{module}.{name}"] = mapping
    torch = {f"torch.{name}": _Storage(dtype) for name, dtype in _STORAGES.items()}
    torch["torch._utils._rebuild_tensor_v2"] = _Admitted(_tensor)
    torch["torch._utils._rebuild_parameter"] = _Admitted(lambda tensor, *_: tensor)
    return shared | arrays, shared | torch


def _plain(x: Any) -> Any:
    """Replaces what stands for arrays and mappings by arrays and dicts."""
    if isinstance(x, _Array):
        return x.array
    if isinstance(x, dict):
        return {key: _plain(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [_plain(value) for value in x]
    if x is None or isinstance(x, bool | int | float | str | np.ndarray):
        return x
    raise RefusedError(f"the file holds a {type(x).__name__} where arrays are expected")


_NUMPY, _TORCH = _admitted()
