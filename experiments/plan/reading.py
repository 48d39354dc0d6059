"""What the hosts must read for a step to have its batch in time, beside what was measured."""

import csv
import pathlib
from typing import NamedTuple

RESULTS = pathlib.Path(__file__).parents[1] / "results"

# By `config.data.source`: the table, its column, and what a unit of it is in seconds.
MEASURED = {
    "imagenet2012": ("data_pipeline.csv", "cpu_us_per_image", 1e-6),
    "clips": ("clips.csv", "cpu_ms_per_clip", 1e-3),
}
MEASURE = "measure it: python -m experiments.benchmark.data --help"


class Reading(NamedTuple):
    """CPU seconds of one core for an example, and the table that says so."""

    seconds: float
    table: str


def measured(source: str) -> Reading | None:
    """What reading from a source costs; None where no table says."""
    if source not in MEASURED:
        return None
    table, column, unit = MEASURED[source]
    with (RESULTS / table).open(newline="", encoding="utf-8") as file:
        (row,) = [
            r
            for r in csv.DictReader(file)
            if r["readers"] == "threads:2" and r.get("pipeline", "perceiver_jax") == "perceiver_jax"
        ][:1]
    return Reading(float(row[column]) * unit, f"experiments/results/{table}")


def line(source: str, hosts: int, rate: float) -> str:
    """What each of `hosts` must read if all together need `rate` examples a second."""
    need = f"each of {hosts} hosts must read {rate / hosts:,.0f} examples a second"
    if hosts == 1:
        need = f"the host must read {rate:,.0f} examples a second"
    if (found := measured(source.removeprefix("blank:"))) is None:
        return f"{need}; config.data.source={source!r} is in no table, {MEASURE}"
    cores = f"{rate / hosts * found.seconds:.1f} cores"
    return f"{need}: {cores} at the {found.seconds * 1e3:.2g} ms of CPU each of {found.table}"
