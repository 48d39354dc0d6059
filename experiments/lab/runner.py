"""Trains the cells of the lab that are missing, in as many processes as wanted.

    WORKDIR/STUDY/CELL/SEED/          the run of one training, as `experiments.run` makes it
    WORKDIR/tuning/STUDY/MODEL/RATE/  likewise, of one learning rate that was tried
    WORKDIR/tuning.json               the rule, what was tried and what was chosen
    WORKDIR/lab_STUDY.csv             a row for each training that ended, by itself or as diverged
    WORKDIR/claims/                   locked files: who trains what
    WORKDIR/cache/                    compiled programs

Every process goes through all jobs in one order and takes those that nobody has. A job that is
killed is begun anew, or goes on from its checkpoint, when somebody next comes to it.
"""

import collections
import contextlib
import dataclasses
import datetime
import functools
import hashlib
import json
import pathlib
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax
import jax
from ml_collections import ConfigDict

from configs import lab, lab_change
from experiments import check_config, command, make_task
from experiments.lab import permuted
from experiments.lab.studies import RATES, RULE, STUDIES, TUNING_SEED, Study, Tuning
from perceiver_jax.files.paths import user_path
from perceiver_jax.machine import hardware
from perceiver_jax.train import loop, start
from perceiver_jax.train.log import duration, say, warn
from perceiver_jax.train.stop import Diverged, Preempted, stop_on_signals
from perceiver_jax.train.workdir import (
    InUse,
    as_json,
    git_commit,
    lock_file,
    write_atomically,
)

RUN = "python -m experiments.run --config=configs/lab.py:"
FIRST = ("study", "cell", "model", "cue", "rho", "n", "setting", "seed", "status")
LAST = ("parameters", "flops", "steps", "learning_rate", "seconds", "command", "commit",
        "config_hash", "hardware", "software", "date")  # fmt: skip
NOT_METRICS = ("step", "seconds", "examples_per_second", "commit", "device")
WAIT = 2.0  # seconds, where all that is left is in other processes


@dataclasses.dataclass(frozen=True)
class Job:
    """One training: of a cell and a seed, or of a learning rate that is tried.

    Attributes:
      variant: of `configs/lab.py`.
      seed: of the config.
      folder: within the workdir.
      learning_rate: None is the one chosen for the cell's model.
    """

    variant: str
    seed: int
    folder: str
    learning_rate: float | None = None

    @property
    def cell(self) -> lab.Cell:
        """What it trains."""
        return lab.CELLS[self.variant]

    @property
    def trained_in(self) -> str:
        """The folder of the same seed whose weights are evaluated; '' where it is a training."""
        setting = lab_change.EVALUATED.get(self.cell.setting)
        cell = dataclasses.replace(self.cell, setting=setting)
        return f"{cell.study}/{cell.name}/{self.seed}" if setting else ""

    @property
    def is_evaluation(self) -> bool:
        """Whether nothing is trained."""
        return bool(self.trained_in) or self.study.tuning is None

    @property
    def study(self) -> Study:
        """Of which study."""
        return STUDIES[self.cell.study]


