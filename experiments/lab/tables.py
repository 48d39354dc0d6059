"""The tables of the lab's report."""

import itertools
from collections.abc import Mapping, Sequence

from experiments.lab import claims
from experiments.lab.rows import Row, Series, Study
from experiments.lab.verdict import Test, Verdict
from perceiver_jax.plots.page import Cell, Table

KINDS = {"holds": "good", "fails": "bad", "open": "unsure"}
MARKS = {True: "✓", False: "✗", None: "?"}
LIMITS = {"above": "above {}", "below": "below {}", "within": "within ±{}", "beyond": "beyond ±{}"}


def overview(parts: Sequence[tuple[Study, Sequence[Verdict]]]) -> Table:
    """Verdicts by study, and how much of it is there."""
    columns = ["study", "holds", "fails", "open", "cells and seeds", "missing", "diverged"]
    rows = []
    for study, verdicts in parts:
        counts = [sum(v.verdict == kind for v in verdicts) for kind in KINDS]
        there = {(cell, seed) for cell, found in study.cells.items() for seed in found}
        wanted = len(there | set(study.expected))
        rows.append([
            study.name, *(Cell(str(c), c) for c in counts),
            Cell(f"{len(there)} of {wanted}" if study.expected else str(wanted), len(there)),
            Cell(str(len(study.absent)), len(study.absent), "bad" if study.absent else ""),
            Cell(str(len(study.diverged)), len(study.diverged), "bad" if study.diverged else ""),
        ])  # fmt: skip
    return Table(columns, rows)


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """What is claimed and what came out, without evidence."""
    order = list(KINDS)
    rows = [
        [v.claim.name, Cell(v.verdict, order.index(v.verdict), KINDS[v.verdict]), v.claim.statement]
        for v in verdicts
    ]
    return Table(["claim", "verdict", "statement"], rows, stacked=True)


def claim_table(verdicts: Sequence[Verdict]) -> Table:
    """A row for each claim: verdict, evidence with its bounds, controls."""
    rows = [
        [
            Cell(f"{v.claim.name}\n{v.claim.statement}"),
            Cell("\n".join([v.verdict, *v.reasons]), None, KINDS[v.verdict]),
            "\n".join(_tested(t) for t in v.evidence),
            "\n".join(f"{MARKS[t.passes]} {_tested(t)}" for t in v.controls),
        ]
        for v in verdicts
    ]
    return Table(["claim", "verdict", "evidence", "controls"], rows, stacked=True)


def controls(tests: Sequence[Test]) -> Table:
    """Controls with their values and bounds."""
    lines = [[f"{MARKS[t.passes]} {t.label}", _value(t), _bound(t)] for t in tests]
    return Table(["control", "value", "bound"], lines)


def _tested(test: Test) -> str:
    return f"{test.label}: {_value(test)}, bound {_bound(test)}"


def _bound(test: Test) -> str:
    return LIMITS[test.side].format(_number(test.bound, test.unit))


def _value(test: Test) -> str:
    return shown(test.series, test.unit)


def _number(value: float, unit: str = "points") -> str:
    return f"{100 * value:.1f}" if unit == "points" else f"{2**value:.2f} times"


def shown(series: Series, unit: str = "points") -> str:
    """Mean and interval; the values where there is no interval."""
    found = series.interval
    if found is None:
        return "no value"
    if found.half is None:
        return ", ".join(_number(value, unit) for value in found.values)
    if unit == "points":
        return f"{100 * found.mean:.1f} ± {100 * found.half:.1f}"
    low, high = 2**found.low, 2**found.high
    return f"{2**found.mean:.2f} times ({low:.2f} to {high:.2f})"


# A row per cell.

KEYS = ("model", "cue", "rho", "n", "setting")
FACTS = ("parameters", "flops", "steps", "learning_rate")
SHARES = ("accuracy", "training_accuracy", "weighted_accuracy", "gap", "bg_gap", "ground_choice",
          "reliance", "worst_class", "worst_group", "ship_by_sea", "shape_bias", "surgery_share",
          "mce", "mean_corruption_error", "attention")  # fmt: skip


