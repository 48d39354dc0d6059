"""The model of `transformers` that computes what one of ours does, or what stands in the way."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax import linen as nn

from perceiver_jax.build import build
from perceiver_jax.pretrained.huggingface import ARCHITECTURES
from perceiver_jax.pretrained.models import Released, modules_of, released

PARTS = ("qk_channels", "v_channels")
# Fields that change training or memory, and not what is computed.
UNSEEN = ("name", "parent", "dtype", "remat", "dropout_rate", "attention_dropout_rate",
          "mask_rates", "drop_rates",
          "latent_init_scale", "query_init_scale", "position_init_scale")  # fmt: skip
NOTES = {
    "imagenet_learned": "transformers adds the query to the decoder's output, which this model "
    "does not: set model.perceiver.decoder.decoder.decoding_cross_attention.attention."
    "use_query_residual = False.",
    "imagenet_conv": "transformers pads the stem by 3 + 3 pixels, not 2 + 3, and pools without "
    "padding: its numbers differ a little.",
    "flow": "transformers leaves out the factor 20: multiply its logits by it.",
}


def counterpart(spec: Mapping[str, Any], *, image_size: int | None = None) -> Released:
    """The released architecture that `transformers` has, at the sizes of a config's `model`.

    Args:
      spec: as for `build.build`.
      image_size: pixels of a side of the images; needed for models of images.

    Raises:
      ValueError: none has; names each field that differs.
    """
    refused = "no model of transformers is like it: {}. --to=safetensors takes every model"
    if "module" in spec:
        raise ValueError(refused.format(f"config.model.module={spec['module']!r}"))
    kinds = {name: modules_of(name) for name in ARCHITECTURES}
    ours = {part: spec[part]["module"] for part in ("input", "output")}
    name = next((n for n, found in kinds.items() if found == tuple(ours.values())), None)
    if name is None:
        theirs = {part: {found[i] for found in kinds.values()} for i, part in enumerate(ours)}
        odd = [part for part in ours if ours[part] not in theirs[part]] or list(ours)
        text = "; ".join(
            f"config.model.{part}.module={ours[part]!r}, where they have {sorted(theirs[part])}"
            for part in odd
        )
        raise ValueError(refused.format(text))
    model = build(spec)
    found = released(name, **_sizes(name, model, image_size))
    lines = _differences(model, found.build(), image_size)
    if lines:
        raise ValueError(refused.format(f"{'; '.join(lines)} ({ARCHITECTURES[name]})"))
    return found


def port_notes(model: Released) -> list[str]:
    """What `transformers` computes otherwise, one line each; see `huggingface`."""
    return [NOTES[model.name]] if model.name in NOTES else []


def _sizes(name: str, model: nn.Module, image_size: int | None) -> dict[str, Any]:
    """Those arguments of `models.<name>` that a config of `transformers` has fields for."""
    encoder = model.encoder
    sizes = {
        field: getattr(encoder, field)
        for field in ("num_latents", "latent_channels", "num_blocks", "num_self_attends_per_block")
    }
    if name == "language":
        return sizes | {
            "length": model.input.max_length,
            "channels": model.input.embedding.channels,
        }
    sizes["num_self_attend_heads"] = encoder.num_self_attend_heads
    sizes["num_cross_attend_heads"] = encoder.num_cross_attend_heads
    if encoder.cross_attend_qk_channels and (widths := _common_widths(encoder)):
        sizes |= widths
    if name == "kinetics":
        return sizes | _clip_sizes(model.output)
    if name == "flow":
        return sizes | dict(zip(("height", "width"), model.output.shape, strict=True))
    sizes["num_classes"] = model.output.num_classes
    if name == "imagenet_learned":
        sizes["image_size"] = image_size
    return sizes


def _clip_sizes(output: nn.Module) -> dict[str, Any]:
    """Those of `models.kinetics`."""
    audio, label, video = (output.modalities[name] for name in ("audio", "label", "video"))
    num_frames, image_size, _ = video.shape
    return {
        "num_frames": num_frames,
        "image_size": image_size,
        "samples_per_frame": audio.num_patches * audio.samples_per_patch // num_frames,
        "samples_per_patch": audio.samples_per_patch,
        "num_classes": label.num_classes,
        "label_query_channels": label.query_channels,
        "output_channels": output.channels,
    }


def _common_widths(encoder: nn.Module) -> dict[str, int]:
    """The widths of queries, keys and values, if cross-attend and self-attends have the same.

    A config of `transformers` has one field for both.
    """
    cross = [encoder.cross_attend_qk_channels]
    cross.append(encoder.cross_attend_v_channels or cross[0])
    own = [getattr(encoder, f"self_attend_{part}") or encoder.latent_channels for part in PARTS]
    if cross != own:
        return {}
    kinds = ("cross_attend", "self_attend")
    return {
        f"{kind}_{part}": width for kind in kinds for part, width in zip(PARTS, own, strict=True)
    }


def _differences(ours: Any, theirs: Any, image_size: int | None, name: str = "") -> list[str]:
    """A line for each field in which two modules differ."""
    if type(ours) is not type(theirs):
        return [f"config.model{name}.module is {type(ours).__name__}, theirs "
                f"{type(theirs).__name__}"]  # fmt: skip
    lines = []
    for field in dataclasses.fields(ours):
        a, b = getattr(ours, field.name), getattr(theirs, field.name)
        if field.name in UNSEEN or (field.name == "share_weights" and ours.num_blocks == 1):
            continue
        if field.name == "modalities" and a.keys() == b.keys():
            for key in a:
                lines += _differences(a[key], b[key], image_size, f"{name}.modalities.{key}")
        elif isinstance(a, nn.Module) or isinstance(b, nn.Module):
            lines += _differences(a, b, image_size, f"{name}.{field.name}")
        elif _value(ours, field.name, image_size) != _value(theirs, field.name, image_size):
            lines.append(f"config.model{name}.{field.name}={a!r}, where they have {b!r}")
    return lines


def _value(module: nn.Module, field: str, image_size: int | None) -> Any:
    """A field's value, with what stands for None or ()."""
    value = getattr(module, field)
    if field == "max_resolution" and not value and image_size:
        stem = type(module).__name__ == "ConvStem"
        return (-(-image_size // 4) if stem else image_size,) * 2
    if field.startswith("self_attend_") and field.endswith("channels"):
        return value or module.latent_channels
    if field == "cross_attend_v_channels":
        return value or module.cross_attend_qk_channels
    return value
