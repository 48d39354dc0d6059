"""Measures speed and memory of the library beside the textbook formula and PyTorch.

    python -m experiments.benchmark --suite=cross_attention,imagenet --against=dense,torch \\
        --output=experiments/results
    python -m experiments.benchmark --suite=imagenet,released,flow,perceiver --dtype=bfloat16 \\
        --batch_size=16 --against=dense,torch_compile     # on a GPU
    python -m experiments.benchmark --suite=all --tiny    # to see that all of it runs

Suites (`cases.py` has their sizes; a new case is a line there):

    cross_attention  the encoder's cross-attention alone, 224 x 224 pixels, batch 2
    imagenet         the Fourier classifier, batch 1 and 4
    released         the released models: learned positions, convolutional stem, text
    latents          the Fourier classifier on 16 x 16 pixels: its 48 latent layers, little else
    perceiver        a training step of the 2021 Perceiver, 8 cross-attends
    mnist            a training step of the small model of the pixels of MNIST, batch 64
    flow             optical flow, 368 x 496
    kinetics         a clip of 16 x 224 x 224 pixels and 30,720 samples, encoded once and decoded in
                     chunks; --against=rerun encodes it again for each chunk, as torch does
    kinetics_train   a training step of the same sizes, with the outputs of a training step
    megapixels       the Fourier classifier on images of 1 and 16 megapixels
    audio            a classifier of a million samples of sound, one token each
    ar               a training step of Perceiver AR, 1,024 latents on 4,096 to 131,072 bytes
    sweep            the cross-attention alone on 2^12 to 2^24 pixels: the plot

`ours` always runs. --against adds contenders: `dense` (the textbook formula for every attention),
`torch` and `torch_compile` (the port in transformers: pip install torch transformers), `rerun` for
kinetics, and `remat_POLICY` (ours with that rematerialisation) for latents and perceiver. A case
skips the contenders that do not exist for it.

Each contender of a case and phase has its own process. It compiles, runs once untimed, and sleeps
while others are timed. The timed turns alternate: A, B, A, B. A turn is one run, or as many runs as
take 0.2 s. In `sweep` all sizes take turns, each with an untimed run before the timed one. A case
that would not fit into memory is not tried. Such a case, and one that fails, gets a row with the
reason.

--output receives benchmark_SUITE.csv for each suite, with a row per case, phase and contender, and
benchmark_sweep.png for `sweep`. It replaces files of an earlier run:

    status             ok, or why there are no figures
    median_seconds, lowest_seconds, highest_seconds, all_seconds
    cpu_seconds        processor time of a run, of all cores, in the turn with the least of it; on a
                       machine with other work it is steadier than the others
    times_ours         median over the median of `ours`: above 1 is slower than ours
    compile_seconds    tracing and compiling; 0 where nothing is compiled
    temporaries_bytes  allocated by the compiled program beside arguments and results
    peak_rss_bytes     largest resident memory of the process, compiling included
    peak_device_bytes  the same on an accelerator
    executed_flops     of the matrix products in the program; multiply and add counted separately
    textbook_flops     of the textbook formula; the backward pass counts as two forward ones
    *_utilisation      those per second over `peak_flops`
    peak_flops         the best rate of a 4096 x 4096 matrix product in the same run and precision,
                       or an accelerator's published dense bfloat16 peak: see `peak_source`
"""

# One file, because the help, the flags, the turns and the columns describe each other.

import datetime
import functools
import pathlib
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags

from experiments import command
from experiments.benchmark import contenders, port
from experiments.benchmark.cases import CASES, CURVES, REMAT, SUITES
from experiments.benchmark.worker import Job, Program, Worker
from perceiver_jax import plots
from perceiver_jax.files.paths import user_path
from perceiver_jax.machine import hardware
from perceiver_jax.train.log import duration, with_prefix
from perceiver_jax.train.workdir import git_commit

Contender = Callable[[Job], Program]
Plan = Sequence[tuple[Job, Mapping[str, Contender]]]
CONTENDERS: Mapping[str, Contender] = {
    "ours": contenders.ours,
    "dense": contenders.dense,
    "rerun": contenders.rerun,
    "torch": port.port,
    "torch_compile": port.compiled_port,
} | {name: functools.partial(contenders.ours, remat=name.removeprefix("remat_")) for name in REMAT}
# Dense bfloat16 FLOP/s by a part of the device's name, from the makers' data sheets.
PUBLISHED = {
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
}
COLUMNS = [
    "suite", "case", "phase", "contender", "status", "inputs", "batch_size", "dtype",
    "median_seconds", "lowest_seconds", "highest_seconds", "cpu_seconds", "times_ours",
    "compile_seconds",
    "temporaries_bytes", "peak_rss_bytes", "peak_device_bytes", "executed_flops", "textbook_flops",
    "executed_utilisation", "textbook_utilisation", "peak_flops", "peak_source", "all_seconds",
    "command", "commit", "hardware", "software", "date",
]  # fmt: skip