def metrics(study: Study) -> list[str]:
    """The columns of a study that are shares and have a value, without those of single classes."""
    names = dict.fromkeys(n for row in study.rows for n, v in row.items() if isinstance(v, float))
    found = [
        n for n in names
        if n in ("shape", "texture")
        or (n.startswith(SHARES) and not n.rsplit("_", 1)[-1].isdigit())
    ]  # fmt: skip
    # Over test conditions of all kinds together, accuracy says nothing.
    pooled = {"accuracy_aligned", "accuracy_standard"} & set(found)
    return [n for n in found if n != "accuracy" or not pooled]


def cell_table(study: Study) -> Table:
    """A row for each cell: its metrics, its difference to the reference, its controls."""
    keys = [k for k in KEYS if any(row[k] not in (None, "") for row in study.rows)]
    names = metrics(study)
    main, reference = claims.reference(study)
    beside = " ".join(f"{v}" for v in reference.values())
    columns = ["cell", *keys, "seeds", "gate", *(n.removeprefix("accuracy_") for n in names),
               f"{main} less {beside}, paired", "controls", *FACTS, "seconds"]  # fmt: skip
    rows = []
    for cell, by_seed in study.cells.items():
        row = next(iter(by_seed.values()))
        tests = claims.controls(study, row)
        seconds = [r["seconds"] for r in by_seed.values() if r.get("seconds")]
        rows.append([
            cell, *(_key(row[k]) for k in keys), _seeds(study, cell),
            _marked([test for test in tests if test.kind == "gate"]),
            *(_metric(study.of_cell(name, cell)) for name in names),
            _metric(_difference(study, row, main, reference)),
            _marked([test for test in tests if test.kind != "gate"]),
            *(_fact(row.get(name)) for name in FACTS),
            _fact(sum(seconds) / len(seconds) if seconds else None),
        ])  # fmt: skip
    unrun = dict.fromkeys(c for c, _ in study.expected if c not in study.cells)
    rows += [[cell, *[""] * len(keys), Cell("not run", None, "bad"), *[""] * (len(names) + 8)]
             for cell in unrun]  # fmt: skip
    return Table(columns, rows)


def _key(value) -> Cell | str:
    return Cell(f"{value:g}", value) if isinstance(value, float) else value or ""


def _fact(value: float | None) -> Cell | str:
    if value is None:
        return ""
    return Cell(f"{value:,.0f}" if value >= 10 else f"{value:.3g}", value)


def _metric(series: Series) -> Cell | str:
    found = series.interval
    return Cell(shown(series), found.mean) if found else ""


def _seeds(study: Study, cell: str) -> Cell:
    rows = study.cells[cell]
    text = [", ".join(str(s) for s in sorted(rows) if rows[s]["status"] == "ok")]
    gone = {"missing": [s for c, s in study.absent if c == cell],
            "diverged": [s for c, s in study.diverged if c == cell]}  # fmt: skip
    text += [f"{word} {', '.join(map(str, s))}" for word, s in gone.items() if s]
    return Cell("\n".join(text), len(rows), "bad" if len(text) > 1 else "")


def _difference(study: Study, row: Row, main: str, reference: Mapping[str, str]) -> Series:
    where = {key: row[key] for key in KEYS} | reference
    cells = study.find(**where)
    if len(cells) != 1 or cells[0] == row["cell"]:
        return Series({})
    return study.of_cell(main, row["cell"]) - study.of_cell(main, cells[0])


def _marked(tests: Sequence[Test]) -> Cell:
    """Controls in short: marks, kinds and values; sorted by the share that passes."""
    words = [f"{MARKS[t.passes]} {t.kind} {_value(t)}".replace(" gate", "") for t in tests]
    share = sum(t.passes is True for t in tests) / len(tests) if tests else None
    return Cell("; ".join(words), share, "wide" if len(tests) > 1 else "")


def apart_table(study: Study) -> Table:
    """What is kept apart, by commit, config and cell."""
    main, _ = claims.reference(study)

    def key(row: Row) -> tuple[str, ...]:
        return row["commit"], row["config_hash"], row["cell"]

    rows = []
    for values, group in itertools.groupby(sorted(study.apart, key=key), key):
        found = list(group)
        numbers = [r[main] for r in found if r.get(main) is not None]
        seeds = ", ".join(str(r["seed"]) for r in found)
        rows.append([*values, seeds, _metric(Series(dict(enumerate(numbers))))])
    return Table(["commit", "config", "cell", "seeds", main], rows)
