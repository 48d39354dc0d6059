"""What the hosts must read for a step to have its batch in time, beside what was measured."""

import pathlib
from typing import NamedTuple

from experiments import command

RESULTS = pathlib.Path(__file__).parents[1] / "results"

# By `config.data.source`: the table, its column, and what a unit of it is in seconds. `OTHERS` has
# a row for each of its sources.
MEASURED = {
    "imagenet2012": ("data_pipeline.csv", "cpu_us_per_image", 1e-6),
    "clips": ("clips.csv", "cpu_ms_per_clip", 1e-3),
}
OTHERS = "reading.csv"
MEASURE = "measure it: python -m experiments.benchmark.reading --help"


class Reading(NamedTuple):
    """CPU seconds of one core for an example, and the table that says so."""

    seconds: float
    table: str


def measured(source: str) -> Reading | None:
    """What reading from a source costs; None where no table says."""
    table, column, unit = MEASURED.get(source, (OTHERS, "cpu_ms_per_example", 1e-3))
    rows = command.read_table(RESULTS / table)
    if table == OTHERS:
        rows = [row for row in rows if row["source"] == source]
    else:
        ours = "perceiver_jax"
        rows = [r for r in rows if r["readers"] == "threads:2" and r.get("pipeline", ours) == ours]
    return Reading(float(rows[0][column]) * unit, f"experiments/results/{table}") if rows else None


def line(source: str, hosts: int, rate: float) -> str:
    """What each of `hosts` must read if all together need `rate` examples a second."""
    need = f"each of {hosts} hosts must read {rate / hosts:,.0f} examples a second"
    if hosts == 1:
        need = f"the host must read {rate:,.0f} examples a second"
    if (found := measured(source.removeprefix("blank:"))) is None:
        return f"{need}; config.data.source={source!r} is in no table, {MEASURE}"
    cores = f"{rate / hosts * found.seconds:.1f} cores"
    return f"{need}: {cores} at the {found.seconds * 1e3:.2g} ms of CPU each of {found.table}"
