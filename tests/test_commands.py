"""All commands: what is wrong ends them in one line, with the exit code, before any work."""

import importlib
import logging
import pathlib
import re

import cv2
import numpy as np
import pytest
from calling import call

from experiments import command
from perceiver_jax.train.stop import Diverged, explain

ROOT = pathlib.Path(__file__).parent.parent
NAMES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "experiments").rglob("*.py")
    if "\nif __name__ ==" in path.read_text()
    and path.name != "answer.py"  # goes with an export, and runs where this project is not
)
SIZES = f"{ROOT}/configs/released/sizes.py"
DIGITS = f"--config={ROOT}/configs/digits.py"
TINY = [DIGITS + ":tiny", "--workdir=W/x"]


def test_every_command_is_started_by_one_function():
    assert len(NAMES) >= 7
    for name in NAMES:
        text = pathlib.Path(importlib.util.find_spec(name).origin).read_text()
        *_, start, call = text.splitlines()
        assert start == 'if __name__ == "__main__":', name
        assert call == "    command.run(main, define_flags)", name


@pytest.mark.parametrize("name", NAMES)
def test_unknown_flags_and_arguments_are_one_line(name, monkeypatch, capsys):
    code, _, said = call(name, "--nonsense=3", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 1 and "nonsense" in said and "\n" not in said
    module = importlib.import_module(name)
    with pytest.raises(SystemExit, match=r"^unknown arguments \['more'\]: .*--help$"):
        module.main([name, "more"])


WRONG = [
    ("run", [DIGITS], "--workdir must have a value other than None"),
    ("run", [DIGITS, "--workdir=W/x", "--mode=dance"], "--mode=dance"),
    ("run", [DIGITS, "--workdir=W/x", "--process_id=-1"], "--process_id=-1"),
    ("run", [DIGITS, "--workdir=W/x", "--profile=9"], "profile"),
    ("run", [DIGITS, "--workdir=W/file"], "W/file"),
    ("run", ["--config=W", "--workdir=W/x"], "W"),
    ("run", ["--config=W/file", "--workdir=W/x"], "'text' is not defined (W/file, line 1)"),
    ("run", [DIGITS + ":tinny", "--workdir=W/x"], "'tinny' is none of"),
    ("run", [DIGITS, "--workdir=W/x", "--config.steps=1e3"], "steps"),
    ("run", [DIGITS, "--workdir=W/x", "--config.steps=many"], "steps"),
    ("run", [DIGITS, "--workdir=W/x", "--config.optimizer.learnin_rate=1"], '"learning_rate"'),
    ("run", [*TINY, "--config.data.eval=keep('image')"], "reads 'label', and config.data.eval"),
    ("run", [*TINY, "--config.data.eval=keep('label')"], "reads 'image', and config.data.eval"),
    ("run", [*TINY, "--config.data.train=resize(0) | keep('image', 'label')"], "size=0 is not"),
    ("run", [*TINY, "--config.data.source=texts"], "source_options.length is missing"),
    ("run", [*TINY, "--config.data.source=clips"], "source_options.frames_per_second is missing"),
    ("plot", ["--workdir=W/none"], "W/none"),
    ("plot", ["--workdir=W", "--examples=0"], "--examples=0"),
    ("plot", ["--workdir=W/damaged"], "W/damaged/config.json"),
    ("predict", ["P", "--model=flow", "--top=0"], "--top=0"),
    ("predict", ["P", "--model=flow", "--frame_rate=nan"], "--frame_rate=nan: write a number"),
    ("predict", ["P", "--model=flow", DIGITS], "config.name is missing"),
    ("predict", ["P", "--model=fow", "--random_weights"], "'fow'"),
    ("predict", ["P", "F", "--config.height=-3"], "config.height=-3 is not allowed"),
    ("predict", ["P", "F", "--config.num_latents=0"], "config.num_latents=0 is not allowed"),
    ("predict", ["P", "F", "--config.name=xx"], "'xx'; there are"),
    ("predict", ["P", "--model=W/file"], "W/file"),
    ("plan.__main__", [DIGITS, "--topology=v9:8x8"], "v9"),
    ("plan.__main__", [DIGITS, "--topology=v5e:8"], "v5e:8"),
    ("plan.__main__", [DIGITS, "--topology=v5e:2x2", "--batch=-4"], "--batch=-4"),
    ("plan.__main__", ["--topology=v5e:2x2"], "--config"),
    ("benchmark.__main__", ["--suite=nope"], "--suite=nope is none of"),
    ("benchmark.__main__", ["--suite=flow", "--against=me"], "--against=me is none of"),
    ("benchmark.__main__", ["--suite=flow", "--output=W/file"], "W/file"),
    ("benchmark.__main__", ["--suite=flow", "--repeats=0"], "--repeats=0"),
    ("benchmark.data", ["--batch_size=0"], "--batch_size=0"),
    ("benchmark.data", ["--clips=-2"], "--clips=-2"),
    ("benchmark.data", ["--output=W/file/x.csv"], "W/file"),
    ("benchmark.reading", ["--config=configs/digits.py", "--examples=0"], "--examples=0"),
    ("benchmark.parallel", ["--output=W", "--steps=0"], "--steps=0"),
    ("sweep", [DIGITS, "--workdir=W/x", "--vary=steps"], "--vary=steps: write FIELD=VALUE"),
    ("sweep", [DIGITS, "--workdir=W/x", "--vary=step=1,2"], "has no field 'step'"),
    ("sweep", [DIGITS, "--workdir=W/x", "--vary=steps=many"], "--vary=steps=many: it is no int"),
    ("sweep", [DIGITS, "--workdir=W/x", "--vary=model=a"], "--vary=model: it is no number or text"),
    (
        "sweep",
        [DIGITS, "--workdir=W/x", "--vary=batch_size=8,0"],
        "batch_size-0 of the sweep: c",
    ),
    ("sweep", [*TINY, "--vary=steps=1", "--config.steps=2"], "--config.steps is set, and --vary"),
    ("sweep", [*TINY, "--vary=steps=1", "--collect"], "W/x has no finished run of this sweep"),
    ("convert_lists", ["--list=W/none", "--split=a", "--data_dir=W"], "W/none"),
    ("convert_lists", ["--list=W/file", "--split=a", "--data_dir=W/none"], "W/none is no folder"),
    ("convert_lists", ["--list=W/file", "--split=a", "--data_dir=W"], "W/file has no column"),
    ("benchmark.parallel", ["--output=W/file"], "W/file"),
]


@pytest.mark.parametrize(("name", "args", "message"), WRONG)
def test_what_is_wrong_is_one_line(name, args, message, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("text")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/config.json").write_text('{"steps":')
    predict = ["--input=a.png", "--input=b.png", f"--output={tmp_path}/out"]
    flow = ["--model=flow", "--random_weights", f"--config={SIZES}:flow:tiny"]
    replaced = {"P": predict, "F": flow}
    args = [y for x in args for y in replaced.get(x, [re.sub(r"\bW\b", str(tmp_path), x)])]
    name = f"experiments.{name}"
    code, _, said = call(name, *args, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 1 and message.replace("W", str(tmp_path)) in said
    assert "\n" not in said and "Traceback" not in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["damaged", "file"]


def ours(text):
    """A function of this project, as far as `explain` can see."""
    space = {"__name__": "perceiver_jax.fake", "__package__": "perceiver_jax", "np": np, "cv2": cv2}
    exec(compile(text, "perceiver_jax/fake.py", "exec"), space)
    return space["act"]


def told(act):
    @command.one_line_errors
    def main(argv):
        act()

    with pytest.raises(SystemExit) as stopped:
        main(["command"])
    return stopped.value.code


@pytest.mark.parametrize(
    "action",
    [
        "cv2.resize(np.zeros((0, 0, 3), np.uint8), (2, 2))",
        "import json; json.loads('{')",
        "np.loadtxt(['a'])",
        "b'\\xff'.decode()",
        "bytearray(2**62)",
    ],
)
def test_what_libraries_say_is_one_line_with_the_place(action, capsys):
    """The place is the line of this project, however deep in the library the error is raised."""
    assert told(ours(f"def act():\n    {action}\n")) == 1
    said = capsys.readouterr().err.strip()
    assert "\n" not in said and "(raised below perceiver_jax/fake.py, line 2; --verb" in said


@pytest.mark.parametrize("action", ["np.zeros(2)[5]", "len(3)", "missing", "assert False", "1 / 0"])
def test_bugs_have_a_traceback(action, capsys):
    assert told(ours(f"def act():\n    {action}\n")) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_a_user_s_own_module_has_a_traceback(capsys):
    assert told(lambda: np.zeros(3).reshape(2)) == 1
    assert "Traceback" in capsys.readouterr().err


def test_exit_codes_and_the_traceback_on_request(capsys, caplog, monkeypatch):
    def diverge():
        raise Diverged("step 3")

    assert told(diverge) == 70
    assert capsys.readouterr().err == "Diverged: step 3\n"
    monkeypatch.setattr(command.logging, "get_verbosity", lambda: 1)
    with caplog.at_level(logging.DEBUG):
        assert told(diverge) == 70
    assert "Traceback" in caplog.text
    assert explain(Diverged("step 3")) == ("Diverged: step 3", 70)
