"""What claims share: bounds, cells by their columns, the readiness gate."""

from experiments.lab.rows import Series, Study, describe
from experiments.lab.verdict import Test

MODELS = ("pixels", "stem", "resnet", "vit")
CUES = ("colour", "texture")
CHANCE = {"sea": 0.1, "regularisation": 0.1, "conv": 0.1, "change": 0.1, "dominoes": 0.5}
GATE = 0.9  # of the best model's accuracy without the shortcut
NEAR = 0.03  # "at chance": within three points
CLEAR = 0.10  # a shortcut that costs less than ten points is not what the claims are about
SMALL = 0.02  # a change that nobody would act on


def series(study: Study, metric: str, **where) -> Series:
    """A metric of one cell. Cells that serve both cues may be filed under either, or none."""
    if "cue" in where:
        shared = where.get("rho") == CHANCE[study.name]
        choices = (where["cue"], "", *(CUES if shared else ()))
        found = (cue for cue in choices if study.find(**where | {"cue": cue}))
        where |= {"cue": next(found, where["cue"])}
    return study.series(metric, **where)


def gate(
    study: Study, metric: str, *, model: str, setting: str, best: str = "base", **where
) -> Test:
    """The readiness gate: has the model learned the object where nothing else tells the class?

    Its accuracy over the mean of the best model's.

    Args:
      where: the cell without the shortcut.
      best: setting of the best model.
    """
    mine = series(study, metric, model=model, setting=setting, **where)
    others = (series(study, metric, model=m, setting=best, **where).interval for m in MODELS)
    highest = max((found.mean for found in others if found), default=0.0)
    words = describe({"model": model, "setting": setting if setting != best else ""})
    return Test(f"gate: {words}", mine / highest if highest else mine, "above", GATE)


def chance(study: Study, label: str, *numbers: Series) -> Test:
    """Whether numbers are at chance: the one that is furthest from it."""
    level = CHANCE[study.name]
    furthest = numbers[0].join(lambda *v: max(v, key=lambda x: abs(x - level)) - level,
                               *numbers[1:])  # fmt: skip
    return Test(label, furthest, "within", NEAR)