class Progress:
    """Prints lines with the time left, estimated from the mean time of the steps so far."""

    def __init__(self, total: int):
        self._total, self._done, self._start = total, 0, time.monotonic()

    def __call__(self, text: str, steps: int = 0) -> None:
        self._done += steps
        spent = time.monotonic() - self._start
        left = "starting"
        if self._done:
            left = f"about {duration(spent / self._done * (self._total - self._done))} left"
        print(f"[{self._done / self._total:4.0%}] {text} | {left}", flush=True)


class Best(NamedTuple):
    """The peak for utilisation: FLOP/s, their source, and the device."""

    rate: float
    source: str
    device: str


def best_rate(dtype: str, tiny: bool, with_torch: bool) -> Best:
    """An accelerator's published peak; else the best of ten large matrix products."""
    best = Best(0.0, "not known", "cpu")
    libraries = {"jax": contenders.matmul} | ({"torch": port.matmul} if with_torch else {})
    for library, contender in libraries.items():
        worker = Worker(contender, Job("matmul", "forward", dtype=dtype, tiny=tiny))
        for _ in range(10):
            if (seconds := worker.turn()) is not None:
                rate, device = worker.facts["executed_flops"] / seconds, worker.facts["device"]
                best = max(best, Best(rate, f"measured, {library}", device))
        worker.close()
        for part, rate in PUBLISHED.items():
            if part in best.device:
                return Best(rate, f"published for {best.device}, bfloat16", best.device)
    return best


class Timed(NamedTuple):
    """A worker process of one contender and job, and the seconds of its turns."""

    job: Job
    name: str
    worker: Worker
    seconds: list[float]


def measure(jobs: Plan, repeats: int, progress: Callable) -> list[list[dict[str, Any]]]:
    """Times the contenders of all jobs by turns; returns each job's rows, also of failures."""
    timed = []
    for job, chosen in jobs:
        for name, contender in chosen.items():
            timed.append(Timed(job, name, Worker(contender, job), []))
            progress(f"{job.case} {job.phase}: {name} {said(timed[-1].worker)}", 1)
    groups = [[one for one in timed if one.job == job] for job, _ in jobs]
    for turn in range(repeats):
        for group in groups:
            for one in group:
                if len(groups) > 1:  # after a long sleep: one untimed run brings its memory back
                    one.worker.turn()
                if (spent := one.worker.turn()) is not None:
                    one.seconds.append(spent)
            times = " ".join(f"{one.name} {one.seconds[-1]:.3g} s" for one in group if one.seconds)
            title = f"{group[0].job.case} {group[0].job.phase}"
            progress(f"{title}: turn {turn + 1}/{repeats} {times}", len(group))
    return [[row_of(one) for one in group] for group in groups]


def row_of(timed: Timed) -> dict[str, Any]:
    """Ends the worker and returns its row."""
    job, name, worker, seconds = timed
    worker.close()
    row = {"case": job.case, "suite": CASES[job.case].suite, "phase": job.phase}
    row |= {"contender": name, "status": worker.status, "dtype": job.dtype} | worker.facts
    if seconds and worker.status == "ok":
        row |= {
            "median_seconds": statistics.median(seconds),
            "lowest_seconds": min(seconds),
            "highest_seconds": max(seconds),
            "all_seconds": " ".join(f"{s:.4g}" for s in seconds),
        }
    return row


def said(worker: Worker) -> str:
    if worker.status != "ok":
        return worker.status.splitlines()[0]
    return f"is ready, compiled in {duration(worker.facts['compile_seconds'])}"


def complete(rows: Sequence[dict[str, Any]], best: Best) -> None:
    """Adds to the rows of one job their ratios to `ours` and their utilisations."""
    ours = next((r.get("median_seconds") for r in rows if r["contender"] == "ours"), None)
    for row in rows:
        row["peak_flops"], row["peak_source"] = best.rate, best.source
        for name in ("inputs", "batch_size", "textbook_flops"):  # known, though it did not run
            row.setdefault(name, rows[0].get(name))
        if "median_seconds" not in row:
            continue
        if ours:
            row["times_ours"] = row["median_seconds"] / ours
        for kind in ("executed", "textbook"):
            if row.get(f"{kind}_flops") and best.rate:
                rate = row[f"{kind}_flops"] / row["median_seconds"]
                row[f"{kind}_utilisation"] = rate / best.rate


def shown(value: Any) -> Any:
    """Rounds to four digits, and large numbers to integers."""
    if not isinstance(value, float):
        return value
    return round(value) if value >= 1e6 else float(f"{value:.4g}")


