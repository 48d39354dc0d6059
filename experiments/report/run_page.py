"""The page of a run, one HTML file: what was run, how it ended, what it sees and where it fails."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.report import origin, shown
from experiments.report.mistakes import Examined
from perceiver_jax import plots
from perceiver_jax.plots import page
from perceiver_jax.plots.page import Cell, Table

TEXTS = {  # what a picture shows, by the beginning of its name
    "predictions": "The first examples of the evaluation. Of classes: the likeliest and its "
    "probability, green where it is right, red above the true one where it is wrong. Of pairs: the "
    "views, the truth, the prediction and its error. Of sets: an arrow to what each entity names, "
    "green where it is right, red beside a dotted line to the right one where it is wrong.",
    "confusion": "How often each class is called which, over the whole evaluation: a row for each "
    "true class, a column for each guess.",
    "attention_mass": "The share of each latent's attention that goes to each modality. Dashed "
    "lines are the modalities' shares of all tokens, which uniform attention would give.",
    "attention_cloud": "Where latents look: three rows for each cloud, seen from three sides. The "
    "columns are the latents whose attention is most focused, and the mean of all. Yellow is much.",
    "attention_entities": "What each entity, with a red ring, attends to through the latents: the "
    "product of the decoder's weights and the last cross-attend's. Large and dark is much.",
    "attention": "Where latents look: on the left the image, then the latents whose attention is "
    "most focused, the same ones in every row, and last the mean of all. Bright is much attention.",
    "reconstructions": "Clips above what the model makes of them, and the sounds as spectrograms.",
    "clips": "The clips above their reconstructions, with the reconstructed sound.",
    "probabilities": "Probabilities of the labels, from all modalities and from each alone. Green "
    "is the true label.",
    "psychometric": "Error against the correlation of the two views, and controls.",
    "matching": "Errors of the model on the drawn pairs beside those of matchers, which search the "
    "range of the true disparities, and of the best constant. Shares are of pixels above an error.",
    "filled": "Runs of hidden bytes, and what the model fills in.",
    "tags": "Labels of the first examples, and the likeliest ones by the model.",
}
LATER = ("l2_", "learning_rate", "seconds", "examples_per_second", "input_", "device_", "host_")


def make(
    config: Mapping[str, Any],
    *,
    workdir: str,
    records: Sequence[Mapping[str, Any]],
    result: Mapping[str, Any] | None,
    figures: Mapping[str, Any],
    files: Mapping[str, pathlib.Path],
    examined: Examined | None,
    names: Sequence[str],
    description: Sequence[str],
) -> str:
    """The document.

    Args:
      config: of the run, as plain values.
      workdir: as the page calls it.
      records: lines of `metrics.jsonl`.
      result: content of `result.json`; None of a run that is not finished.
      figures: figures, clips and tables by name, as `Task.plots` gives them.
      files: the written file of each.
      examined: the worst examples and the baselines; None leaves them out.
      names: of the classes; () if nothing tells.
      description: of the task.
    """
    source = origin.find(config)
    parts = {
        "Result": _result(records, result, examined, names),
        "Run": _run(config, source, workdir, result, description),
        "Curves": _curves(records),
        "What it does": "".join(
            _figure(name, figure, files[name]) for name, figure in figures.items()
        ),
        "Worst mistakes": _mistakes(examined, names, config),
    }
    parts = {title: part for title, part in parts.items() if part}
    links = "".join(f'<a href="#{page.anchor(title)}">{title}</a>' for title in parts)
    sections = (page.section(title, part) for title, part in parts.items())
    return page.page(f"{pathlib.PurePath(workdir).name}: a run", f"<nav>{links}</nav>", *sections)


def _run(config, source, workdir, result, description) -> str:
    """The command, what it changes of the config file, and the whole config."""
    if source is None:
        text, command, table = "The config is not one of the files in configs/.", "", ""
    else:
        command = page.code(source.command(workdir))
        changed = [
            [name, Cell(_text(default), kind="code"), Cell(_text(value), kind="code")]
            for name, default, value in source.differences
        ]
        text = f"Of the files in configs/, {source.file} is the most similar. " + (
            "What this run has otherwise is in the table." if changed else "This run equals it."
        )
        absent = [x.field for x in source.differences if origin.ABSENT in (x.default, x.value)]
        if absent:
            text += f" A command line cannot set {', '.join(absent)}, which only one of them has."
        table = Table(["field", "in the file", "in this run"], changed).html() if changed else ""
    if result and result.get("commit"):
        text += f"\n\nCommit {result['commit']}."
    whole = page.details("The whole config", page.code(json.dumps(config, indent=1)))
    about = page.details("Data and model", page.paragraphs("\n\n".join(description)))
    return f"{page.paragraphs(text)}{command}{table}{about}{whole}"


def _text(value: Any) -> str:
    return value if value == origin.ABSENT else json.dumps(value)


def _result(records, result, examined, names) -> str:
    """The evaluation's numbers, each beside what it is without a model."""
    skip = {"step", "kind", "seconds", "examples_per_second", "commit", "device"}
    evaluations = [record for record in records if record["kind"] == "eval"]
    found = result or (evaluations[-1] if evaluations else None)
    if found is None:
        return page.paragraphs("No evaluation yet.")
    rows = []
    for name, value in found.items():
        if name in skip or not isinstance(value, int | float):
            continue
        baselines = examined.baselines.get(name, []) if examined else []
        lines = [f"{b.value:.4g}  {_named(b.answer, names)}" for b in baselines]
        cell = Cell("\n".join(lines) or "none", kind="words")
        rows.append([name.replace("_", " "), Cell(f"{value:.4g}", value), cell])
    when = f"Step {found['step']:,}." if result else f"Not finished; step {found['step']:,}."
    if seconds := found.get("seconds"):
        when += f" {seconds / 60:.1f} minutes on {found.get('device', 'an unknown device')}."
    if examined:
        when += f" Baselines are those of {examined.count:,} examples of the evaluation."
    table = Table(["metric", "this run", "without a model"], rows).html()
    return page.paragraphs(when) + table


