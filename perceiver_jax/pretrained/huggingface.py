"""Hugging Face folders, `config.json` and `model.safetensors`: read and written.

Hugging Face's port computes other functions from the same weights in four places:

- It uses the exact GELU, unless the config sets `hidden_act` to `gelu_new`, as `save` does.
- It adds the query to the attention's output in the model with learned positions.
- Its convolutional stem pads by 3 + 3, not 2 + 3, and pools without padding.
- It does not multiply the flow by 20.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from perceiver_jax.pretrained import convert
from perceiver_jax.pretrained.formats import import_safetensors
from perceiver_jax.pretrained.models import Released, released

ARCHITECTURES = {
    "imagenet_learned": "PerceiverForImageClassificationLearned",
    "imagenet_fourier": "PerceiverForImageClassificationFourier",
    "imagenet_conv": "PerceiverForImageClassificationConvProcessing",
    "language": "PerceiverForMaskedLM",
    "flow": "PerceiverForOpticalFlow",
    "kinetics": "PerceiverForMultimodalAutoencoding",
}
HUB = {  # the official checkpoints' ids
    "deepmind/vision-perceiver-learned": "imagenet_learned",
    "deepmind/vision-perceiver-fourier": "imagenet_fourier",
    "deepmind/vision-perceiver-conv": "imagenet_conv",
    "deepmind/language-perceiver": "language",
    "deepmind/optical-flow-perceiver": "flow",
    "deepmind/multimodal-perceiver": "kinetics",
}
HUB_ADDRESS = "https://huggingface.co"
_BATCHES_SEEN = "perceiver.input_preprocessor.convnet.batchnorm.num_batches_tracked"


def save(
    released: Released,
    variables: Any,
    directory: str | pathlib.Path,
    names: Sequence[str] | None = None,
) -> pathlib.Path:
    """Writes `config.json`, with the classes' names, and `model.safetensors`.

    Returns:
      The directory.
    """
    tensors = convert.to_tensors(variables, released, "huggingface")
    tensors = {name: np.ascontiguousarray(x) for name, x in tensors.items()}
    if released.name == "imagenet_conv":
        tensors[_BATCHES_SEEN] = np.zeros((), np.int64)  # PyTorch's counter, which nothing reads
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config(released, names), indent=2, sort_keys=True) + "\n"
    (directory / "config.json").write_text(text)
    metadata = {"format": "pt", "conv_kernel": "OIHW"}
    import_safetensors().numpy.save_file(
        tensors, directory / "model.safetensors", metadata=metadata
    )
    return directory


def config(released: Released, names: Sequence[str] | None = None) -> dict[str, Any]:
    """The configuration that gives the port the same sizes.

    Bands, classes of padding and some widths are constants of the port. It must be changed before
    it reads an export with other values of these.
    """
    shapes = released.shapes["params"]
    spec, sizes = released.spec, released.spec["encoder"]
    kernel = shapes["encoder"]["cross_attend"]["attention"]["key"]["kernel"]
    latents = shapes["encoder"]["latents"].shape
    result = {
        "architectures": [ARCHITECTURES[released.name]],
        "model_type": "perceiver",
        "num_latents": latents[0],
        "d_latents": latents[1],
        "d_model": kernel.shape[0],
        "num_blocks": sizes["num_blocks"],
        "num_self_attends_per_block": sizes["num_self_attends_per_block"],
        "num_self_attention_heads": sizes.get("num_self_attend_heads", 8),
        "num_cross_attention_heads": sizes.get("num_cross_attend_heads", 1),
        "qk_channels": sizes.get("self_attend_qk_channels"),
        "v_channels": sizes.get("self_attend_v_channels"),
        "cross_attention_shape_for_attention": "kv",
        "self_attention_widening_factor": 1,
        "cross_attention_widening_factor": 1,
        "hidden_act": "gelu_new",
        "attention_probs_dropout_prob": 0.0,
        "use_query_residual": True,
    }
    if released.name.startswith("imagenet"):
        result |= _labels(spec["output"]["num_classes"], names)
        result["image_size"] = released.batch["image"].shape[1]
    elif released.name == "language":
        result["vocab_size"] = shapes["input"]["embedding"]["table"].shape[0]
        result["max_position_embeddings"] = spec["input"]["max_length"]
    elif released.name == "flow":
        result["train_size"] = list(spec["output"]["shape"])
    elif released.name == "kinetics":
        modalities = spec["output"]["modalities"]
        frames, height, width = modalities["video"]["shape"]
        result |= _labels(modalities["label"]["num_classes"], names)
        result |= {
            "image_size": height // 4,  # of the blocks
            "num_frames": frames,
            "audio_samples_per_frame": released.batch["audio"].shape[1] // frames,
            "samples_per_patch": modalities["audio"]["samples_per_patch"],
            "output_shape": [1, frames, height, width],
            "output_num_channels": spec["output"]["channels"],
            "_label_trainable_num_channels": modalities["label"]["query_channels"],
        }
    return result


def sized(
    config: Mapping[str, Any], tensors: Mapping[str, np.ndarray], *, exported: bool
) -> Released | None:
    """Returns the released model that a `config.json` describes, at its sizes.

    Args:
      config: content of the `config.json`.
      tensors: the weights; their shapes give the widths that are constants of the port.
      exported: whether `save` wrote them. The port's own Fourier models have positions for 224
        pixels whatever the `image_size` of their config says.

    Returns:
      None where there is no config.

    Raises:
      ValueError: the architecture is none of the six, or a size is missing.
    """
    if not config:
        return None
    architectures = {theirs: ours for ours, theirs in ARCHITECTURES.items()}
    found = [architectures[name] for name in config["architectures"] if name in architectures]
    if len(found) != 1:
        raise ValueError(
            f"config.json says that this is {config['architectures']}; this library has "
            f"{sorted(architectures)}"
        )
    (name,) = found
    try:
        return released(name, **_sizes(name, config, tensors, exported))
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"config.json of a {ARCHITECTURES[name]} lacks a size, or a tensor that tells it: "
            f"{error!r}"
        ) from error


def _sizes(name, config, tensors, exported) -> dict[str, Any]:
    """The arguments of `models.<name>`."""

    def width(tensor, axis=0):
        return tensors[f"perceiver.{tensor}"].shape[axis]

    sizes = {
        "num_latents": config["num_latents"],
        "latent_channels": config["d_latents"],
        "num_blocks": config.get("num_blocks", 1),
        "num_self_attends_per_block": config["num_self_attends_per_block"],
    }
    tokens = config["d_model"]
    if name == "language":
        return sizes | {
            "length": config["max_position_embeddings"],
            "channels": tokens,
            "qk_channels": config["qk_channels"],
            "num_heads": config["num_self_attention_heads"],
        }
    sizes["num_self_attend_heads"] = config["num_self_attention_heads"]
    sizes["num_cross_attend_heads"] = config.get("num_cross_attention_heads", 1)
    for part in ("qk_channels", "v_channels"):
        if config.get(part):  # one field for both kinds of attention
            sizes |= {f"{kind}_attend_{part}": config[part] for kind in ("cross", "self")}
    if name.startswith("imagenet"):
        sizes["num_classes"] = width("decoder.decoder.final_layer.weight")
        if name == "imagenet_learned" or exported:
            sizes["image_size"] = config["image_size"]
        if name == "imagenet_learned":
            sizes["channels"] = width("input_preprocessor.convnet_1x1.weight")
            sizes["position_channels"] = width("input_preprocessor.positions_projection.weight")
        elif name == "imagenet_fourier":
            sizes["num_bands"] = _num_bands(tokens - 3, axes=2)
        else:
            sizes["channels"] = width("input_preprocessor.convnet.conv.weight")
            sizes["num_bands"] = _num_bands(tokens - sizes["channels"], axes=2)
    elif name == "flow":
        sizes["height"], sizes["width"] = config["train_size"]
        sizes["channels"] = width("input_preprocessor.conv_after_patches.weight")
        sizes["num_bands"] = _num_bands(tokens - sizes["channels"], axes=2)
    else:
        patch = config["samples_per_patch"]
        audio = tokens - width("input_preprocessor.padding.audio", 1) - patch
        video = tokens - width("input_preprocessor.padding.image", 1) - 3 * 4 * 4
        classes = "output_postprocessor.modalities.label.classifier.weight"
        sizes |= {
            "num_frames": config["num_frames"],
            "image_size": config["image_size"] * 4,
            "samples_per_frame": config["audio_samples_per_frame"],
            "samples_per_patch": patch,
            "num_classes": width(classes),
            "audio_bands": _num_bands(audio, axes=1),
            "video_bands": _num_bands(video, axes=3),
            "label_query_channels": config["_label_trainable_num_channels"],
            "output_channels": config["output_num_channels"],
        }
    return sizes


def _num_bands(channels: int, *, axes: int) -> int:
    """The number of bands of Fourier features with so many channels; see `position.Fourier`."""
    return (channels // axes - 1) // 2


def address(hub_id: str, file: str) -> str:
    """The address of a file of one of `HUB`."""
    return f"{HUB_ADDRESS}/{hub_id}/resolve/main/{file}"


def to_numpy(state_dict: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays or PyTorch tensors by name -> NumPy arrays."""

    def array(x):
        if not hasattr(x, "detach"):
            return np.asarray(x)
        x = x.detach().cpu()
        return (x.float() if x.is_floating_point() else x).numpy()  # NumPy has no bfloat16

    return {name: array(x) for name, x in state_dict.items()}


def _labels(number: int, names: Sequence[str] | None) -> dict[str, Any]:
    labels = {str(i): name for i, name in enumerate(names or _stand_ins(number))}
    return {"id2label": labels, "label2id": {label: int(i) for i, label in labels.items()}}


def _stand_ins(number: int) -> list[str]:
    return [f"LABEL_{i}" for i in range(number)]
