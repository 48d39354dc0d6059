"""Reference vectors: outputs and gradients of the official code, at small sizes.

One `.npz` a model, its sizes in `configs.json`. Keys are `group|name`, parameters with their
official names: `params|<module>|<name>` and `state|...`, `input|...`, `output|...`, a random array
`cotangent|...` for each output, and `grads|...`, the gradient of sum(cotangent * output) with
respect to each parameter. In none of them is a parameter zero. `PERCEIVER_GOLDEN_DIR` names another
directory of the same format.
"""

import functools
import json
import os
import pathlib
import pickle

import jax.numpy as jnp
import numpy as np

from perceiver_jax import pretrained

FILES = {
    "imagenet_learned": "imagenet_learned",
    "imagenet_fourier": "imagenet_fourier",
    "imagenet_conv": "imagenet_conv",
    "language": "mlm",
    "flow": "flow",
    "kinetics": "kinetics",
}


def directory() -> pathlib.Path:
    default = pathlib.Path(__file__).with_name("golden")
    return pathlib.Path(os.environ.get("PERCEIVER_GOLDEN_DIR") or default)


@functools.cache
def vectors(name: str) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of a model: group -> name -> array; parameter names are `module/name`."""
    groups: dict[str, dict[str, np.ndarray]] = {"state": {}}
    with np.load(directory() / f"{FILES[name]}.npz") as file:
        for key in file.files:
            group, *rest = key.split("|")
            groups.setdefault(group, {})["/".join(rest)] = file[key]
    return groups


@functools.cache
def released(name: str) -> pretrained.Released:
    """The model at the sizes of its reference vectors."""
    config = json.loads((directory() / "configs.json").read_text())[FILES[name]]
    sizes = config["encoder"]
    encoder = {
        "num_latents": sizes["n"],
        "latent_channels": sizes["d"],
        "num_blocks": sizes["blocks"],
        "num_self_attends_per_block": sizes["layers"],
    }
    if name != "language":
        encoder["num_self_attend_heads"] = sizes["heads"]
    if name.startswith("imagenet"):
        encoder |= {"image_size": config["image_size"], "num_classes": config["num_classes"]}
        preprocessor = config["preprocessor"]
    if name == "imagenet_learned":
        encoder["channels"] = preprocessor["num_channels"]
        encoder["position_channels"] = preprocessor["project_pos_dim"]
    elif name.startswith("imagenet"):
        encoder["num_bands"] = preprocessor["fourier_position_encoding_kwargs"]["num_bands"]
    elif name == "language":
        encoder["length"], encoder["channels"] = config["max_seq_len"], config["d_model"]
        encoder["qk_channels"], encoder["num_heads"] = config["qk_channels"], sizes["cross_heads"]
    elif name == "flow":
        encoder["height"], encoder["width"] = config["train_size"]
        encoder["num_bands"] = config["num_bands"]
    elif name == "kinetics":
        encoder["num_frames"], encoder["image_size"] = config["frames"], config["size"]
        encoder["label_query_channels"] = config["query_label_channels"]
        for key in ("samples_per_frame", "samples_per_patch", "num_classes", "output_channels"):
            encoder[key] = config[key]
        encoder |= {"audio_bands": config["audio_bands"], "video_bands": config["video_bands"]}
    return pretrained.released(name, **encoder)


def inputs(name: str) -> tuple[dict, dict]:
    """(batch, keyword arguments of the model) of the reference call."""
    given = {key: jnp.asarray(x) for key, x in vectors(name)["input"].items()}
    if name.startswith("imagenet"):
        return {"image": given["images"]}, {}
    if name == "language":
        return {"text": given["ids"], "text_mask": given["mask"].astype(bool)}, {}
    if name == "flow":
        return {"frames": given["images"]}, {}
    video, audio = given["images"], given["audio"][..., 0]
    batch = {"video": video, "audio": audio, "label": jnp.full(len(video), -1)}
    chosen = {"video": given["sub_image"], "audio": given["sub_audio"], "label": None}
    return batch, {"indices": chosen}


def outputs(name: str, prediction) -> dict:
    """Our prediction under the reference's names."""
    if name != "kinetics":
        return {"output": prediction}
    return {"image" if key == "video" else key: x for key, x in prediction.items()}


def official_content(name: str) -> dict:
    """The parameters as the official files nest them."""
    content: dict = {"params": {}, "state": {}}
    for group, modules in content.items():
        for key, x in vectors(name)[group].items():
            module, _, parameter = key.rpartition("/")
            modules.setdefault(module, {})[parameter] = x
    return content


def write_official(name: str, path: pathlib.Path) -> pathlib.Path:
    """The parameters as an official file."""
    path.write_bytes(pickle.dumps(official_content(name)))
    return path
