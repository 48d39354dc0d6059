"""What decides a claim: predicates on intervals over seeds, written before any run.

A claim has evidence and controls. Each is a `Test`: a number by seed, and the bound that it has to
keep. The evidence is judged by its Student-t 95 % interval, a control by its mean:

    holds   every interval of the evidence is on the right side of its bound, every control passes
    fails   an interval of the evidence is wholly on the other side, and every control passes
    open    an interval crosses its bound, seeds or cells are missing, or a control does not pass

A verdict is a result, whichever it is. Bounds are shares: 0.1 is ten percentage points.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from experiments.lab.rows import FEWEST_SEEDS, Series, Study

Side = Literal["above", "below", "within", "beyond"]


class Test(NamedTuple):
    """A number by seed with a bound.

    Attributes:
      label: what the number is.
      series: its values.
      side: where it has to be: above the bound, below it, within or beyond plus and minus the
      bound. unit: of the number: percentage points, or doublings (its logarithm to base 2).
    """

    label: str
    series: Series
    side: Side
    bound: float
    unit: Literal["points", "doublings"] = "points"

    @property
    def kind(self) -> str:
        """Of a control: what its label begins with."""
        return self.label.split(":")[0]

    @property
    def verdict(self) -> Literal["holds", "fails", "open"]:
        """By the interval."""
        interval = self.series.interval
        if interval is None or interval.half is None:
            return "open"
        low, high = interval.low, interval.high
        beyond = low > self.bound or high < -self.bound
        within = -self.bound < low and high < self.bound
        holds, fails = {
            "above": (low > self.bound, high < self.bound),
            "below": (high < self.bound, low > self.bound),
            "beyond": (beyond, within),
            "within": (within, beyond),
        }[self.side]
        return "holds" if holds else "fails" if fails else "open"

    @property
    def passes(self) -> bool | None:
        """By the mean; None where there is no value."""
        interval = self.series.interval
        if interval is None:
            return None
        return {
            "above": interval.mean > self.bound,
            "below": interval.mean < self.bound,
            "beyond": abs(interval.mean) > self.bound,
            "within": abs(interval.mean) < self.bound,
        }[self.side]


class Claim(NamedTuple):
    """A sentence, and what decides it."""

    name: str
    statement: str
    evidence: Callable[[Study], Sequence[Test]]
    controls: Callable[[Study], Sequence[Test]]


class Verdict(NamedTuple):
    """`reasons` say why a claim is open."""

    claim: Claim
    verdict: Literal["holds", "fails", "open"]
    evidence: Sequence[Test]
    controls: Sequence[Test]
    reasons: Sequence[str]


def judge(claim: Claim, study: Study) -> Verdict:
    """The verdict of a claim on a study's rows."""
    evidence, controls = tuple(claim.evidence(study)), tuple(claim.controls(study))
    reasons = [reason for test in evidence for reason in _lacking(test)]
    for test in controls:
        if test.passes is None:
            reasons.append(f"control not run: {test.label}")
        elif not test.passes:
            reasons.append(f"control failed: {test.label}")
    verdicts = {test.verdict for test in evidence}
    if reasons:
        verdict = "open"
    elif "fails" in verdicts:
        verdict = "fails"
    elif "open" in verdicts:
        verdict = "open"
        reasons = [f"the interval crosses the bound: {test.label}"
                   for test in evidence if test.verdict == "open"]  # fmt: skip
    else:
        verdict = "holds"
    return Verdict(claim, verdict, evidence, controls, list(dict.fromkeys(reasons)))


def _lacking(test: Test) -> Sequence[str]:
    if test.series.missing:
        return _by_cell(test.series.missing)
    if (count := len(test.series.values)) < FEWEST_SEEDS:
        return [f"{count} of at least {FEWEST_SEEDS} seeds: {test.label}"]
    return []


def _by_cell(lines: Sequence[str]) -> Sequence[str]:
    """Lines `CELL, seed N: WHY` with the seeds of a cell in one; others as they are."""
    seeds: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        cell, _, rest = line.partition(", seed ")
        seed, _, why = rest.partition(": ")
        seeds.setdefault((cell, why), []).append(seed)
    return [
        f"{cell}, seed{'s' * (len(found) > 1)} {', '.join(found)}: {why}" if why else cell
        for (cell, why), found in seeds.items()
    ]
