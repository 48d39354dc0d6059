"""The published weights. There is one set of each: no claim on them has an interval over seeds."""

import functools
from collections.abc import Sequence

from experiments.lab.claims.common import series
from experiments.lab.rows import Row, Study
from experiments.lab.verdict import Claim, Test

REFERENCE = ("accuracy", {"model": "fourier"})
ACCURATE = 0.7  # they have 78 to 82 % on ImageNet: less is a fault in the evaluation


def _shape(study: Study) -> Sequence[Test]:
    generic, stem = (series(study, "shape_bias", model=name) for name in ("fourier", "conv"))
    return [Test("shape bias, fourier less conv", generic - stem, "above", 0.0)]


def _backgrounds(study: Study, *, model: str) -> Sequence[Test]:
    gap = series(study, "bg_gap", model=model)
    return [Test(f"{model}: Mixed-Same less Mixed-Rand, ImageNet-9", gap, "above", 0.02)]


def _evaluated(study: Study, *, models: Sequence[str]) -> Sequence[Test]:
    return [
        Test(f"evaluated right: ImageNet accuracy of {model}",
             series(study, "accuracy", model=model), "above", ACCURATE)
        for model in models
    ]  # fmt: skip


CLAIMS = [
    Claim(
        "released.shape",
        "Without convolution there is more shape bias than with a convolutional stem.",
        _shape,
        functools.partial(_evaluated, models=("fourier", "conv")),
    ),
    *(
        Claim(
            f"released.sea.{model}",
            f"The released {model} weights use backgrounds: another class's costs over 2 points.",
            functools.partial(_backgrounds, model=model),
            functools.partial(_evaluated, models=(model,)),
        )
        for model in ("fourier", "learned", "conv")
    ),
]


def cell_controls(study: Study, row: Row) -> Sequence[Test]:
    """That its evaluation is right."""
    return _evaluated(study, models=(row["model"],))