class Runner:
    """The jobs of some studies in a workdir, done by this process among others.

    Attributes:
      jobs: all of them, in the order in which they are done.
      processes: how many share them, this one included.
      data_dir: of TFDS.
      tiny: whether each takes two steps.
      weights: folder with other weights for study `released`, by their names; '' is the published.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        jobs: Sequence[Job],
        *,
        processes: int = 1,
        data_dir: str = "",
        tiny: bool = False,
        weights: str = "",
    ):
        self.workdir, self.jobs, self.processes = workdir, jobs, processes
        self.data_dir, self.tiny, self.weights = data_dir, tiny, weights
        self.commit = commit()
        self.programs: dict[str, start.Program] = {}
        self.chosen: dict[tuple[str, str], float] = {}  # learning rates by tuning and model
        self.hashes: dict[tuple[str, float | None], str] = {}
        self.latest = collections.deque(maxlen=20)  # seconds a step: the first ones compile
        workdir.mkdir(parents=True, exist_ok=True)

    def run(self) -> None:
        """Trains until nothing is left.

        Raises:
          ValueError: the table of a study has rows of another commit or config.
          Preempted: a signal; the same command goes on.
        """
        left = list(self.jobs)
        with stop_on_signals() as stop:
            while left := self.missing(left):
                before = len(left)
                for job in list(left):
                    if stop():
                        raise Preempted(f"{stop.signal} between two cells: run the command again")
                    if self.ready(job) and (row := self.take(job)) is not None:
                        left.remove(job)
                        self.report(job, row, self.missing(left))
                if len(left) == before:
                    time.sleep(WAIT)

    def missing(self, jobs: Sequence[Job]) -> list[Job]:
        """Those that have no result yet."""
        rows = {name: self.rows(name) for name in {job.cell.study for job in jobs}}
        done = {
            (name, row["cell"], row["seed"]): row for name, found in rows.items() for row in found
        }
        return [job for job in jobs if not self.is_done(job, done)]

    def is_done(self, job: Job, done: Mapping[tuple[str, str, str], Mapping[str, str]]) -> bool:
        """Whether a job has a result, of this commit and config."""
        mine = {"config_hash": self.hash(job)}
        if job.learning_rate is not None:  # of whichever commit: it is a setting
            place = self.workdir / job.folder / "score.json"
            row = json.loads(place.read_text()) if place.exists() else None
        else:
            place = self.table(job.cell.study)
            row = done.get((job.cell.study, job.cell.name, str(job.seed)))
            mine["commit"] = self.commit
        if row is None:
            return False
        for name, value in mine.items():
            if row[name] != value:
                raise ValueError(
                    f"{place}: {job.cell.name}, seed {job.seed} has the "
                    f"{name} {row[name]!r}, this is {value!r}: check that one out, choose another "
                    "--workdir, or move this file and the folder of its study away"
                )
        return True

    def ready(self, job: Job) -> bool:
        """Whether the learning rate is known, and the training done that it evaluates."""
        known = job.learning_rate is not None or self.rate(job) is not None
        return known and (not job.trained_in or self.trained(job) is not None)

    def trained(self, job: Job) -> Mapping[str, str] | None:
        """The row of the training that a job evaluates, if it is there."""
        study, *wanted = job.trained_in.split("/")
        found = (row for row in self.rows(study) if [row["cell"], row["seed"]] == wanted)
        return next(found, None)

    def rate(self, job: Job) -> float | None:
        """The learning rate of a job; None while its tuning is not done."""
        if job.learning_rate is not None:
            return job.learning_rate
        if job.study.tuning is None:  # there as it is in every config
            return lab.LEARNING_RATE
        key = job.study.tuning.name, job.cell.model
        if key not in self.chosen:
            scores = self.scores(job.study.tuning, job.cell.model)
            if len(scores) < len(rates(self.tiny)):
                return None
            self.chosen[key] = max(scores, key=scores.get)
        return self.chosen[key]

    def scores(self, tuning: Tuning, model: str) -> dict[float, float]:
        """What each learning rate that was tried has reached; -1 where it diverged."""
        found = {}
        for rate in rates(self.tiny):
            path = self.workdir / tuning_folder(tuning, model, rate) / "score.json"
            if path.exists():
                found[rate] = json.loads(path.read_text())["score"]
        return found

    def hash(self, job: Job) -> str:
        """Of the config of a job; '' while its learning rate is not known."""
        key = job.variant, self.rate(job)
        if key[1] is not None and key not in self.hashes:
            self.hashes[key] = config_hash(self.config(job))
        return self.hashes.get(key, "")

    def config(self, job: Job) -> ConfigDict:
        """Of a job that is ready."""
        fields = {"seed": job.seed, "learning_rate": self.rate(job)}
        return cell_config(job.variant, data_dir=self.data_dir, tiny=self.tiny, **fields)

    def take(self, job: Job) -> Mapping[str, Any] | None:
        """Does a job and writes its result; None where another process has it, or had."""
        claim = self.workdir / "claims" / job.folder.replace("/", ".")
        try:
            with lock_file(claim, warn=warn):
                if not self.missing([job]):
                    return None
                config = self.config(job)
                row = self.train(job, config)
                if job.learning_rate is None:
                    self.append(job.cell.study, row)
                else:
                    self.score(job, row)
                return row
        except InUse:
            return None

    def train(self, job: Job, config: ConfigDict) -> dict[str, Any]:
        """Trains, and returns the row of the table."""
        folder = self.workdir / job.folder
        folder.mkdir(parents=True, exist_ok=True)
        check_config(config)
        row = {name: "" for name in FIRST} | {
            **dataclasses.asdict(job.cell),
            "cell": job.cell.name,
            "seed": job.seed,
            "steps": config.steps,
            "learning_rate": config.optimizer.learning_rate,
            "command": command_of(job, config, self.workdir, tiny=self.tiny),
            "commit": self.commit,
            "config_hash": config_hash(config),
            "software": f"jax {jax.__version__}, flax {flax.__version__}",
            **job.study.about(job.cell),
        }
        if job.is_evaluation:
            config.start.weights = self.weights_of(job, config)
            row["steps"] = 0
            row["command"] += f" --mode=eval --config.start.weights={config.start.weights}"
        with (
            (folder / "log.txt").open("a") as log,
            contextlib.redirect_stdout(log),
            contextlib.redirect_stderr(log),
        ):
            task = make_task(config)
            if not self.tiny:
                job.study.check_cost(job.cell, task.flops_per_example)
            program = self.program(task, config)
            began = time.monotonic()
            try:
                result = self.evaluate_or_train(job, task, config, program)
                row |= {"status": "ok"} | {k: v for k, v in result.items() if k not in NOT_METRICS}
                # Of images as they are, where there are others: the mean over all tells nothing.
                row["accuracy"] = row.get("accuracy_original", row["accuracy"])
            except Diverged as error:
                print(error)
                row["status"] = "diverged"
        return row | {
            "parameters": sum(x.size for x in jax.tree.leaves(program.target.params)),
            "flops": task.flops_per_example,
            "seconds": round(time.monotonic() - began, 2),
            "hardware": hardware(),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }

    def weights_of(self, job: Job, config: ConfigDict) -> str:
        """What a job evaluates."""
        if job.trained_in:
            return str(self.workdir / job.trained_in)
        return place_of_weights(config.start.weights, self.weights)

    def evaluate_or_train(
        self, job: Job, task, config: ConfigDict, program: start.Program
    ) -> dict[str, Any]:
        """The result of a run.

        Raises:
          Diverged: the training, or the one that is evaluated.
        """
        folder = self.workdir / job.folder
        if not job.is_evaluation:
            return loop.train(task, config, folder, program=program)
        if not job.trained_in:
            return loop.evaluate(task, config, folder)
        if self.trained(job)["status"] != "ok":
            raise Diverged(f"{job.trained_in} diverged")
        result = loop.evaluate(task, config, folder)
        return result | {"logits_difference": permuted.difference(task, config, program)}

    def program(self, task, config: ConfigDict) -> start.Program:
        """The compiled steps; trainings that differ in seed, pairing or transforms share them."""
        values = as_json(config)
        values["seed"] = 0
        for field in ("source_options", "train_source_options", "train", "train_split"):
            values["data"].pop(field)
        key = json.dumps(values, sort_keys=True)
        if key not in self.programs:
            self.programs[key] = start.build(task, config)
        return self.programs[key]

    def score(self, job: Job, row: Mapping[str, Any]) -> None:
        """Writes down what a learning rate has reached, and what is chosen so far."""
        tuning = job.study.tuning
        reached = row.get(tuning.metric)
        score = -1.0 if row["status"] == "diverged" or reached is None else reached
        text = json.dumps({"score": score, **row}, indent=2)
        write_atomically(self.workdir / job.folder / "score.json", text)
        with waiting(self.workdir / "claims" / "tuning"):
            path = self.workdir / "tuning.json"
            found = json.loads(path.read_text()) if path.exists() else {"rule": RULE}
            tried = self.scores(tuning, job.cell.model)
            found.setdefault(tuning.name, {})[job.cell.model] = {
                "metric": tuning.metric,
                "tried": {f"{rate:g}": value for rate, value in tried.items()},
                "chosen": self.rate(dataclasses.replace(job, learning_rate=None)),
                "commit": self.commit,
            }
            write_atomically(path, json.dumps(found, indent=2) + "\n")

    def table(self, study: str) -> pathlib.Path:
        """The path of a study's rows."""
        return self.workdir / f"lab_{study}.csv"

    def rows(self, study: str) -> list[dict[str, str]]:
        """A study's rows."""
        return command.read_table(self.table(study))

    def append(self, study: str, row: Mapping[str, Any]) -> None:
        """Adds a row; the table is always whole. New metrics become new columns."""
        with waiting(self.workdir / "claims" / f"lab_{study}"):
            rows = [*self.rows(study), row]
            names = dict.fromkeys(name for found in rows for name in found)
            metrics = [name for name in names if name not in (*FIRST, *LAST)]
            command.write_table(self.table(study), rows, [*FIRST, *metrics, *LAST])

    def report(self, job: Job, row: Mapping[str, Any], left: Sequence[Job]) -> None:
        """Prints a line on a job that is done, and when the rest will be."""
        if row["steps"]:
            self.latest.append(row["seconds"] / row["steps"])
        steps = sum(steps_of(job.variant, self.tiny) for job in left)
        remaining = statistics.median(self.latest or [0]) * steps / self.processes
        done, total = len(self.jobs) - len(left), len(self.jobs)
        what = f"{job.variant}, seed {job.seed}" if job.learning_rate is None else job.folder
        seen = {
            name: row[name]
            for name in ("accuracy", "accuracy_aligned", "accuracy_conflict", "ground_choice")
            if isinstance(row.get(name), float)
        }
        values = " ".join(f"{name.removeprefix('accuracy_')} {v:.3f}" for name, v in seen.items())
        outcome = row["status"] if row["status"] != "ok" else values
        say(
            f"{done}/{total} | {what} | {outcome} | {row['seconds']:.0f} s | "
            f"{duration(remaining)} left"
        )


