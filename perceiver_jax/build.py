"""A config's `model` section to modules, by name."""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict

from perceiver_jax import ar
from perceiver_jax.config_types import (
    ConfigError,
    DType,
    check,
    check_fields,
    declared_fields,
    import_name,
)
from perceiver_jax.perceiver import Decoder, Perceiver


class Spec(TypedDict):
    """The fields of a config's `model` section; the modules declare those of theirs."""

    dtype: DType
    embedding: NotRequired[Mapping[str, Any]]
    input: Mapping[str, Any]
    encoder: Mapping[str, Any]
    decoder: Mapping[str, Any]
    output: Mapping[str, Any]


def build(spec: Mapping[str, Any]) -> nn.Module:
    """Makes a `Perceiver` from plain values, as a config's `model` section holds them.

    With a field `module` it makes another model instead, from the fields that this one declares:
    `"baselines.ResNet"` with an `output`, `"ar.PerceiverAR"`, or `"mine:Model"` of your own.

    The model is hashable and equals any other that is built from the same values, so it can be a
    static argument of `jax.jit`.

    Args:
      spec: `dtype` (the name of the compute dtype) and the sections `input`, `encoder`, `decoder`
        and `output`, each a dict of fields. A section `embedding` is a module that input and
        output share, where they have a field `embedding`. `module` names the class where there is
        a choice: `"image.Pixels"` is `perceiver_jax.modalities.image.Pixels`; `"inertial:Readings"`
        is the class `Readings` of your own module `inertial`; a decoder is `"Decoder"` or
        `"MeanPool"`. A field may hold a dict of modules (multimodal).

    Raises:
      ConfigError: a module does not exist or lacks a field, or a value is not allowed; one line
        with the full name of the field, as `config.model.encoder.num_latents`.
    """
    if "module" in spec:
        return _make_other(spec)
    check_fields(Spec, spec, "config.model")
    dtype = jnp.dtype(spec["dtype"])
    shared = {}
    if "embedding" in spec:
        shared = {"embedding": _make("embedding", spec["embedding"], "modalities.", dtype=dtype)}
    model = Perceiver(
        input=_make("input", spec["input"], "modalities.", **shared, dtype=dtype),
        encoder=_make("encoder", spec["encoder"], "", dtype=dtype),
        decoder=_make("decoder", spec["decoder"], "perceiver.", dtype=dtype),
        output=_make("output", spec["output"], "modalities.", **shared, dtype=dtype),
    )
    check_sizes(model)
    return model


def _make_other(spec: Mapping[str, Any]) -> nn.Module:
    """The model of a section that names its module; `output` where that declares one."""
    fields = dict(spec)
    common = {"dtype": fields.pop("dtype", None)}
    check(DType, common["dtype"], "config.model.dtype")
    common["dtype"] = jnp.dtype(common["dtype"])
    known, _ = declared_fields(_find("config.model.module", fields["module"], ""))
    if "output" in known:
        output = fields.pop("output", None)
        check(Mapping[str, Any], output, "config.model.output")
        common["output"] = _make("output", output, "modalities.", **common)
    model = _make("", fields, "", **common)
    if isinstance(model, ar.PerceiverAR):
        ar.check_sizes(model)
    return model


def check_sizes(model: Perceiver) -> None:
    """Raises ConfigError where two sizes of the encoder and decoder do not fit each other."""
    encoder, width = model.encoder, model.encoder.latent_channels

    def divides(section: str, field: str, value: int | None, by_field: str, by: int) -> None:
        if value and value % by:
            raise ConfigError(
                f"config.model.{section}.{field}={value} must divide by {by_field}={by}"
            )

    blocks, reads = encoder.num_blocks, encoder.num_cross_attends
    divides("encoder", "num_blocks", blocks, "num_cross_attends", reads)
    for kind, default in (("cross_attend", None), ("self_attend", width)):
        heads = getattr(encoder, f"num_{kind}_heads")
        for part in ("qk_channels", "v_channels"):
            value = getattr(encoder, f"{kind}_{part}")
            field = f"{kind}_{part}" if value or not default else "latent_channels"
            divides("encoder", field, value or default, f"num_{kind}_heads", heads)
    if isinstance(model.decoder, Decoder):
        heads = model.decoder.num_heads
        for field in ("qk_channels", "v_channels"):
            divides("decoder", field, getattr(model.decoder, field), "num_heads", heads)
        if model.decoder.qk_channels is None and width % heads:
            raise ConfigError(
                f"config.model.decoder.num_heads={heads} must divide the latents' "
                f"config.model.encoder.latent_channels={width}"
            )


def _find(name: str, path: Any, package: str) -> Any:
    """The class that the field `name` names by `path`; see `_make`."""
    check(str, path, name)
    if ":" in path:
        file, _, attribute = path.partition(":")
    else:
        file, _, attribute = f"perceiver_jax.{package}{path}".rpartition(".")
    return import_name(name, path, file, attribute)


def _make(section: str, fields: Mapping[str, Any], package: str, **shared) -> nn.Module:
    """The module that a section describes; `package` is where names without a colon are."""
    fields, name = dict(fields), f"config.model.{section}".rstrip(".")
    path = fields.pop("module", "perceiver.Encoder")
    module = _find(f"{name}.module", path, package)
    check_fields(module, fields, name, given=shared)
    known, _ = declared_fields(module)
    shared = {key: value for key, value in shared.items() if key == "dtype" or key in known}
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
