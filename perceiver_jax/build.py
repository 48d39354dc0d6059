"""A config's `model` section to modules, by name."""

import importlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict

from perceiver_jax.perceiver import Perceiver


def build(spec: Mapping[str, Any]) -> Perceiver:
    """Makes a `Perceiver` from plain values, as a config's `model` section holds them.

    The model is hashable and equals any other that is built from the same values, so it can be a
    static argument of `jax.jit`.

    Args:
      spec: `dtype` (the name of the compute dtype) and the sections `input`, `encoder`, `decoder`
        and `output`, each a dict of fields. A section `embedding` is a module that input and
        output share. `module` names the class where there is a choice: `"image.Pixels"` is
        `perceiver_jax.modalities.image.Pixels`; `"inertial:Readings"` is the class `Readings` of
        your own module `inertial`; a decoder is `"Decoder"` or `"MeanPool"`. A field may hold a
        dict of modules (multimodal).

    Raises:
      ValueError: a module does not exist; the message names it.
      TypeError: a module does not have a field; the message names it.
    """
    dtype = jnp.dtype(spec["dtype"])
    shared = {}
    if "embedding" in spec:
        shared = {"embedding": _make("embedding", spec["embedding"], "modalities.", dtype=dtype)}
    return Perceiver(
        input=_make("input", spec["input"], "modalities.", **shared, dtype=dtype),
        encoder=_make("encoder", spec["encoder"], "", dtype=dtype),
        decoder=_make("decoder", spec["decoder"], "perceiver.", dtype=dtype),
        output=_make("output", spec["output"], "modalities.", **shared, dtype=dtype),
    )


def _make(section: str, fields: Mapping[str, Any], package: str, **shared) -> nn.Module:
    """The module that a section describes; `package` is where names without a colon are."""
    fields = dict(fields)
    path = fields.pop("module", "perceiver.Encoder")
    if ":" in path:
        file, _, name = path.partition(":")
    else:
        file, _, name = f"perceiver_jax.{package}{path}".rpartition(".")
    try:
        module = getattr(importlib.import_module(file), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"model.{section}.module={path!r} does not exist: {error}") from error
    for key, value in fields.items():
        if isinstance(value, Mapping) and all(isinstance(v, Mapping) for v in value.values()):
            dtype = shared["dtype"]
            parts = {
                k: _make(f"{section}.{key}.{k}", v, package, dtype=dtype) for k, v in value.items()
            }
            fields[key] = FrozenDict(parts)
        elif isinstance(value, Mapping):
            fields[key] = FrozenDict(value)
    return module(**fields, **shared)
