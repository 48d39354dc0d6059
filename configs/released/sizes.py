"""Sizes of the released models, to predict with other ones: `experiments.predict --config`.

    --config=configs/released/sizes.py:flow --config.height=400 --config.width=720
    --config=configs/released/sizes.py:language:tiny

The variant is the model's name, of `perceiver_jax/pretrained/models.py`; the fields are what the
function of that name there takes, and the values the released ones. `:tiny` is small enough to try
with random weights on a CPU in seconds.
"""

import inspect

from ml_collections import ConfigDict

from perceiver_jax import perceiver, pretrained

VARIANTS = tuple(pretrained.MODELS)
ENCODER = ("num_latents", "latent_channels", "num_blocks", "num_self_attends_per_block")


def get_config(variant: str = ""):
    name, _, tiny = variant.partition(":")
    if name not in VARIANTS or tiny not in ("", "tiny"):
        raise ValueError(f"variant {variant!r} is none of {VARIANTS}, nor one of them with ':tiny'")
    function = pretrained.MODELS[name]
    parameters = inspect.signature(function).parameters.values()
    config = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    encoder = perceiver.Encoder(**function().spec["encoder"])
    heads = () if "num_heads" in config else ("num_self_attend_heads",)
    config |= {field: getattr(encoder, field) for field in (*ENCODER, *heads)}
    if tiny:
        config |= pretrained.TINY[name]
    return ConfigDict({"name": name, **config})
