"""An example and its prediction as pictures, sound and words, whatever its modality is."""

import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from experiments.report.mistakes import Mistake
from perceiver_jax import files, plots
from perceiver_jax.inference.text import likeliest
from perceiver_jax.modalities import text as text_modality
from perceiver_jax.plots import page

LARGEST = 256  # pixels of a side of an embedded picture
MOST_TEXT = 300  # characters of an example that are shown
AROUND = 40  # bytes shown before and after a hidden run


def example(mistake: Mistake, names: Sequence[str], config: Mapping[str, Any]) -> str:
    """A figure of a page: what went in, the guess, the truth and the loss."""
    lines = [*_words(mistake, names), f"loss {mistake.loss:.3g}"]
    caption = "; ".join(lines)
    images = "".join(
        page.embed(page.png(_small(image)), "png", f"{what}: {caption}")
        for what, image in _pictures(mistake).items()
    )
    return page.item(images + _sound(mistake, caption, config), lines)


def _pictures(mistake: Mistake) -> dict[str, np.ndarray]:
    """uint8 images `[H, W, C]` by what they show."""
    given, prediction = mistake.example, mistake.prediction
    result = {}
    if "image" in given:
        result["image"] = _uint8(given["image"])
    elif "frames" in given:
        result["first"] = _uint8(given["frames"][0])
        if "field" not in given:
            result["second"] = _uint8(given["frames"][1])
    elif "points" in given:
        present = given.get("points_mask", np.ones(len(given["points"]), bool))
        result["cloud"] = plots.cloud_image(given["points"][present])
    elif "video" in given:
        result["middle frame"] = _uint8(given["video"][len(given["video"]) // 2])
        if isinstance(prediction, Mapping) and "video" in prediction:
            frame = prediction["video"][len(prediction["video"]) // 2]
            result["reconstruction"] = _uint8(np.clip(frame, 0, 1) * 255)
    if "field" in given:
        height, width = given.get("size", given["field"].shape[:2])
        fields = {"truth": given["field"], "prediction": prediction}
        fields = {name: x[:height, :width] for name, x in fields.items()}
        result = {name: x[:height, :width] for name, x in result.items()}
        valid = given["valid"][:height, :width]
        result |= {name: _colours(x, fields["truth"], valid) for name, x in fields.items()}
    return result


def _colours(field: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """A flow or disparity in colours, on the scale of the truth."""
    known = truth[valid] if valid.any() else truth.reshape(-1, truth.shape[-1])
    if field.shape[-1] == 2:
        most = float(np.hypot(known[:, 0], known[:, 1]).max()) or 1.0
        return plots.flow_colours(field, full_colour=most)
    low, high = float(known.min()), float(known.max())
    return plots.disparity_colours(field, low=low, high=max(high, low + 1e-6))


def _words(mistake: Mistake, names: Sequence[str]) -> list[str]:
    """The guess and the truth, as far as there are classes or text."""
    given, prediction = mistake.example, mistake.prediction

    def name(k):
        return names[k] if k < len(names) else str(k)

    logits = prediction.get("label") if isinstance(prediction, Mapping) else prediction
    words = []
    if "text" in given and "hidden" not in given:
        ids = given["text"].astype(np.int32) + text_modality.NUM_RESERVED
        text = text_modality.decode(ids[given["text_mask"]] if "text_mask" in given else ids)
        words = [f"text {text[:MOST_TEXT]}"]
    if "label" in given and np.ndim(logits) == 1:
        chances = np.exp(logits - logits.max())
        best = int(np.argmax(logits))
        return [*words, f"guess {name(best)} {chances[best] / chances.sum():.0%}",
                f"truth {name(int(given['label']))}"]  # fmt: skip
    if "labels" in given and np.ndim(logits) == 1:
        best = np.argsort(-logits, kind="stable")[:3]
        true = [name(int(k)) for k in np.flatnonzero(given["labels"] > 0)]
        return [f"guess {', '.join(name(int(k)) for k in best)}", f"truth {', '.join(true)}"]
    if "named" in given:
        there = given["named"] >= 0
        right = (np.argmax(prediction, axis=-1) == given["named"])[there]
        return [f"{right.sum()} of {right.size} entities right"]
    if "hidden" in given:
        return _text(given, prediction)
    if "field" in given:
        difference = np.linalg.norm(prediction - given["field"], axis=-1)[given["valid"]]
        return [f"mean error {difference.mean():.3g} px"] if difference.size else []
    return words


def _text(given, logits) -> list[str]:
    """The longest run of hidden bytes in its place, and what was filled in."""
    ids = given["text"].astype(np.int32) + text_modality.NUM_RESERVED
    edges = np.flatnonzero(np.diff(given["hidden"], prepend=False, append=False)).reshape(-1, 2)
    if not len(edges):
        return []
    start, stop = max(edges, key=lambda edge: edge[1] - edge[0])
    guess = likeliest(logits[None])[0]
    shown = np.where(given["hidden"], text_modality.encode("_")[0], ids)
    around = shown[max(start - AROUND, 0) : stop + AROUND]
    return [
        f"text {text_modality.decode(around)}",
        f"guess {text_modality.decode(guess[start:stop])}",
        f"truth {text_modality.decode(ids[start:stop])}",
    ]


def _sound(mistake: Mistake, title: str, config: Mapping[str, Any]) -> str:
    """The sound of an example, and that of its reconstruction."""
    given, prediction = mistake.example, mistake.prediction
    rate = config["data"]["source_options"].get("samples_per_second")
    video = config["data"]["source_options"].get("frames_per_second")
    if "audio" not in given or given["audio"].ndim != 1:
        return ""
    if not rate and video and "video" in given:
        rate = len(given["audio"]) * video / len(given["video"])
    sounds = {"sound": given["audio"]}
    if isinstance(prediction, Mapping) and "audio" in prediction:
        sounds["reconstructed sound"] = prediction["audio"]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "sound.wav"
        parts = []
        for what, samples in sounds.items():
            # Of a source that tells no rate the sound has the length of one second.
            files.write_wav(path, np.clip(samples, -1, 1), round(rate or len(samples)))
            parts.append(page.audio(path.read_bytes(), f"{what}: {title}"))
    return "".join(parts)


def _small(image: np.ndarray) -> np.ndarray:
    """An image of at most `LARGEST` pixels a side."""
    if max(image.shape[:2]) <= LARGEST:
        return image
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    picture.thumbnail((LARGEST, LARGEST))
    found = np.asarray(picture)
    return found[..., None] if found.ndim == 2 else found


def _uint8(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
