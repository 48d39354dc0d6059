"""The Hugging Face side: a directory of `config.json` and `model.safetensors`, in and out.

The port computes other functions from the same weights in four places, of which the configuration
can settle the first: it uses exact GELU unless `hidden_act` is `gelu_new` (which we write); it adds
the query to the learned-position model's answer; its convolutional stem pads 3 + 3 and not 2 + 3
and pools without padding; its flow is not multiplied by 20.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from perceiver_jax.pretrained import convert, pickles
from perceiver_jax.pretrained.models import Released

ARCHITECTURES = {
    "imagenet_learned": "PerceiverForImageClassificationLearned",
    "imagenet_fourier": "PerceiverForImageClassificationFourier",
    "imagenet_conv": "PerceiverForImageClassificationConvProcessing",
    "language": "PerceiverForMaskedLM",
    "flow": "PerceiverForOpticalFlow",
    "kinetics": "PerceiverForMultimodalAutoencoding",
}
HUB = {  # the official checkpoints, by their id there
    "deepmind/vision-perceiver-learned": "imagenet_learned",
    "deepmind/vision-perceiver-fourier": "imagenet_fourier",
    "deepmind/vision-perceiver-conv": "imagenet_conv",
    "deepmind/language-perceiver": "language",
    "deepmind/optical-flow-perceiver": "flow",
    "deepmind/multimodal-perceiver": "kinetics",
}
HUB_ADDRESS = "https://huggingface.co"
FILES = ("model.safetensors", "pytorch_model.bin")  # the first that is there is read
_BATCHES_SEEN = "perceiver.input_preprocessor.convnet.batchnorm.num_batches_tracked"


def save(released: Released, variables: Any, directory: str | pathlib.Path) -> pathlib.Path:
    """Writes `config.json` and `model.safetensors`; returns the directory."""
    tensors = convert.to_tensors(variables, released, "huggingface")
    tensors = {name: np.ascontiguousarray(x) for name, x in tensors.items()}
    if released.name == "imagenet_conv":
        tensors[_BATCHES_SEEN] = np.zeros((), np.int64)  # PyTorch's counter, which nothing reads
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config(released), indent=2, sort_keys=True) + "\n"
    (directory / "config.json").write_text(text)
    metadata = {"format": "pt", "conv_kernel": "OIHW"}
    _safetensors().numpy.save_file(tensors, directory / "model.safetensors", metadata=metadata)
    return directory


def config(released: Released) -> dict[str, Any]:
    """The configuration with which the port has the same sizes.

    Bands, classes of padding and some widths are constants of the port: it reads an export at
    other than the released values of those only into a model that was changed accordingly.
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
        result |= _labels(spec["output"]["num_classes"])
        result["image_size"] = released.batch["image"].shape[1]
    elif released.name == "language":
        result["vocab_size"] = shapes["input"]["embedding"]["table"].shape[0]
        result["max_position_embeddings"] = spec["input"]["max_length"]
    elif released.name == "flow":
        result["train_size"] = list(spec["output"]["shape"])
    elif released.name == "kinetics":
        modalities = spec["output"]["modalities"]
        frames, height, width = modalities["video"]["shape"]
        result |= _labels(modalities["label"]["num_classes"])
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


def read(path: pathlib.Path) -> tuple[dict[str, np.ndarray], str | None]:
    """A checkpoint file -> its tensors, and the convolution's axes if the file says them."""
    if path.suffix == ".bin":
        return pickles.read_torch(path), None
    library = _safetensors()
    try:
        with library.safe_open(path, framework="numpy") as file:
            said = (file.metadata() or {}).get("conv_kernel")
            return {name: file.get_tensor(name) for name in file.keys()}, said  # noqa: SIM118
    except library.SafetensorError as error:
        raise ValueError(
            f"{path} cannot be read ({error}): truncated or not safetensors; fetch it again"
        ) from error


def find(directory: pathlib.Path) -> pathlib.Path:
    """The checkpoint file in a directory."""
    for name in FILES:
        if (directory / name).exists():
            return directory / name
    raise ValueError(f"{directory} has neither {' nor '.join(FILES)}")


def address(hub_id: str, file: str) -> str:
    """Where a file of one of `HUB` is fetched from."""
    return f"{HUB_ADDRESS}/{hub_id}/resolve/main/{file}"


def to_numpy(state_dict: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays or PyTorch tensors by name -> NumPy arrays."""

    def array(x):
        if not hasattr(x, "detach"):
            return np.asarray(x)
        x = x.detach().cpu()
        return (x.float() if x.is_floating_point() else x).numpy()  # NumPy has no bfloat16

    return {name: array(x) for name, x in state_dict.items()}


def _labels(number: int) -> dict[str, Any]:
    labels = {str(i): f"LABEL_{i}" for i in range(number)}
    return {"id2label": labels, "label2id": {label: int(i) for i, label in labels.items()}}


def _safetensors():
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            "Hugging Face files need safetensors: pip install -e '.[pretrained]'"
        ) from error
    return safetensors
