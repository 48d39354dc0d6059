"""The six released Perceiver IO models: their sizes, their weights in, their weights out.

    model, variables = pretrained.load("imagenet_fourier")                  # fetched and cached
    model, variables = pretrained.load("weights/checkpoint.pystate")        # an official file
    model, variables = pretrained.load("deepmind/vision-perceiver-fourier")  # from Hugging Face
    model, variables = pretrained.load("weights/some-hugging-face-model/")
    pretrained.save_huggingface("imagenet_fourier", variables, "exported/")

`model.apply(variables, batch, train=False)` then predicts. A training config starts from all of
these by `config.start.weights`.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from perceiver_jax.perceiver import Perceiver
from perceiver_jax.pretrained import convert, download, huggingface, pickles
from perceiver_jax.pretrained.huggingface import HUB
from perceiver_jax.pretrained.labels import class_names
from perceiver_jax.pretrained.models import MODELS, TINY, Released, described, released
from perceiver_jax.pretrained.names import identify

__all__ = [
    "HUB",
    "MODELS",
    "TINY",
    "URLS",
    "Released",
    "class_names",
    "described",
    "holds_weights",
    "load",
    "released",
    "save_huggingface",
]

_ADDRESS = ("https://", "http://")
_BUCKET = "https://storage.googleapis.com/perceiver_io"
URLS: Mapping[str, str] = {
    "imagenet_learned": f"{_BUCKET}/imagenet_learned_position_encoding.pystate",
    "imagenet_fourier": f"{_BUCKET}/imagenet_fourier_position_encoding.pystate",
    "imagenet_conv": f"{_BUCKET}/imagenet_conv_preprocessing.pystate",
    "language": f"{_BUCKET}/language_perceiver_io_bytes.pickle",
    "flow": f"{_BUCKET}/optical_flow_checkpoint.pystate",
    "kinetics": f"{_BUCKET}/video_autoencoding_checkpoint.pystate",
}


def load(
    source: str | pathlib.Path | Mapping[str, Any],
    *,
    model: str | Released | None = None,
    conv_kernel: str | None = None,
    cache: str | pathlib.Path | None = None,
) -> tuple[Perceiver, Any]:
    """A released model and its weights.

    Args:
      source: a name of `MODELS` (the official file is fetched) or a Hugging Face id of `HUB` (its
        `pytorch_model.bin` is), an `https://` address, a file of either kind (`.pystate`,
        `.pickle`; `.safetensors`, `.bin`), a Hugging Face directory, or a `state_dict` of PyTorch
        tensors or arrays.
      model: which of the six it is, with its sizes if they are not the released ones; None: what
        the names in the file say.
      conv_kernel: only for Hugging Face weights of `imagenet_conv` that do not say it: axes of the
        stem's kernel. "OIWH" for `deepmind/vision-perceiver-conv` and copies of it: the script that
        wrote it from the official file reversed all axes (so its source says; the file itself was
        not compared). "OIHW" for weights trained in or meant for PyTorch.
      cache: directory of fetched files; None is the user's cache directory.

    Returns:
      (model, variables), float32.

    Raises:
      ValueError: the file is broken, unsafe, or not this model; every tensor at fault is named.
    """
    if conv_kernel not in (None, *convert.CONV_KERNELS):
        raise ValueError(f"conv_kernel={conv_kernel!r} is none of {convert.CONV_KERNELS}")
    label = "state_dict" if isinstance(source, Mapping) else str(source)
    if isinstance(source, str) and (source in URLS or source in HUB):
        name = HUB.get(source, source)
        if model is not None and _name(model) != name:
            raise ValueError(f"load({source!r}) cannot be model={_name(model)!r}")
        model = model or name
        label = source = URLS.get(source) or huggingface.address(source, "pytorch_model.bin")
    format, tensors, said = _read(source, cache)
    if model is None:
        found = identify(tensors)
        if found is None:
            raise ValueError(f"{label} holds none of {sorted(MODELS)}; its names: {list(tensors)}")
        model = found[1]
    if isinstance(model, str):
        model = released(model)
    if format == "huggingface" and model.name == "imagenet_conv":
        conv_kernel = conv_kernel or said
        if conv_kernel not in convert.CONV_KERNELS:
            raise ValueError(
                f"{label} does not say how its convolution is stored: pass conv_kernel='OIWH' for "
                "deepmind/vision-perceiver-conv, 'OIHW' for weights meant for PyTorch "
                "(config.start.conv_kernel in a training config)"
            )
    variables = convert.to_variables(
        tensors, model, format, source=label, conv_kernel=conv_kernel or "OIHW"
    )
    return model.build(), jax.tree.map(jnp.asarray, variables)


def holds_weights(source: str) -> bool:
    """Whether `source` is something that `load` reads: a name, an address, a file or a folder."""
    path = pathlib.Path(source)
    return (
        source in URLS
        or source in HUB
        or source.startswith(_ADDRESS)
        or path.is_file()
        or any((path / name).is_file() for name in huggingface.FILES)
    )


def save_huggingface(
    model: str | Released, variables: Any, directory: str | pathlib.Path
) -> pathlib.Path:
    """Writes `config.json` and `model.safetensors`, which `transformers` and `load` read.

    Args:
      model: which of the six, with its sizes if they are not the released ones.
      variables: as `load` returned them, or after training.
      directory: made if it does not exist.
    """
    return huggingface.save(
        released(model) if isinstance(model, str) else model, variables, directory
    )


def _name(model: str | Released) -> str:
    return model if isinstance(model, str) else model.name


def _read(source, cache) -> tuple[str, dict[str, np.ndarray], str | None]:
    """(format, tensors by name, the convolution's axes if the file says them)."""
    if isinstance(source, Mapping):
        return "huggingface", huggingface.to_numpy(source), None
    if str(source).startswith(_ADDRESS):
        source = download.fetch(str(source), cache)
    path = pathlib.Path(source)
    if not path.exists():
        raise ValueError(f"{path} is neither a file nor one of {sorted(MODELS)}")
    if path.is_dir():
        path = huggingface.find(path)
    if path.suffix in (".safetensors", ".bin"):
        return "huggingface", *huggingface.read(path)
    return "haiku", _flatten(pickles.read(path), path), None


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
