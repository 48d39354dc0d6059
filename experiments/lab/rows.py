"""The lab's tables: a row per cell and seed, and numbers over seeds.

A seed is a whole replication, so two cells are compared seed by seed: a difference of two `Series`
holds the seeds that both have, and remembers those that either lacks.
"""

import collections
import csv
import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from scipy import stats

Row = Mapping[str, Any]

TEXTS = ("study", "cell", "model", "cue", "setting", "status", "command", "commit", "config_hash",
         "hardware", "software", "date")  # fmt: skip
STUDIES = ("sea", "dominoes", "conv", "change", "regularisation", "released")  # their order
NEEDED = ("study", "cell", "model", "cue", "rho", "n", "setting", "seed", "status", "commit",
          "config_hash")  # fmt: skip
FEWEST_SEEDS = 3  # below, values are printed and no interval


def read(path: epath.PathLike) -> list[Row]:
    """The rows of a table; empty cells are None, all but `TEXTS` are numbers.

    Raises:
      ValueError: a column is missing, or a number is none; says which line.
    """
    with epath.Path(path).expanduser().open("r") as file:
        table = csv.DictReader(file)
        absent = [name for name in NEEDED if name not in (table.fieldnames or ())]
        if absent:
            raise ValueError(f"{path}: no column {', '.join(absent)}; the lab writes {NEEDED}")
        return [_parse(row, f"{path}, line {table.line_num}") for row in table]


def _parse(row: Mapping[str, str], place: str) -> Row:
    parsed = {}
    for name, text in row.items():
        if name is None or text is None:
            raise ValueError(f"{place}: {'more' if name is None else 'fewer'} cells than columns")
        if name in TEXTS:
            parsed[name] = text
            continue
        try:
            value = float(text) if text else None
        except ValueError:
            raise ValueError(f"{place}: {name} is {text!r}, no number") from None
        parsed[name] = None if value is None or np.isnan(value) else value
    if parsed["seed"] is None or parsed["status"] not in ("ok", "diverged"):
        raise ValueError(
            f"{place}: seed {row['seed']!r}, status {row['status']!r}; a row has a seed, "
            "and its status is ok or diverged"
        )
    return parsed | {"seed": int(parsed["seed"])}


class Interval(NamedTuple):
    """Mean over seeds, and half the width of its Student-t 95 % interval.

    `half` is None below three seeds.
    """

    mean: float
    half: float | None
    values: tuple[float, ...]

    @property
    def low(self) -> float:
        return self.mean - self.half

    @property
    def high(self) -> float:
        return self.mean + self.half


def interval(values: Sequence[float]) -> Interval | None:
    """None where there is no value."""
    if not values:
        return None
    half = None
    if len(values) >= FEWEST_SEEDS:
        t = stats.t.ppf(0.975, len(values) - 1)
        half = float(t * np.std(values, ddof=1) / np.sqrt(len(values)))
    return Interval(float(np.mean(values)), half, tuple(values))


@dataclasses.dataclass(frozen=True)
class Series:
    """A number by seed, and one line for each cell or seed that lacks it."""

    values: Mapping[int, float]
    missing: tuple[str, ...] = ()

    @property
    def interval(self) -> Interval | None:
        """Over the seeds, in their order."""
        return interval([self.values[seed] for seed in sorted(self.values)])

    def __sub__(self, other: "Series | float") -> "Series":
        return self.join(lambda a, b: a - b, other)

    def __truediv__(self, other: "Series | float") -> "Series":
        return self.join(lambda a, b: a / b, other)

    def join(self, function: Callable[..., float], *others: "Series | float") -> "Series":
        """`function` of the values of a seed, for the seeds that all have."""
        others = [
            other if isinstance(other, Series) else Series(dict.fromkeys(self.values, other))
            for other in others
        ]
        everything = (self, *others)
        seeds = functools.reduce(lambda a, b: a & b, (set(s.values) for s in everything))
        values = {seed: function(*(s.values[seed] for s in everything)) for seed in sorted(seeds)}
        return Series(values, tuple(dict.fromkeys(line for s in everything for line in s.missing)))


def mean(series: Sequence[Series]) -> Series:
    """The mean of several series, seed by seed."""
    return series[0].join(lambda *values: float(np.mean(values)), *series[1:])


