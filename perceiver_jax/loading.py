"""`pj.load`: a model and its variables, from released weights or from a run of one's own."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from perceiver_jax import pretrained
from perceiver_jax.build import build
from perceiver_jax.perceiver import Perceiver
from perceiver_jax.pretrained import formats
from perceiver_jax.train import checkpoint
from perceiver_jax.train.log import warn
from perceiver_jax.train.workdir import (
    CONFIG,
    EXPORTED,
    as_json,
    is_workdir,
    load_config,
    make_ours,
    read_exported,
)


def load(
    source: str | os.PathLike[str] | Mapping[str, Any],
    *,
    model: str | pretrained.Released | None = None,
    conv_kernel: str | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> tuple[Perceiver, Any]:
    """Loads a model and its variables; `model.apply(variables, batch, train=False)` predicts.

    Args:
      source: a workdir of `experiments.run` (built from its `config.json`, with the parameters of
        its newest whole checkpoint), such a run exported as safetensors, or anything that
        `pretrained.load` takes: a released name, a Hugging Face id, an address, a file, a Hugging
        Face folder or a `state_dict`.
      model, conv_kernel, cache: as in `pretrained.load`; released weights only.

    Returns:
      (model, variables). `variables` holds `params` and, where the model has any, `batch_stats`.

    Raises:
      ValueError: the weights are damaged, unsafe or of another model.
      FileNotFoundError: the workdir has no checkpoint.
    """
    if isinstance(source, Mapping) or not is_workdir(epath.Path(source).expanduser()):
        return pretrained.load(source, model=model, conv_kernel=conv_kernel, cache=cache)
    if (model, conv_kernel, cache) != (None, None, None):
        raise ValueError(
            f"{source} is a workdir, which its own config.json describes: leave out model, "
            "conv_kernel and cache"
        )
    workdir = epath.Path(source).expanduser()
    built = build(load_config(workdir).model.to_dict())
    if (arrays := read_exported(workdir)) is not None:
        return built, unflatten_dict(jax.tree.map(jnp.asarray, arrays), sep="/")
    weights, _ = checkpoint.restore_weights(workdir, None, warn=warn)
    return built, {"params": weights["params"], **weights["model_state"]}


def save(directory: pathlib.Path, config: ConfigDict, variables: Any) -> None:
    """Writes a run's `config.json` and its variables as `model.safetensors`, which `load` reads.

    Args:
      directory: a local folder.
      config: of the run.
      variables: as `load` returns them; a tensor's name is its path, `params/encoder/latents`.
    """
    library = formats.import_safetensors()
    tensors = flatten_dict(jax.device_get(variables), sep="/")
    tensors = {name: np.ascontiguousarray(x) for name, x in tensors.items()}
    library.numpy.save_file(tensors, directory / EXPORTED, metadata={"format": "perceiver_jax"})
    make_ours(epath.Path(directory) / CONFIG, as_json(config))
