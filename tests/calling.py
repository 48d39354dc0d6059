"""Calls a command of `experiments` in this process, by its name and flags."""

import importlib
import sys

from absl import flags

from experiments import command


def call(name, *args, monkeypatch, capsys):
    """Returns the exit code and what was printed on stdout and stderr, without ends of lines."""
    module = importlib.import_module(name)
    values = flags.FlagValues()
    values.append_flag_values(flags.FLAGS)  # those of libraries
    module.define_flags(values)
    code = 0
    with monkeypatch.context() as patch:
        patch.setattr(flags, "FLAGS", values)
        patch.setattr(sys, "argv", [name, *args])
        patch.setattr(sys, "unraisablehook", sys.unraisablehook)
        try:
            module.main(command.parse_flags([name, *args]))
        except SystemExit as stopped:
            code = stopped.code
    out, err = capsys.readouterr()
    if isinstance(code, str):  # what Python prints as it exits
        code, err = 1, err + code
    return code, out.strip(), err.strip()
