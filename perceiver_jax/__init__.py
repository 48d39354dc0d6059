"""Perceiver and Perceiver IO in JAX.

    import perceiver_jax as pj

    model, variables = pj.load("imagenet_conv")
    logits = model.apply(variables, {"image": images}, train=False)

Input and output modules are named as in a config: `"image.Pixels"` there is `pj.image.Pixels` here.
A name is imported when it is first used, so `import perceiver_jax` imports nothing large.
"""

import importlib
from typing import TYPE_CHECKING

from perceiver_jax.memory import keep_freed_memory

if TYPE_CHECKING:
    from perceiver_jax import files, inference, plots, pretrained
    from perceiver_jax.loading import load
    from perceiver_jax.maps import attention_maps
    from perceiver_jax.modalities import (
        audio,
        entities,
        flow,
        image,
        label,
        multimodal,
        points,
        stereo,
        text,
        video,
    )
    from perceiver_jax.perceiver import Decoder, Encoder, MeanPool, Perceiver
    from perceiver_jax.position import Fourier, Table
    from perceiver_jax.resampler import Resampler
    from perceiver_jax.tokens import Tokens

__all__ = [  # noqa: RUF022  by use
    "Perceiver",
    "Encoder",
    "Decoder",
    "MeanPool",
    "Resampler",
    "Tokens",
    "Fourier",
    "Table",
    "audio",
    "entities",
    "flow",
    "image",
    "label",
    "multimodal",
    "points",
    "stereo",
    "text",
    "video",
    "load",
    "attention_maps",
    "files",
    "inference",
    "plots",
    "pretrained",
]

# The module that defines each public name; a name that is not here is itself a module.
_DEFINED_IN = {
    "Perceiver": "perceiver",
    "Encoder": "perceiver",
    "Decoder": "perceiver",
    "MeanPool": "perceiver",
    "Resampler": "resampler",
    "Tokens": "tokens",
    "Fourier": "position",
    "Table": "position",
    "load": "loading",
    "attention_maps": "maps",
}
_MODALITIES = (
    "audio",
    "entities",
    "flow",
    "image",
    "label",
    "multimodal",
    "points",
    "stereo",
    "text",
    "video",
)

keep_freed_memory()


def __getattr__(name: str):
    """Imports a public name when it is first used (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _DEFINED_IN:
        value = getattr(importlib.import_module(f"{__name__}.{_DEFINED_IN[name]}"), name)
    else:
        package = "modalities." if name in _MODALITIES else ""
        value = importlib.import_module(f"{__name__}.{package}{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
