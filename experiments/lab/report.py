"""The lab's report: rows to tables, verdicts and plots; no training.

    WORKDIR/lab_STUDY.csv      a row per cell and seed, which the lab has written
    WORKDIR/lab_attention.csv  where the latents look, see `attention`
    WORKDIR/lab.md, lab.html   every claim with its evidence and its controls in one row, every cell
    WORKDIR/figures/           the plots of a study as PNG and PDF

Cells that are missing or diverged are named. Rows of another commit or config are listed apart and
enter no figure.
"""

import itertools
import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from experiments.lab import attention, claims, figures, stimuli, tables
from experiments.lab.panels import panels
from experiments.lab.rows import Study, read, studies
from experiments.lab.verdict import Test, Verdict, judge
from perceiver_jax.plots import page
from perceiver_jax.train.log import duration
from perceiver_jax.train.workdir import write_atomically

APART = "Rows of other commits or configs. No verdict, plot or number above uses them."
TITLE = "The lab: shortcuts, convolution, niches and regularisation"
RULES = """\
A seed is a whole replication: data, pairing of class and ground, order and initialisation. \
Numbers are means over seeds with the Student-t 95 % interval; below three seeds the values are \
printed and no interval. Differences are paired by seed. Shares and accuracies are in percent.

A claim holds, or fails, where the interval of its evidence is on one side of a bound that was set \
before the run. It is open where the interval crosses the bound, where seeds or cells are missing, \
and where a control is missing or does not pass. Controls are judged by their mean.

The gate is a model's share of the best model's accuracy where there is no shortcut. It counts \
only above 90 %: one that cannot see the boat says nothing about the sea."""


def write(
    workdir: epath.PathLike, expected: Iterable[tuple[str, str, int]] = ()
) -> list[epath.Path]:
    """Writes the report of all tables in a workdir, and returns the paths of its files.

    Args:
      workdir: holds `lab_STUDY.csv`.
      expected: (study, cell, seed) of all that there should be; what is not there is named.

    Raises:
      FileNotFoundError: there is no table, and no workdir or nothing expected.
      ValueError: a table lacks a column or holds something that is no number.
    """
    workdir, expected = epath.Path(workdir).expanduser(), list(expected)
    files = sorted(file for file in workdir.glob("lab_*.csv") if file.name != attention.FILE)
    if not files and not (expected and workdir.is_dir()):
        raise FileNotFoundError(
            f"no lab_STUDY.csv in {workdir}; run the lab without --report first"
        )
    rows = attention.join((row for file in files for row in read(file)), workdir)
    parts = [Part.of(study) for study in studies(rows, expected)]
    rates = tuning(workdir)
    paths = [workdir / "lab.md", workdir / "lab.html"]
    write_atomically(paths[0], markdown(parts, rates))
    write_atomically(paths[1], html(parts, rates))
    drawn = {}
    for part in parts:
        if part.panels:
            controls = [test for verdict in part.verdicts for test in verdict.controls]
            drawn[f"lab_{part.study.name}"] = figures.beside(part.panels, passing(controls))
    drawn |= {f"stimuli_{p.study.name}": figures.strip(p.stimuli) for p in parts if p.stimuli}
    for (name, figure), kind in itertools.product(drawn.items(), ("png", "pdf")):
        paths.append(workdir / "figures" / f"{name}.{kind}")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        paths[-1].write_bytes(page.render(figure, kind))
    return paths


class Part(NamedTuple):
    """A study with what the report says of it."""

    study: Study
    verdicts: Sequence[Verdict]
    panels: Sequence[figures.Panel]
    stimuli: Sequence[tuple[np.ndarray, str]]
    without: str  # why there are no stimuli

    @classmethod
    def of(cls, study: Study) -> "Part":
        """Judges the claims of a study."""
        found = [judge(claim, study) for claim in claims.CLAIMS.get(study.name, ())]
        images, without = [], ""
        try:
            images = stimuli.images(study.name)
        except (OSError, ValueError) as error:  # a report needs no data
            without = f"No stimuli are shown: {error}"
        return cls(study, found, panels(study), images, without)


