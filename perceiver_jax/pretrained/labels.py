"""Names of the classes, from what comes with the weights or with TFDS. None are kept here."""

import json
import pathlib
import re

from perceiver_jax.files.paths import user_path
from perceiver_jax.pretrained import download, huggingface
from perceiver_jax.pretrained.models import MODELS

OFFICIAL = (".pystate", ".pickle")


def class_names(source: str, num_classes: int) -> list[str] | None:
    """The names of the classes that weights know, in the order of their logits.

    Args:
      source: the name, file, folder or address of the weights, as for `load`.
      num_classes: how many the model tells apart.

    Returns:
      The classes in the `config.json` of a run on one's own images; `id2label` of the Hugging Face
      `config.json` beside the weights; for official weights of
      1,000 classes ImageNet's WordNet ids (`n02123045`), of which TFDS has the list; else None.

    Raises:
      ValueError: such a `config.json` is broken or names another number of classes.
    """
    if source in MODELS or source.endswith(OFFICIAL):
        return _wordnet_ids() if num_classes == 1000 else None
    if source in huggingface.HUB:
        path = download.fetch(huggingface.address(source, "config.json"))
    else:
        path = user_path(source)
        path = (path if path.is_dir() else path.parent) / "config.json"
    return _id2label(path, num_classes) if path.is_file() else None


def _id2label(path: pathlib.Path, num_classes: int) -> list[str] | None:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        labels = config.get("id2label")
        names = labels and [str(labels[str(i)]) for i in range(len(labels))]
        if known := config.get("data", {}).get("classes"):  # a model may have more
            names = [*known, *(f"class {k}" for k in range(len(known), num_classes))]
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: id2label must hold a name for each of '0', '1', ... ({error!r})"
        ) from error
    if not names or all(re.fullmatch(r"LABEL_\d+", name) for name in names):  # stand-ins
        return None
    if len(names) != num_classes:
        raise ValueError(f"{path} names {len(names)} classes, the model has {num_classes}")
    return names


def _wordnet_ids() -> list[str]:
    import tensorflow_datasets as tfds  # slow to import, and only this needs it

    return tfds.builder("imagenet2012").info.features["label"].names
