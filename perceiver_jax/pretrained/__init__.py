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
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from perceiver_jax.files.paths import user_path
from perceiver_jax.perceiver import Perceiver
from perceiver_jax.pretrained import convert, download, formats, huggingface
from perceiver_jax.pretrained.counterpart import counterpart, port_notes
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
    "counterpart",
    "described",
    "holds_weights",
    "load",
    "load_by_path",
    "official_name",
    "port_notes",
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
    """Loads a released model and its weights.

    Args:
      source: a name of `MODELS` (the official file is fetched) or a Hugging Face id of `HUB` (its
        `pytorch_model.bin` is), an `https://` address, a file, a Hugging Face directory, or a
        `state_dict` of PyTorch tensors or arrays. A file is an official pickle, safetensors, a
        PyTorch archive or an index of shards; its content decides which, not its name.
      model: which of the six it is, with its sizes if they are not the released ones. None: the one
        that the names in the file belong to. Sizes are read from a `config.json` beside the file.
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
    _check_axes(conv_kernel)
    if isinstance(source, str) and (name := official_name(source)):
        if model is not None and _name(model) != name:
            raise ValueError(f"load({source!r}) cannot be model={_name(model)!r}")
        model = model or name
    content, label = _read(source, cache)
    hint = (
        "\nIn a training config, config.start.fresh=('output',) leaves all below 'output' at its "
        "initial values, and config.start.resize_positions=True interpolates learned positions."
    )
    if not isinstance(model, Released):
        model = _recognize(content, model, label)
        hint = (
            "\nAt other sizes, pass model=pretrained.released(name, **sizes), or put config.json "
            "beside the weights."
        )
    variables = convert.to_variables(
        content.tensors,
        model,
        content.format,
        source=label,
        conv_kernel=_kernel_axes(content, model.name, label, conv_kernel),
        hint=hint,
    )
    return model.build(), jax.tree.map(jnp.asarray, variables)


def load_by_path(
    source: str | pathlib.Path | Mapping[str, Any],
    *,
    conv_kernel: str | None = None,
    cache: str | pathlib.Path | None = None,
) -> dict[str, np.ndarray]:
    """Loads a released model's variables by path, `params/input/...`, at the sizes they have.

    Arguments as above.

    Raises:
      ValueError: the file is broken, unsafe, or holds tensors that no single one of the six has.
    """
    _check_axes(conv_kernel)
    content, label = _read(source, cache)
    found = identify(content.tensors)
    if found is None:
        raise ValueError(_unknown(content, label))
    return convert.by_path(
        content.tensors,
        found[1],
        content.format,
        source=label,
        conv_kernel=_kernel_axes(content, found[1], label, conv_kernel),
    )


def official_name(source: str) -> str | None:
    """Which of `MODELS` a name of them or a Hugging Face id of `HUB` is; None of all else."""
    return HUB.get(source, source if source in URLS else None)


def holds_weights(source: str) -> bool:
    """Whether `source` is something that `load` reads: a name, an address, a file or a folder."""
    if official_name(source) or source.startswith(_ADDRESS):
        return True
    path = user_path(source)
    return path.is_file() or formats.find(path) is not None


def save_huggingface(
    model: str | Released,
    variables: Any,
    directory: str | pathlib.Path,
    *,
    names: Sequence[str] | None = None,
) -> pathlib.Path:
    """Writes `config.json` and `model.safetensors`, which `transformers` and `load` read.

    Args:
      model: which of the six, with its sizes if they are not the released ones.
      variables: as `load` returned them, or after training.
      directory: made if it does not exist.
      names: of the classes, for `id2label`.
    """
    model = released(model) if isinstance(model, str) else model
    return huggingface.save(model, variables, directory, names)


def _name(model: str | Released) -> str:
    return model if isinstance(model, str) else model.name


def _check_axes(conv_kernel: str | None) -> None:
    if conv_kernel not in (None, *convert.CONV_KERNELS):
        raise ValueError(f"conv_kernel={conv_kernel!r} is none of {convert.CONV_KERNELS}")


def _kernel_axes(content: formats.Content, name: str, label: str, given: str | None) -> str:
    """The axes of the stem's kernel, one of `convert.CONV_KERNELS`; see `load`."""
    if content.format == "huggingface" and name == "imagenet_conv":
        given = given or content.conv_kernel
        if given not in convert.CONV_KERNELS:
            raise ValueError(
                f"{label} does not say how its convolution is stored: pass conv_kernel='OIWH' for "
                "deepmind/vision-perceiver-conv, 'OIHW' for weights meant for PyTorch "
                "(config.start.conv_kernel in a training config)"
            )
    return given or "OIHW"


def _read(source, cache) -> tuple[formats.Content, str]:
    """The tensors, and what errors call their source."""
    if isinstance(source, Mapping):
        content = formats.Content("huggingface", huggingface.to_numpy(source), None, {})
        return content, "state_dict"
    if official_name(source):
        source = URLS.get(source) or huggingface.address(source, "pytorch_model.bin")
    label = str(source)
    if str(source).startswith(_ADDRESS):
        source = download.fetch(str(source), cache)
    path = user_path(source)
    if "://" in str(source):
        raise ValueError(f"{source}: weights are read from local files; copy it here first")
    if not path.exists():
        raise ValueError(f"{path} is neither a file nor one of {sorted(MODELS)}")
    return formats.read(path), label


def _unknown(content: formats.Content, label: str) -> str:
    names = sorted(content.tensors)
    return f"{label} holds none of {sorted(MODELS)}; its {len(names)} names begin with {names[:5]}"


def _recognize(content: formats.Content, model: str | None, label: str) -> Released:
    """The released model, at its sizes, whose weights the tensors are."""
    sized = huggingface.sized(
        content.config, content.tensors, exported=content.conv_kernel is not None
    )
    if model is not None:
        return sized if sized is not None and sized.name == model else released(model)
    if sized is not None:
        return sized
    found = identify(content.tensors)
    if found is None:
        raise ValueError(_unknown(content, label))
    model = released(found[1])
    if foreign := convert.foreign(content.tensors, model, found[0]):
        raise ValueError(
            f"{label} is another model: most names are those of {found[1]!r}, but it also holds "
            f"{foreign[:5]}. This library has {sorted(MODELS)}"
        )
    return model