@functools.cache
def source_of(variant: str) -> str:
    """Which data a cell reads."""
    return lab.get_config(variant).data.source


@functools.cache
def steps_of(variant: str, tiny: bool) -> int:
    """How long a cell is trained."""
    if Job(variant, 0, "").is_evaluation:
        return 0
    return lab.get_config(variant + ":tiny" * tiny).steps


def jobs(
    names: Sequence[str],
    seeds: int | Mapping[str, int],
    *,
    tiny: bool,
    shard: tuple[int, int] = (0, 1),
    large: bool = False,
) -> list[Job]:
    """All trainings of some studies: learning rates first, then seed by seed all cells.

    Args:
      names: of `STUDIES`.
      seeds: how many of each cell, from 0; or how many by study.
      tiny, large: which cells, see `Study.cells`.
      shard: (i, n): every n-th cell from the i-th, and the tuning that they need.
    """
    index, count = shard
    if isinstance(seeds, int):
        seeds = dict.fromkeys(names, seeds)
    cells = [
        Job(f"{name}.{cell.name}", seed, f"{name}/{cell.name}/{seed}")
        for name in names
        for seed in range(min(seeds[name], STUDIES[name].seeds or seeds[name]))
        for cell in STUDIES[name].cells(tiny=tiny, large=large)
    ]
    trained = [job for job in cells if not job.trained_in][index::count]
    folders = {job.folder for job in trained}  # what is evaluated is in the shard of its training
    cells = [job for job in cells if job.folder in folders or job.trained_in in folders]
    tuned = [job for job in cells if job.study.tuning]
    wanted = dict.fromkeys((job.study.tuning.name, job.cell.model) for job in tuned)
    tunings = {job.study.tuning.name: job.study.tuning for job in tuned}
    tried = [
        Job(
            tunings[name].cells[model],
            TUNING_SEED,
            tuning_folder(tunings[name], model, rate),
            rate,
        )
        for name, model in wanted
        for rate in rates(tiny)
    ]
    return [*tried, *cells]


