"""Prints the commands of a sweep over fields of a config, and collects what came out.

    python -m experiments.sweep --config=configs/glue.py:rte --workdir=runs/rte \\
        --config.data.data_dir=/data/tfds > commands.sh     # of the runs that are not finished
    bash commands.sh                                        # or each line on another machine
    python -m experiments.sweep --config=configs/glue.py:rte --workdir=runs/rte \\
        --config.data.data_dir=/data/tfds --collect         # runs/rte/sweep.csv, and the best

--vary=FIELD=VALUE,VALUE names a field and its values, and may repeat: every combination is a run, a
folder of the workdir. By default it is the grid of GLUE in Perceiver IO (Table 13):

    --vary=batch_size=16,32,64 --vary=optimizer.learning_rate=1e-4,5e-5,2e-5,1e-5

The 10 epochs of that table are in `configs/glue.py`, whose steps follow the batch size; for others
vary `steps`. The best run has the highest --metric, with --lowest the lowest, on
`config.data.eval_split`, which should be a validation split. All runs must be of one config but for
the fields that vary: a folder of another config is refused.
"""

import itertools
import json
import pathlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags
from etils import epath
from ml_collections import ConfigDict, config_flags

from experiments import check_config, command
from perceiver_jax.config_types import ConfigError
from perceiver_jax.files.paths import user_path
from perceiver_jax.train import workdir as workdirs
from perceiver_jax.train.log import warn

TABLE_13 = ("batch_size=16,32,64", "optimizer.learning_rate=1e-4,5e-5,2e-5,1e-5")


class Point(NamedTuple):
    """A run of the sweep.

    Attributes:
      values: of the fields that vary, as they were written.
      config: of the run.
      folder: its workdir.
    """

    values: Mapping[str, str]
    config: ConfigDict
    folder: pathlib.Path


def points(config: ConfigDict, varied: Sequence[str], workdir: pathlib.Path) -> list[Point]:
    """The runs of a sweep, checked as `experiments.run` checks them.

    Args:
      config: what does not vary; the fields that do are set in it.
      varied: texts FIELD=VALUE,VALUE.
      workdir: of all runs.

    Raises:
      ConfigError: a text is not of this form, or a run is not allowed.
    """
    grid = {}
    for text in varied:
        field, _, values = text.partition("=")
        if not values or field in grid:
            raise ConfigError(f"--vary={text}: write FIELD=VALUE,VALUE, and each field once")
        grid[field] = values.split(",")
    found = []
    for combination in itertools.product(*grid.values()):
        values = dict(zip(grid, combination, strict=True))
        for field, text in values.items():
            put(config, field, text)
        point = config.copy_and_resolve_references()
        name = "_".join(f"{field.split('.')[-1]}-{text}" for field, text in values.items())
        try:
            check_config(point)
        except ConfigError as error:
            raise ConfigError(f"the run {name} of the sweep: {error}") from error
        found.append(Point(values, point, workdir / name))
    return found


def put(config: ConfigDict, field: str, text: str) -> None:
    """Sets a field to a number or a text as written.

    Raises:
      ConfigError: there is no such field, or the value is not of its type.
    """
    *sections, name = field.split(".")
    section: Any = config
    for part in sections:
        section = section.get(part) if isinstance(section, ConfigDict) else None
    if not isinstance(section, ConfigDict) or name not in section:
        raise ConfigError(f"--vary={field}={text}: the config has no field {field!r}")
    kind = type(section[name])
    if kind not in (int, float, str):
        raise ConfigError(f"--vary={field}: it is no number or text, but {kind.__name__}")
    try:
        section[name] = kind(text)
    except ValueError as error:
        raise ConfigError(f"--vary={field}={text}: it is no {kind.__name__}") from error


def results(found: Sequence[Point]) -> dict[pathlib.Path, Mapping[str, Any]]:
    """The results of the runs that are finished, by folder.

    Raises:
      ValueError: a folder is of another config; names the fields.
    """
    finished = {}
    for point in found:
        workdirs.check_config(epath.Path(point.folder), point.config, write=False)
        if (point.folder / workdirs.RESULT).exists():
            finished[point.folder] = json.loads((point.folder / workdirs.RESULT).read_text())
    return finished


def rows_of(
    found: Sequence[Point], finished: Mapping[pathlib.Path, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """A row for each finished run: the fields that vary, its result, and its folder."""
    return [
        {**point.values, **finished[point.folder], "folder": point.folder.name}
        for point in found
        if point.folder in finished
    ]


def best(rows: Sequence[Mapping[str, Any]], metric: str, *, lowest: bool) -> Mapping[str, Any]:
    """The row with the best value of the metric; one that is not finite never is.

    Raises:
      ValueError: no row has it; says which there are.
    """
    counted = [row for row in rows if row.get(metric) is not None]
    if not counted:
        there = sorted({name for row in rows for name, x in row.items() if isinstance(x, float)})
        raise ValueError(f"--metric={metric} is in no result; there are {there}")
    return (min if lowest else max)(counted, key=lambda row: row[metric])


def command_of(point: Point, start: Sequence[str]) -> str:
    """The command line of a run, for a shell."""
    varied = [f"--config.{field}={text}" for field, text in point.values.items()]
    return shlex.join(
        ["python", "-m", "experiments.run", *start, *varied, f"--workdir={point.folder}"]
    )


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    where = {"flag_values": values}
    config_flags.DEFINE_config_file("config", None, "File and variant.", **where)
    flags.DEFINE_string("workdir", None, "Folder of the runs' folders.", **where)
    text = "FIELD=VALUE,VALUE, see above; may repeat."
    flags.DEFINE_multi_string("vary", [*TABLE_13], text, **where)
    flags.DEFINE_bool("collect", False, "Write WORKDIR/sweep.csv and name the best.", **where)
    flags.DEFINE_string("metric", "accuracy", "By which the best is chosen.", **where)
    flags.DEFINE_bool("lowest", False, "The best has the lowest value.", **where)
    flags.mark_flags_as_required(["config", "workdir"], **where)


@command.one_line_errors
def main(argv):
    """The command."""
    del argv
    chosen = flags.FLAGS
    workdir, flag = user_path(chosen.workdir), chosen["config"]
    fixed = config_flags.get_override_values(flag)
    if both := [field for field in fixed if any(t.startswith(f"{field}=") for t in chosen.vary)]:
        raise ConfigError(f"--config.{both[0]} is set, and --vary varies it: leave one out")
    found = points(chosen.config, chosen.vary, workdir)
    finished = results(found)
    if chosen.collect and not finished:
        raise FileNotFoundError(f"{workdir} has no finished run of this sweep")
    print(f"{len(finished)} of {len(found)} runs are finished", file=sys.stderr)
    if not chosen.collect:
        start = [f"--config={config_flags.get_config_filename(flag)}"]
        start += [f"--config.{field}={value}" for field, value in fixed.items()]
        for point in found:
            if point.folder not in finished:
                print(command_of(point, start))
        return
    rows = rows_of(found, finished)
    if "test" in (split := found[0].config.data.eval_split):
        warn(f"the best is chosen on config.data.eval_split={split!r}: its score is too good")
    row = best(rows, chosen.metric, lowest=chosen.lowest)
    path = workdir / "sweep.csv"
    command.write_table(path, rows)
    settings = ", ".join(f"{field} {row[field]}" for field in found[0].values)
    print(f"best {chosen.metric} {row[chosen.metric]:.4g}: {settings} ({workdir / row['folder']})")
    print(path)


if __name__ == "__main__":
    command.run(main, define_flags)