def markdown(parts: Sequence[Part], rates: str) -> str:
    """The report as Markdown: tables and verdicts."""
    lines = [
        f"# {TITLE}",
        f"{RULES}\n\n{rates}".strip(),
        tables.overview([(p.study, p.verdicts) for p in parts]).markdown(),
    ]
    for part in parts:
        lines += [f"## {part.study.name}", *notes(part.study),
                  tables.claim_table(part.verdicts).markdown(),
                  tables.cell_table(part.study).markdown()]  # fmt: skip
        if part.study.apart:
            lines += [APART, tables.apart_table(part.study).markdown()]
    return "\n\n".join(lines) + "\n"


def html(parts: Sequence[Part], rates: str) -> str:
    """The report as one page."""
    links = "".join(f'<a href="#{p.study.name}">{p.study.name}</a>' for p in parts)
    verdicts = [verdict for part in parts for verdict in part.verdicts]
    body = [
        f"<nav>{links}</nav>",
        page.paragraphs(f"{RULES}\n\n{rates}"),
        tables.overview([(p.study, p.verdicts) for p in parts]).html(),
        page.details("All verdicts", tables.verdict_table(verdicts).html()),
    ]
    for part in parts:
        study = part.study
        body.append(page.section(
            study.name,
            *map(page.paragraphs, notes(study)),
            page.strip(part.stimuli) + page.paragraphs(part.without),
            "<h3>Claims</h3>", tables.claim_table(part.verdicts).html(),
            "<h3>Plots</h3>" * bool(part.panels),
            '<div class="plots">',
            *(_plot(panel, part.verdicts) for panel in part.panels),
            "</div>",
            "<h3>Cells</h3>", tables.cell_table(study).html(),
            *([page.paragraphs(APART), tables.apart_table(study).html()] if study.apart else []),
        ))  # fmt: skip
    return page.page(TITLE, *body)


def _plot(panel: figures.Panel, verdicts: Sequence[Verdict]) -> str:
    """A plot; its controls are beside it."""
    mine = [v for v in verdicts if v.claim.name.startswith(panel.claims)]
    controls = list({test.label: test for v in mine for test in v.controls}.values())
    return page.plot(
        figures.single(panel), page.details("All controls", tables.controls(controls).html()),
        title=panel.title, text=f"{panel.text}\n\n{passing(controls)}",
    )  # fmt: skip


def passing(controls: Iterable[Test]) -> str:
    """How many controls of each kind pass."""
    found: dict[str, dict[str, bool | None]] = {}
    for test in controls:
        found.setdefault(test.kind, {})[test.label] = test.passes
    counts = []
    for kind, tests in found.items():
        passes = list(tests.values())
        unrun = f" ({passes.count(None)} not run)" if None in passes else ""
        counts.append(f"{kind} {passes.count(True)} of {len(passes)}{unrun}")
    return f"Controls that pass: {', '.join(counts)}."


def tuning(workdir: epath.Path) -> str:
    """How learning rates were chosen, as the lab wrote it down; '' where it did not."""
    found: dict = {}
    for path in sorted(workdir.glob("*tuning*.json")):
        found |= json.loads(path.read_text())
    if not found:
        return ""
    lines = [f"Learning rates: {found.pop('rule')}."]
    for name, models in found.items():
        chosen = (f"{model} {about['chosen']}" for model, about in models.items())
        lines.append(f"{name}: {', '.join(chosen)}.")
    return " ".join(lines)


def notes(study: Study) -> list[str]:
    """Where the rows are from, and what is not there."""
    lines = []
    if study.rows:
        hardware = sorted({row["hardware"] for row in study.rows if row.get("hardware")})
        seconds = sum(row.get("seconds") or 0 for row in study.rows)
        lines.append(
            f"{len(study.rows)} rows of commit {study.commit or 'unknown'}, seeds "
            f"{', '.join(map(str, study.seeds))}, {duration(seconds)} of training on "
            f"{'; '.join(hardware) or 'unknown hardware'}."
        )
    if commands := sorted({row["command"] for row in study.rows if row.get("command")}):
        also = " (each row has its own)" if len(commands) > 1 else ""
        lines.append(f"Command{also}: {commands[0]}")
    for word, pairs in (("Missing", study.absent), ("Diverged", study.diverged)):
        if pairs:
            lines.append(f"{word}: {_by_cell(pairs)}.")
    return lines


def _by_cell(pairs: Sequence[tuple[str, int]]) -> str:
    seeds: dict[str, list[int]] = {}
    for cell, seed in pairs:
        seeds.setdefault(cell, []).append(seed)
    return "; ".join(
        f"{cell} (seed{'s' * (len(s) > 1)} {', '.join(map(str, s))})" for cell, s in seeds.items()
    )