def cell_config(
    variant: str,
    *,
    seed: int = 0,
    learning_rate: float = lab.LEARNING_RATE,
    data_dir: str = "",
    tiny: bool = False,
) -> ConfigDict:
    """The config of one training."""
    config = lab.get_config(variant + ":tiny" * tiny)
    config.seed = seed
    config.optimizer.learning_rate = learning_rate
    config.data.data_dir = data_dir
    if config.data.source == "imagenet9" and data_dir:  # a folder of its own
        config.data.data_dir = str(user_path(data_dir) / "imagenet9")
    return config


def place_of_weights(name: str, folder: str) -> str:
    """The published weights of a name, or those of a folder in their place."""
    return str(user_path(folder) / name) if folder else name


def rates(tiny: bool) -> Sequence[float]:
    """The learning rates that are tried."""
    return RATES[-1:] if tiny else RATES


def tuning_folder(tuning: Tuning, model: str, rate: float) -> str:
    """Where the training of one rate is."""
    return f"tuning/{tuning.name}/{model}/{rate:g}"


def command_of(job: Job, config: ConfigDict, workdir: pathlib.Path, *, tiny: bool) -> str:
    """The command line that trains the same thing by itself."""
    return (
        f"{RUN}{job.variant}{':tiny' * tiny} --config.seed={job.seed} "
        f"--config.optimizer.learning_rate={config.optimizer.learning_rate:g} "
        f"--workdir={workdir / job.folder}"
        + f" --config.data.data_dir={config.data.data_dir}"
        * bool(config.data.data_dir)
    )


def config_hash(config: ConfigDict) -> str:
    """Of all fields but the seed, `data_dir` and `parallel`, so that it is one for a cell."""
    values = as_json(config)
    values["data"].pop("data_dir")
    for section in (values, values["data"]["source_options"]):
        section.pop("seed", None)
    values.pop("parallel")
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def commit() -> str:
    """The checkout's commit, marked where its files were changed since; '' outside of one."""
    found = git_commit()
    root = pathlib.Path(__file__).parent.parent.parent
    question = ["git", "-C", str(root), "diff", "--quiet", "HEAD"]
    changed = found and subprocess.run(question, check=False).returncode
    return found + "-changed" * bool(changed)


@contextlib.contextmanager
def waiting(path: pathlib.Path) -> Iterator[None]:
    """Holds the lock of a folder, after whoever has it for a moment."""
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(lock_file(path, warn=warn))
                break
            except InUse:
                time.sleep(0.05)
        yield
