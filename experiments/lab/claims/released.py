"""The published weights. There is one set of each: no claim on them has an interval over seeds."""

import functools
from collections.abc import Sequence

from experiments.lab.claims.common import SMALL, series
from experiments.lab.rows import Row, Study
from experiments.lab.verdict import Claim, Test

REFERENCE = ("accuracy", {"model": "fourier"})
MODELS = ("fourier", "learned", "conv")
CUE_CONFLICT, IMAGENET9 = "cue_conflict", "imagenet9"  # settings: variants of configs/robustness.py


def _shape(study: Study) -> Sequence[Test]:
    generic, stem = (
        series(study, "shape_bias", model=name, setting=CUE_CONFLICT)
        for name in ("fourier", "conv")
    )
    return [Test("shape bias, fourier less conv", generic - stem, "above", 0.0)]


def _called(study: Study, *, models: Sequence[str]) -> Sequence[Test]:
    tests = []
    for model in models:
        shape, texture = (
            series(study, name, model=model, setting=CUE_CONFLICT) for name in ("shape", "texture")
        )
        both = shape.join(lambda a, b: a + b, texture)
        label = f"absolute rates: images that {model} calls by shape or texture"
        tests.append(Test(label, both, "above", 0.5))
    return tests


def _backgrounds(study: Study, *, model: str) -> Sequence[Test]:
    gap = series(study, "bg_gap", model=model, setting=IMAGENET9)
    return [Test(f"{model}: Mixed-Same less Mixed-Rand, ImageNet-9", gap, "above", SMALL)]


def _original(study: Study, *, model: str) -> Sequence[Test]:
    original = series(study, "accuracy_original", model=model, setting=IMAGENET9)
    return [Test(f"evaluated right: {model} on the original images", original, "above", 0.9)]


CLAIMS = [
    Claim(
        "released.shape",
        "Without convolution there is more shape bias than with a convolutional stem.",
        _shape,
        functools.partial(_called, models=("fourier", "conv")),
    ),
    *(
        Claim(
            f"released.sea.{model}",
            f"The released {model} weights use backgrounds: another class's costs over 2 points.",
            functools.partial(_backgrounds, model=model),
            functools.partial(_original, model=model),
        )
        for model in MODELS
    ),
]


def cell_controls(study: Study, row: Row) -> Sequence[Test]:
    """Those of its set, where it has any."""
    if row["setting"] == CUE_CONFLICT:
        return _called(study, models=(row["model"],))
    return _original(study, model=row["model"]) if row["setting"] == IMAGENET9 else ()
