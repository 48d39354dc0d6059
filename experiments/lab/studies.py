"""What the lab trains: studies, the learning rates that are tried, and what must be equal.

The learning rate of a model is chosen on data without the shortcut, with a seed that no cell has:
see `RULE`. Models of a study cost the same within `TOLERANCE`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from configs import lab, lab_change
from experiments.lab import surgery

RATES = (5e-4, 1e-3, 2e-3, 4e-3)
TUNING_SEED = 1_000_000
RULE = (
    f"of {', '.join(f'{rate:g}' for rate in RATES)} the one with the highest accuracy without the "
    f"shortcut, in one training with seed {TUNING_SEED}, which no cell has"
)
TOLERANCE = 0.15
TUNED = 2000  # training images of the cells of study `conv` by which rates are chosen
TINY_SETTINGS = ("base", "mnist_random", "cutout", "wrong_places", "shuffled_stem", *lab.CONTROLS,
                 "raw", "permuted", "two_eyes", "image_and_sound")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Tuning:
    """How learning rates are chosen.

    Attributes:
      name: of the folder.
      cells: by model the variant of `configs/lab.py` that is trained with each rate.
      metric: of its row, the larger the better.
    """

    name: str
    cells: Mapping[str, str]
    metric: str


@dataclasses.dataclass(frozen=True)
class Study:
    """A table of cells.

    Attributes:
      name: a key of `lab.STUDIES`.
      tuning: where its learning rates are from; None where nothing is trained.
      flops: forward FLOPs of one example that every model has, within `TOLERANCE`; 0 is any.
      flops_of: those of settings that have others; None where the input decides, which is as large
        as a setting makes it.
      about: columns of a cell that are known without training.
      seeds: how many there are at most; None is any number.
    """

    name: str
    tuning: Tuning | None
    flops: float = 2.8e6
    flops_of: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    about: Callable[[lab.Cell], Mapping[str, float]] = lambda cell: {}
    seeds: int | None = None

    def cells(self, *, tiny: bool, large: bool = False) -> Sequence[lab.Cell]:
        """All cells, or those of a few models and settings.

        Args:
          tiny: those few.
          large: those of `lab.LARGE` images too.
        """
        cells = [cell for cell in lab.STUDIES[self.name] if large or cell.n != lab.LARGE]
        return [cell for cell in cells if is_tiny(cell)] if tiny else cells

    def check_cost(self, cell: lab.Cell, flops: float) -> None:
        """Raises ValueError where a cell costs more or less than the others."""
        wanted = self.flops_of.get(cell.setting, self.flops)
        if wanted and abs(flops / wanted - 1) > TOLERANCE:
            raise ValueError(
                f"{self.name}: {cell.name} costs {flops / 1e6:.3g} MFLOP an example, more than "
                f"{TOLERANCE:.0%} off the study's {wanted / 1e6:.3g}: change its sizes in "
                "configs/lab_models.py"
            )


def is_tiny(cell: lab.Cell) -> bool:
    """Whether a cell is in the tables of `--tiny`, which show that all kinds of cells run."""
    return (
        cell.model in ("stem", "resnet", *["pixels"] * (cell.study == "change"))
        and cell.cue in ("", lab.CUES[0])
        and cell.rho in (lab.CHANCE.get(cell.study), 0.95)
        and cell.n in (None, lab.COUNTS[0])
        and cell.setting in TINY_SETTINGS
    )


def _tuning(name: str, cell: str, metric: str) -> Tuning:
    return Tuning(name, {model: f"{name}.{model}.{cell}" for model in lab.MODELS}, metric)


SEA = _tuning("sea", "uncorrelated", "accuracy_uncorrelated")


def _surgery(cell: lab.Cell) -> Mapping[str, float]:
    """What a change of the input changes in the model of a cell."""
    before = lab_change.BEFORE.get(cell.setting)
    if before is None:
        return {}
    return surgery.columns(
        lab.get_config(f"{cell.study}.{cell.model}.{before}"),
        lab.get_config(f"{cell.study}.{cell.name}"),
    )


CHANGE = Tuning("change", {m: f"change.{m}.raw" for m in lab_change.MODELS["raw"]}, "accuracy")
CHANGE_FLOPS = {
    **dict.fromkeys(("one_eye", "left_twice", "two_eyes", "two_eyes_6"), 12.5e6),
    **dict.fromkeys(("separate_eyes", "separate_eyes_6"), None),  # twice as many tokens
    **dict.fromkeys(("side_by_side", "side_by_side_6", "sound_below", "sound"), None),
    "image_and_sound": None,
}
CONV = _tuning("conv", f"n{TUNED}", "accuracy_original")
DOMINOES = _tuning("dominoes", "mnist_random", "accuracy_mnist_random")
STUDIES = {
    study.name: study
    for study in (
        Study("sea", SEA),
        Study("dominoes", DOMINOES),
        Study("regularisation", SEA),
        Study("conv", CONV),
        Study("change", CHANGE, flops_of=CHANGE_FLOPS, about=_surgery),
        Study("released", None, flops=0.0, seeds=1),
    )
}
