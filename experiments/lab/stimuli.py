"""What the models of a study see: one example in each of its conditions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from perceiver_jax.datasets import registry

SOURCES: Mapping[str, Sequence[tuple[str, Mapping[str, Any]]]] = {
    "sea": [("sea", {"cue": "colour"}), ("sea", {"cue": "texture"})],
    "regularisation": [("sea", {"cue": "colour"}), ("sea", {"cue": "texture"})],
    "dominoes": [("dominoes", {})],
}


def images(study: str, data_dir: str = "") -> list[tuple[np.ndarray, str]]:
    """uint8 images `[H, W, 3]` and what each is; none where a study has no stimuli of its own.

    Raises:
      FileNotFoundError: data of the study are not there; says how to get them.
    """
    found = []
    for name, options in SOURCES.get(study, ()):
        source = registry.load(name, "test[:40]", data_dir=data_dir, options=options)
        seen = set()
        for number in range(len(source)):
            example = source[number]
            condition = source.conditions.names[example["condition"]]
            if condition not in seen:
                seen.add(condition)
                caption = [*options.values(), condition.replace("_", " ")]
                caption.append(f"class {example['label']}")
                found.append((example["image"], ", ".join(caption)))
    return found
