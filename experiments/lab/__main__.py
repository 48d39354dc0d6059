"""The lab: trains every cell of a study that is missing, and writes what came out.

    python -m experiments.lab --study=sea --seeds=5 --workdir=runs/lab
    python -m experiments.lab --study=all --seeds=5 --workdir=runs/lab --jobs=2
    python -m experiments.lab --study=all --seeds=5 --workdir=runs/lab --report    # no training
    python -m experiments.lab --study=all --seeds=2 --workdir=runs/tiny --tiny     # it runs

A cell is a variant of `configs/lab.py`, trained in WORKDIR/STUDY/CELL/SEED as `experiments.run`
trains it. After any interruption run the same command again: cells that are finished are skipped. A
workdir belongs to one commit. `--jobs` starts processes that share the cells; `--shard=0/2` and
`--shard=1/2` take halves of them, on machines with or without a common workdir.

First the learning rate of each model is chosen, where no shortcut is (WORKDIR/tuning.json). Then
come WORKDIR/lab_STUDY.csv, a row for each cell and seed, and at the end lab_attention.csv (where
latents look), lab.md and lab.html, with a verdict on each claim. A cell that diverged is a row that
says so. A study or a part of one whose data are not there says what it needs, and the others run.

Exit codes: 0, finished, whatever the verdicts are. 75, stopped by SIGTERM or Ctrl-C: run it again.
1, any other error, or no study has its data.
"""

import os
import pathlib
import re
import signal
import subprocess
import sys
from collections.abc import Sequence

import jax
from absl import flags, logging

from experiments import command
from experiments.lab import runner
from experiments.lab.studies import STUDIES
from experiments.tasks.data import open_data
from perceiver_jax import pretrained
from perceiver_jax.train import compilation
from perceiver_jax.train.log import say, warn
from perceiver_jax.train.stop import Preempted