def write(folder: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> list[pathlib.Path]:
    """Writes the table of each suite, and the plot of a suite in `CURVES`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for suite in dict.fromkeys(row["suite"] for row in rows):
        mine = [row for row in rows if row["suite"] == suite]
        paths.append(folder / f"benchmark_{suite}.csv")
        rounded = [{name: shown(value) for name, value in row.items()} for row in mine]
        command.write_table(paths[-1], rounded, COLUMNS)
        sizes = {row.get("inputs") for row in mine if "median_seconds" in row}
        if suite in CURVES and len(sizes) > 2:
            paths.append(folder / f"benchmark_{suite}.png")
            plots.cost_curves(mine).savefig(paths[-1], dpi=150)
    return paths


def summary(row: Mapping[str, Any]) -> str:
    """A row as a line of text."""
    line = f"{row['case']:<22}{row['phase']:<11}{row['contender']:<14}"
    if "median_seconds" not in row:
        return line + row["status"].splitlines()[0]
    line += f"{row['median_seconds']:9.4g} s {row.get('times_ours', float('nan')):7.2f} x"
    if row.get("temporaries_bytes") is not None:
        line += f"  temporaries {with_prefix(row['temporaries_bytes'], gap=' ')}B"
    if row.get("peak_rss_bytes"):
        line += f"  peak {with_prefix(row['peak_rss_bytes'], gap=' ')}B"
    return line


def plan(suites: Sequence[str], against: Sequence[str], **settings) -> Plan:
    """The jobs of the suites, each with its available contenders.

    Raises:
      ValueError: a suite or a contender that does not exist, named.
    """
    suites = SUITES if list(suites) == ["all"] else suites
    if unknown := sorted(set(suites) - set(SUITES)):
        raise ValueError(f"--suite={','.join(unknown)} is none of {', '.join(SUITES)}, all")
    if unknown := sorted(set(against) - set(CONTENDERS)):
        raise ValueError(f"--against={','.join(unknown)} is none of {', '.join(CONTENDERS)}")
    jobs = []
    for name, case in CASES.items():
        if case.suite in suites:
            wanted = {"ours"} | ({*against} & {*case.against})
            chosen = {n: contender for n, contender in CONTENDERS.items() if n in wanted}
            jobs += [(Job(name, phase, **settings), chosen) for phase in case.phases]
    return jobs


def together(jobs: Plan) -> list[Plan]:
    """Groups jobs that take turns: all sizes of a curve, and every other job alone."""
    groups: dict[Any, list] = {}
    for job, chosen in jobs:
        suite = CASES[job.case].suite
        key = (suite, job.phase) if suite in CURVES else job
        groups.setdefault(key, []).append((job, chosen))
    return list(groups.values())


def run(jobs: Plan, best: Best, folder: pathlib.Path, repeats: int):
    """Measures all jobs; the files are rewritten after each, so that no row is lost.

    Returns:
      The rows and the files written.
    """
    progress = Progress(sum(len(chosen) for _, chosen in jobs) * (1 + repeats))
    progress(f"peak {with_prefix(best.rate, gap=' ')}FLOP/s, {best.source}")
    origin = {
        "command": f"python -m experiments.benchmark {shlex.join(sys.argv[1:])}",
        "commit": git_commit()[:10],
        "hardware": hardware(best.device),
        "date": datetime.date.today().isoformat(),
    }
    rows: list[dict[str, Any]] = []
    paths: list[pathlib.Path] = []
    for group in together(jobs):
        for new in measure(group, repeats, progress):
            complete(new, best)
            rows += [row | origin for row in new]
        paths = write(folder, rows)
    return rows, paths


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    where = {"flag_values": values}
    flags.DEFINE_list("suite", None, f"Suites, by comma: {', '.join(SUITES)}; or all.", **where)
    text = "Contenders beside ours, by comma; may be empty."
    flags.DEFINE_list("against", ["dense"], text, **where)
    flags.DEFINE_integer("repeats", 5, "Timed turns of each contender.", 1, **where)
    flags.DEFINE_string("output", "runs/benchmark", "Folder of the results.", **where)
    flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Compute precision.", **where)
    flags.DEFINE_integer("batch_size", 0, "0: the case's own.", 0, **where)
    text = "Small sizes: proves that it runs, measures nothing."
    flags.DEFINE_bool("tiny", False, text, **where)
    flags.mark_flag_as_required("suite", **where)


@command.one_line_errors
def main(argv: list[str]) -> None:
    """The command."""
    del argv
    chosen = flags.FLAGS
    against = [name for name in chosen.against if name]
    settings = {"batch_size": chosen.batch_size, "dtype": chosen.dtype, "tiny": chosen.tiny}
    jobs = plan(chosen.suite, against, **settings)
    folder = user_path(chosen.output)
    folder.mkdir(parents=True, exist_ok=True)  # fails before the work, if it fails
    best = best_rate(chosen.dtype, chosen.tiny, any(name.startswith("torch") for name in against))
    rows, paths = run(jobs, best, folder, chosen.repeats)
    print(*map(summary, rows), sep="\n")
    for path in paths:
        print("wrote", path)


if __name__ == "__main__":
    command.run(main, define_flags)
