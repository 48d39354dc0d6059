"""A powerful learner takes the sea for the boat: grounds that tell the class of a digit."""

import functools
import itertools
from collections.abc import Sequence

from experiments.lab.claims.common import CHANCE, CLEAR, CUES, MODELS, NEAR, chance, gate, series
from experiments.lab.rows import Row, Study, mean
from experiments.lab.verdict import Claim, Test

REFERENCE = ("accuracy_conflict", {"model": "pixels"})
RHO = 0.95
SEA_CONDITIONS = ("aligned", "conflict", "object_only", "uncorrelated")


def _sea_gate(study: Study, model: str, cue: str) -> Test:
    where = {"cue": cue, "rho": CHANCE["sea"], "setting": "base"}
    return gate(study, "accuracy_uncorrelated", model=model, **where)


def _learnable(study: Study, model: str, cue: str) -> Test:
    alone = series(study, "accuracy_ground_only", model=model, cue=cue, setting="grounds_only")
    return Test(f"cue learnable: {model} trained on grounds alone, {cue}", alone, "above", 0.95)


def _takes(study: Study, *, model: str, cue: str) -> Sequence[Test]:
    where = {"model": model, "cue": cue, "setting": "base"}
    gap = series(study, "gap", rho=RHO, **where)
    without = series(study, "gap", rho=CHANCE["sea"], **where)
    label = f"{model}: aligned less conflict accuracy, rho 0.95 less rho 0.1"
    return [Test(label, gap - without, "above", CLEAR)]


def _sea_controls(study: Study, *, model: str, cue: str) -> Sequence[Test]:
    where = {"model": model, "cue": cue, "setting": "base"}
    leak = series(study, "accuracy_ground_only", rho=CHANCE["sea"], **where)
    shuffled = [
        series(study, f"accuracy_{name}", model=model, cue=cue, setting="labels_shuffled")
        for name in SEA_CONDITIONS
    ]
    always = series(study, "accuracy_conflict", rho=1.0, **where) - CHANCE["sea"]
    return [
        _sea_gate(study, model, cue),
        _learnable(study, model, cue),
        chance(study, f"no leak: {model} without a correlation on grounds alone, off chance", leak),
        chance(
            study, f"labels shuffled: {model}, furthest off chance of all conditions", *shuffled
        ),
        Test(f"rho 1: conflict accuracy of {model}, above chance", always, "below", NEAR),
        _other_grounds(study, model, cue),
    ]


def _other_grounds(study: Study, model: str, cue: str) -> Test:
    """Colour stays where one order of pixels is that of all grounds; texture, which such an order
    leaves learnable, goes where each ground has its own."""
    if cue == "texture":
        scattered = series(study, "gap", model=model, cue=cue, setting="grounds_scattered")
        label = f"grounds scattered: gap of {model}, its texture is gone"
        return Test(label, scattered, "below", CLEAR)
    permuted = series(study, "gap", model=model, cue=cue, setting="grounds_permuted")
    base = series(study, "gap", model=model, cue=cue, rho=RHO, setting="base")
    label = f"grounds permuted: gap of {model} less that of the base, its colour is there"
    return Test(label, permuted - base, "within", CLEAR)


def _architecture(study: Study) -> Sequence[Test]:
    where = {"cue": "texture", "rho": RHO, "setting": "base"}
    generic = series(study, "gap", model="pixels", **where)
    return [
        Test(f"gap by texture, {model} less pixels",
             series(study, "gap", model=model, **where) - generic, "above", CLEAR)
        for model in ("stem", "resnet", "vit")
    ]  # fmt: skip


def _architecture_controls(study: Study) -> Sequence[Test]:
    gates = [_sea_gate(study, model, "texture") for model in MODELS]
    return gates + [_learnable(study, model, "texture") for model in ("stem", "resnet", "vit")]


def _blind(study: Study) -> Sequence[Test]:
    alone = _learnable(study, "pixels", "texture").series
    return [Test("pixels trained on textures alone", alone, "below", 0.5)]


def _blind_controls(study: Study) -> Sequence[Test]:
    return [_sea_gate(study, "pixels", "texture"), _learnable(study, "stem", "texture")]


def _least_bound(study: Study) -> Sequence[Test]:
    def over_rho(model):
        where = {"model": model, "cue": "colour", "setting": "base"}
        return mean([series(study, "accuracy_conflict", rho=r, **where) for r in (0.9, 0.95, 0.99)])

    stem = over_rho("stem")
    return [
        Test(f"conflict accuracy, mean over rho 0.9 to 0.99: stem less {model}",
             stem - over_rho(model), "above", 0.0)
        for model in MODELS if model != "stem"
    ]  # fmt: skip


def _least_bound_controls(study: Study) -> Sequence[Test]:
    tests = [(_sea_gate(study, m, "colour"), _learnable(study, m, "colour")) for m in MODELS]
    return list(itertools.chain(*tests))


CLAIMS = [
    *(
        Claim(
            f"sea.{cue}.{model}",
            f"{model} takes the ground for the object: where {cue} tells the class in 95 % of the "
            f"training images, conflict costs more than 10 points.",
            functools.partial(_takes, model=model, cue=cue),
            functools.partial(_sea_controls, model=model, cue=cue),
        )
        for cue in CUES
        for model in MODELS
    ),
    Claim(
        "sea.texture.architecture",
        "Which shortcut is taken depends on the architecture: all that convolve, the ViT's patches "
        "included, lose more than 10 points more to texture than pixels does.",
        _architecture,
        _architecture_controls,
    ),
    Claim(
        "sea.texture.blind",
        "pixels leaves the texture alone because it cannot see it: trained on nothing else, it "
        "does not reach 50 %.",
        _blind,
        _blind_controls,
    ),
    Claim(
        "sea.colour.least",
        "stem is the least bound to colour of the four, over the curve of rho.",
        _least_bound,
        _least_bound_controls,
    ),
]


def cell_controls(study: Study, row: Row) -> Sequence[Test]:
    """Those of the claims on its model and cue; without a correlation, the gate and the leak."""
    model, cue = row["model"], row["cue"] or CUES[0]
    tests = _sea_controls(study, model=model, cue=cue)
    if row["setting"] != "base":
        return ()
    return tests if row["rho"] != CHANCE["sea"] else [tests[0], tests[2]]