def define_flags(where: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    study = "Which cells."
    flags.DEFINE_enum("study", "all", ["all", *STUDIES], study, flag_values=where)
    seeds = "How many seeds of each cell; `5,conv=3,change=3` gives some studies another number."
    flags.DEFINE_string("seeds", "5", seeds, flag_values=where)
    workdir = "Folder of all of them, made if it is not there."
    flags.DEFINE_string("workdir", "runs/lab", workdir, flag_values=where)
    data_dir = (
        "Of TFDS: `dominoes` needs mnist and cifar10 prepared, `conv` cifar10, `change` cifar10, "
        "mnist and spoken_digit, `released` what configs/robustness.py lists, ImageNet-9 in its "
        "folder `imagenet9`."
    )
    flags.DEFINE_string("data_dir", "", data_dir, flag_values=where)
    weights = (
        "Study `released`: a folder with imagenet_fourier, imagenet_learned and imagenet_conv, for "
        "which the published weights are fetched otherwise."
    )
    flags.DEFINE_string("weights", "", weights, flag_values=where)
    report = "Trains nothing: writes the report of what is there."
    flags.DEFINE_bool("report", False, report, flag_values=where)
    flags.DEFINE_bool("tiny", False, "Few cells of two steps each: it runs.", flag_values=where)
    large = "Also the cells of 50,000 photographs in study `conv`."
    flags.DEFINE_bool("large", False, large, flag_values=where)
    flags.DEFINE_integer("jobs", 1, "Processes that share the work.", 1, flag_values=where)
    shard = "i/n: every n-th cell, from the i-th."
    flags.DEFINE_string("shard", "0/1", shard, flag_values=where)
    flags.DEFINE_string("worker", "", "i/n: set by --jobs.", flag_values=where)
    command.define_cache(where)


def parse_part(flag: str, text: str) -> tuple[int, int]:
    """Reads `i/n`.

    Raises:
      ValueError: it is none, or i is not below n.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    index, count = map(int, match.groups()) if match else (0, 0)
    if index >= count:
        raise ValueError(f"--{flag}={text}: write i/n with i from 0 to n - 1, as 0/2 and 1/2")
    return index, count


def parse_seeds(text: str) -> dict[str, int]:
    """Reads how many seeds each study has.

    Raises:
      ValueError: a number is missing or below 1, or there is no such study.
    """
    found: dict[str, int] = {}
    for part in text.split(","):
        name, _, count = part.rpartition("=")
        names = [name] if name else STUDIES
        if not re.fullmatch(r"0*[1-9]\d*", count) or not set(names) <= set(STUDIES):
            raise ValueError(
                f"--seeds={text}: write a number, as 5, or with others for some of "
                f"{', '.join(STUDIES)}, as 5,conv=3"
            )
        found |= dict.fromkeys(names, int(count))
    if absent := set(STUDIES) - set(found):
        raise ValueError(f"--seeds={text}: begin with a number for {', '.join(sorted(absent))}")
    return found


def with_data(jobs: Sequence[runner.Job], data_dir: str, weights: str = "") -> list[runner.Job]:
    """The jobs whose data are there; says what the others need, and which cells they are.

    Raises:
      ValueError: none has.
    """
    groups: dict[tuple[str, str], list[runner.Job]] = {}
    for job in jobs:
        groups.setdefault((job.cell.study, runner.source_of(job.variant)), []).append(job)
    if not jobs:
        raise ValueError("no cell to train: --tiny has none of study released")
    missing, needs = set(), []
    for (study, _), group in groups.items():
        try:
            check_there(group[0], data_dir, weights)
        except (OSError, ValueError, ImportError) as error:
            missing.update(group)
            needs.append(f"{left_out(study, group, jobs, missing)}: {error}")
    unknown = {(j.study.tuning.name, j.cell.model) for j in missing if j.learning_rate is not None}
    for study in dict.fromkeys(study for study, _ in groups):
        group = [
            job
            for job in jobs
            if job.cell.study == study and job not in missing and job.study.tuning
            if (job.study.tuning.name, job.cell.model) in unknown
        ]
        if group:
            missing.update(group)
            what = left_out(study, group, jobs, missing)
            needs.append(f"{what}: learning rates are chosen on data that are not there")
    found = [job for job in jobs if job not in missing]
    if not found:
        raise ValueError("; ".join(needs))
    for line in needs:
        warn(line)
    return found


def left_out(study: str, group: Sequence[runner.Job], jobs, missing) -> str:
    """What is left out of a study: all of it, or some settings."""
    settings = dict.fromkeys(job.cell.setting for job in group)
    whole = all(job in missing for job in jobs if job.cell.study == study)
    return f"study {study} is left out" + f" in part ({', '.join(settings)})" * (not whole)


def check_there(job: runner.Job, data_dir: str, weights: str) -> None:
    """Raises an error that says what is missing: the data of a job, or weights that it needs."""
    published = job.study.tuning is None
    config = runner.cell_config(job.variant, data_dir=data_dir, tiny=not published)
    open_data(config)
    if published:
        place = runner.place_of_weights(config.start.weights, weights)
        if url := pretrained.URLS.get(place):
            pretrained.download.fetch(url)  # as the evaluation does
        elif not pathlib.Path(place).exists():
            raise FileNotFoundError(f"--weights={weights!r} has no {config.start.weights}")


@command.one_line_errors
def main(argv):
    """The command."""
    del argv
    logging.set_verbosity(logging.FATAL)  # libraries say in pages what is said once
    given = flags.FLAGS
    if given.tiny:  # two steps a program: compiling is most of it
        jax.config.update("jax_disable_most_optimizations", True)
    names = list(STUDIES) if given.study == "all" else [given.study]
    workdir = pathlib.Path(given.workdir).expanduser()
    shard = parse_part("shard", given.shard)
    seeds = parse_seeds(given.seeds)
    jobs = runner.jobs(names, seeds, tiny=given.tiny, shard=shard, large=given.large)
    if not given.report:
        jobs = train(given, workdir, jobs)
    if not given.worker:
        from experiments.lab import attention, report  # draws, which no worker does

        attention.update(workdir)
        expected = [
            (job.cell.study, job.cell.name, job.seed) for job in jobs if job.learning_rate is None
        ]
        for path in report.write(workdir, expected):
            say(f"wrote {path}")


def train(given, workdir: pathlib.Path, jobs: Sequence[runner.Job]) -> list[runner.Job]:
    """Does the jobs whose data are there, and returns them."""
    jobs = with_data(jobs, given.data_dir, given.weights)
    if given.jobs > 1:
        if code := spawn(given):
            sys.exit(code)
        return jobs
    worker, workers = parse_part("worker", given.worker or "0/1")
    share_cores(worker, workers)
    command.keep_programs(workdir / compilation.FOLDER)
    settings = {"data_dir": given.data_dir, "tiny": given.tiny, "weights": given.weights}
    runner.Runner(workdir, jobs, processes=workers, **settings).run()
    return jobs


def share_cores(worker: int, workers: int) -> None:
    """Leaves each process its part of the cores: these models are too small to spread."""
    if workers > 1 and hasattr(os, "sched_setaffinity"):
        mine = sorted(os.sched_getaffinity(0))[worker::workers]
        os.sched_setaffinity(0, mine or os.sched_getaffinity(0))


def spawn(given) -> int:
    """Runs this command in `--jobs` processes.

    Returns:
      The exit code of the first that failed, else 0. The others are then asked to stop.
    """
    shared = ["study", "seeds", "workdir", "shard", "data_dir"]
    shared += ["tiny", "large", "weights", "compilation_cache"]
    arguments = [f"--{name}={given[name].value}" for name in shared]
    start = [sys.executable, "-m", "experiments.lab", *arguments]
    codes: list[int] = []
    workers = [
        subprocess.Popen([*start, f"--worker={index}/{given.jobs}"]) for index in range(given.jobs)
    ]

    def stop(*_):
        for worker in workers:
            worker.terminate()
        codes.append(Preempted.exit_code)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        for worker in workers:
            codes.append(worker.wait())
            if codes[-1]:
                for other in workers:
                    other.terminate()
    except KeyboardInterrupt:  # the workers have it too, and stop
        codes.append(Preempted.exit_code)
        for worker in workers:
            worker.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
    failed = [code for code in codes if code]
    # A worker that is killed by a signal has a negative code.
    return (failed[0] if failed[0] > 0 else 1) if failed else 0


if __name__ == "__main__":
    command.run(main, define_flags)
