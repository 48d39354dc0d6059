"""Of two cues that both tell the class, the simpler one is all that is used (Shah et al. 2020)."""

import functools
from collections.abc import Sequence

from experiments.lab.claims.common import MODELS, gate, series
from experiments.lab.rows import Row, Study
from experiments.lab.verdict import Claim, Test

REFERENCE = ("accuracy_mnist_random", {"model": "pixels"})


def _simplicity(study: Study, *, model: str) -> Sequence[Test]:
    def at(name):
        return series(study, f"accuracy_{name}", model=model, rho=1.0, setting="base")

    return [
        Test(f"{model}, digit random: less chance", at("mnist_random") - 0.5, "below", 0.05),
        Test(f"{model}, photograph random: loss", at("standard") - at("cifar_random"), "below",
             0.05),
    ]  # fmt: skip


def _simplicity_controls(study: Study, *, model: str) -> Sequence[Test]:
    alone = series(study, "accuracy_mnist_random", model=model, setting="mnist_random")
    task = series(study, "accuracy_standard", model=model, rho=1.0, setting="base")
    return [
        gate(study, "accuracy_mnist_random", model=model, setting="mnist_random",
             best="mnist_random"),
        Test(f"photograph learnable: {model} trained with the digit random, less chance",
             alone - 0.5, "above", 0.1),
        Test(f"task learned: {model}, standard images", task, "above", 0.95),
    ]  # fmt: skip


def _exceptions(study: Study, *, model: str) -> Sequence[Test]:
    def at(rho):
        return series(study, "accuracy_mnist_random", model=model, rho=rho, setting="base")

    return [Test(f"{model}, digit random: rho 0.9 less rho 1", at(0.9) - at(1.0), "above", 0.05)]


CLAIMS = [
    Claim(
        f"dominoes.{name}.{model}",
        statement.format(model=model),
        functools.partial(evidence, model=model),
        functools.partial(_simplicity_controls, model=model),
    )
    for name, statement, evidence in (
        ("simplicity", "Extreme simplicity bias in {model}: with the digit randomised it is within "
         "5 points of chance, with the photograph randomised it loses less than 5.", _simplicity),
        ("exceptions", "One exception in ten makes {model} use the photograph too: more than 5 "
         "points.", _exceptions),
    )
    for model in MODELS
]  # fmt: skip


def cell_controls(study: Study, row: Row) -> Sequence[Test]:
    """Those of the claims on its model."""
    return _simplicity_controls(study, model=row["model"])