def _named(answer: str, names: Sequence[str]) -> str:
    """The answer with the class's name, where it ends with its number."""
    rest, _, number = answer.rpartition(", ")
    known = rest and number.isdigit() and int(number) < len(names)
    return f"{rest}, {names[int(number)]}" if known else answer


def _curves(records) -> str:
    """A plot of each logged number; those about the optimizer and the machine open at a click."""
    skip = {"step", "kind", "seconds"}
    names = list(dict.fromkeys(name for record in records for name in record if name not in skip))
    first, later = [], []
    for name in names:
        mine = [
            {key: record[key] for key in ("step", "kind", name)}
            for record in records
            if isinstance(record.get(name), int | float)
        ]
        if not mine:
            continue
        figure = plots.training_curves(mine)
        figure.set_size_inches(5, 3.2)
        plot = page.plot(figure, title=name.replace("_", " "), text=_ends(mine, name))
        (later if name.startswith(LATER) else first).append(plot)
    more = page.details("The optimizer and the machine", _column(later)) if later else ""
    return (_column(first) if first else "") + more


def _column(parts: Sequence[str]) -> str:
    return f'<div class="plots">{"".join(parts)}</div>'


def _ends(records, name: str) -> str:
    """Where a curve begins and ends, in words."""
    lines = []
    for kind, word in (("train", "Training"), ("eval", "Evaluation")):
        values = [(r["step"], r[name]) for r in records if r["kind"] == kind]
        if values:
            (start, first), (end, last) = values[0], values[-1]
            begins = f"{first:.4g} at step {start:,}, " if len(values) > 1 else ""
            lines.append(f"{word}: {begins}{last:.4g} at step {end:,}.")
    return "\n\n".join(lines)


def _figure(name: str, figure: Any, file: pathlib.Path) -> str:
    """A figure, a clip or a table of `Task.plots`, with its text."""
    title = name.replace("_", " ").strip()
    text = next((TEXTS[key] for key in TEXTS if name.startswith(key)), f"The plot {title}.")
    if isinstance(figure, list):
        return f"<h3>{title}</h3>{page.paragraphs(text)}{_table(figure).html()}"
    if isinstance(figure, plots.Clip):
        return page.media(page.video(file.read_bytes(), title), title=title, text=text)
    if _has_images(figure):
        return page.picture(page.render(figure, "png"), figure.get_figwidth(), title, text)
    return page.plot(figure, title=title, text=text)


def _has_images(figure: Figure) -> bool:
    """Whether photographs are in it, which a dark page must not invert."""
    return any(axes.images for axes in figure.axes)


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A list of dicts as a table that sorts by its numbers."""

    def cell(value):
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            return Cell(str(value))
        return Cell(f"{value:.4g}" if isinstance(value, float) else str(value), float(value))

    columns = list(rows[0])
    lines = [[cell(row[name]) for name in columns] for row in rows]
    return Table([name.replace("_", " ") for name in columns], lines)


def _mistakes(examined: Examined | None, names, config) -> str:
    """The examples of the highest loss, with what was predicted and what is true."""
    if examined is None or not examined.worst:
        return ""
    text = (
        f"The {len(examined.worst)} examples of the highest loss among {examined.count:,} of the "
        "evaluation, the worst first."
    )
    items = [shown.example(mistake, names, config) for mistake in examined.worst]
    return page.paragraphs(text) + f'<div class="strip large">{"".join(items)}</div>'