@dataclasses.dataclass(frozen=True)
class Study:
    """The rows of one study that belong together.

    Attributes:
      name: the study.
      rows: of one commit; those of a cell are of one config.
      apart: rows of other commits or configs. Nothing is computed of them.
      expected: every cell and seed that there should be.
    """

    name: str
    rows: Sequence[Row]
    apart: Sequence[Row] = ()
    expected: Sequence[tuple[str, int]] = ()

    @functools.cached_property
    def cells(self) -> Mapping[str, Mapping[int, Row]]:
        """Rows by cell and seed, in the order of the table."""
        cells: dict[str, dict[int, Row]] = collections.defaultdict(dict)
        for row in self.rows:
            cells[row["cell"]][row["seed"]] = row
        return dict(cells)

    @functools.cached_property
    def seeds(self) -> Sequence[int]:
        """Of all cells."""
        return sorted({row["seed"] for row in self.rows} | {seed for _, seed in self.expected})

    @property
    def commit(self) -> str:
        """Of all rows; '' where there are none."""
        return self.rows[0]["commit"] if self.rows else ""

    @functools.cached_property
    def absent(self) -> Sequence[tuple[str, int]]:
        """Cells and seeds without a row."""
        return [(c, s) for c, s in self.expected if s not in self.cells.get(c, {})]

    @functools.cached_property
    def diverged(self) -> Sequence[tuple[str, int]]:
        """Cells and seeds whose training diverged."""
        return [(r["cell"], r["seed"]) for r in self.rows if r["status"] == "diverged"]

    def find(self, **where: Any) -> Sequence[str]:
        """The cells whose columns have these values; a tuple is any of its values."""
        return [
            cell
            for cell, rows in self.cells.items()
            if all(_matches(next(iter(rows.values()))[k], v) for k, v in where.items())
        ]

    def series(self, metric: str, **where: Any) -> Series:
        """A metric of the one cell that `where` names.

        Raises:
          ValueError: several cells have these values.
        """
        cells = self.find(**where)
        if len(cells) > 1:
            raise ValueError(f"{self.name}: {where} are the cells {cells}; name one of them")
        if not cells:
            return Series({}, (f"{describe(where)}: not run",))
        return self.of_cell(metric, cells[0])

    def of_cell(self, metric: str, cell: str) -> Series:
        """A metric of a cell by its name."""
        rows = self.cells[cell]
        wanted = [seed for name, seed in self.expected if name == cell] or self.seeds
        values, missing = {}, []
        for seed in sorted({*rows, *wanted}):
            if seed not in rows:
                missing.append(f"{cell}, seed {seed}: not run")
            elif rows[seed]["status"] == "diverged":
                missing.append(f"{cell}, seed {seed}: diverged")
            elif rows[seed].get(metric) is None:
                missing.append(f"{cell}, seed {seed}: no {metric}")
            else:
                values[seed] = rows[seed][metric]
        return Series(values, tuple(missing))


def _matches(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, tuple):
        return any(_matches(value, one) for one in wanted)
    if isinstance(wanted, float) and isinstance(value, float):
        return abs(value - wanted) < 1e-6
    return value == wanted


def describe(where: Mapping[str, Any]) -> str:
    """The values of a cell's columns in words: `stem, colour, rho 0.95, shift`."""
    words = []
    for name in ("model", "cue", "rho", "n", "setting"):
        value = where.get(name, "")
        if isinstance(value, tuple):
            words.append(" or ".join(value))
        elif isinstance(value, float | int):
            words.append(f"{name} {value:g}")
        elif value:
            words.append(value)
    return ", ".join(words)


def studies(rows: Iterable[Row], expected: Iterable[tuple[str, str, int]] = ()) -> list[Study]:
    """Rows sorted into studies, with what does not belong kept apart.

    A study's commit is the one with the most rows, and a cell's config the one with the most of
    those; the later one where two have as many.

    Args:
      rows: of any studies. Of two rows with one cell, seed, commit and config the later one counts.
      expected: (study, cell, seed) of all that there should be.
    """
    rows, expected = list(rows), list(expected)
    there = [name for name, _, _ in expected] + [row["study"] for row in rows]
    names = sorted(dict.fromkeys(there), key=lambda name: (*STUDIES, name).index(name))
    result = []
    for name in names:
        mine = [row for row in rows if row["study"] == name]
        commit = _most(row["commit"] for row in mine)
        kept = [row for row in mine if row["commit"] == commit]
        hashes = {
            cell: _most(row["config_hash"] for row in kept if row["cell"] == cell)
            for cell in {row["cell"] for row in kept}
        }
        kept = [row for row in kept if row["config_hash"] == hashes[row["cell"]]]
        together = {id(row) for row in kept}
        apart = [row for row in mine if id(row) not in together]
        wanted = [(cell, seed) for study, cell, seed in expected if study == name]
        result.append(Study(name, kept, apart, wanted))
    return result


def _most(values: Iterable[str]) -> str:
    count = collections.Counter(values)
    return max(reversed(list(count)), key=count.__getitem__, default="")
