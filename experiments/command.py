"""What all commands share: how they read flags and how they end."""

import csv
import functools
import io
import os
import pathlib
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import app, flags, logging

from perceiver_jax.train import compilation
from perceiver_jax.train.stop import explain
from perceiver_jax.train.workdir import write_atomically

Main = Callable[[list[str]], Any]


def one_line_errors(main: Main) -> Main:
    """A command's `main` that ends with one line on stderr and an exit code, as `explain` says.

    `--verbosity=1` adds the traceback.
    """

    @functools.wraps(main)
    def guarded(argv: list[str]) -> Any:
        traced = logging.get_verbosity() >= logging.DEBUG
        if len(argv) > 1:
            sys.exit(f"unknown arguments {argv[1:]}: settings are --name=value, see --help")
        try:
            return main(argv)
        except Exception as error:
            if traced:
                logging.set_verbosity(logging.DEBUG)
                logging.debug("the traceback", exc_info=error)
            text, exit_code = explain(error)
            print(text, file=sys.stderr)
            sys.exit(exit_code)

    return guarded


def run(main: Main, define_flags: Callable[[flags.FlagValues], None]) -> None:
    """Runs a command as absl's `app.run`, and says in one line what is wrong with its flags.

    Args:
      main: wrapped by `one_line_errors`.
      define_flags: defines them only here, because other commands have flags of the same names.
    """
    define_flags(flags.FLAGS)
    app.run(main, flags_parser=parse_flags)


def define_cache(values: flags.FlagValues) -> None:
    """Defines `--compilation_cache`, which `keep_programs` reads."""
    text = "Folder of compiled programs instead of the default, `.jax_cache`; 'none' keeps none."
    flags.DEFINE_string("compilation_cache", "", text, flag_values=values)


def keep_programs(folder: str | os.PathLike) -> None:
    """Keeps what this command compiles where its flag says, by default in a folder."""
    compilation.keep_programs(folder, flags.FLAGS.compilation_cache)


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses as absl does; what is wrong ends the command in one line, exit code 1."""
    try:
        rest = flags.FLAGS(argv)
        if "config" in flags.FLAGS:
            _ = flags.FLAGS.config  # where the file is not there, its first use says so
        return rest
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        if "ml_collections" in frames[-1].filename and isinstance(error, AttributeError | KeyError):
            what = error
            while isinstance(what, AttributeError | KeyError) and what.args:  # one in the other
                what = what.args[0]
            sys.exit(f"no such field of the config: {' '.join(str(what).split())}")
        # The last line of a config file's traceback is its error.
        text = f"{type(error).__name__}: {str(error).strip().splitlines()[-1].strip()}"
        if not isinstance(error, flags.Error | OSError | ValueError):
            text += f" ({frames[-1].filename}, line {frames[-1].lineno})"
        sys.exit(text)


def read_table(path: pathlib.Path) -> list[dict[str, str]]:
    """The rows of a CSV file, by column; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_table(
    path: pathlib.Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()
) -> None:
    """Writes a CSV file, whole or not at all.

    Args:
      path: of the file.
      rows: a row may lack columns.
      columns: names of the columns; by default those of all rows, in the order of appearance.
    """
    text = io.StringIO()
    columns = columns or list(dict.fromkeys(name for row in rows for name in row))
    table = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_atomically(path, text.getvalue())
