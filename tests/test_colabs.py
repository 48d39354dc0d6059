"""The notebooks run as they are, and their first cell installs the library where it is missing."""

import importlib.util
import os
import shutil
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "colabs").glob("*.ipynb"))


def read(path):
    return nbformat.read(path, as_version=4)


def notebooks():
    """All of them; those marked slow train configs that `test_experiments.py` trains too."""
    slow = ("perceiver_ar", "points", "text_tasks")
    for path in NOTEBOOKS:
        yield pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem in slow))


@pytest.mark.parametrize("path", [*notebooks()])
def test_notebooks_run(path, monkeypatch, tmp_path):
    monkeypatch.setenv("PERCEIVER_JAX_QUICK", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    one_device = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=1"
    monkeypatch.setenv("XLA_FLAGS", one_device)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = read(path)
    assert not any(cell.get("outputs") for cell in notebook.cells), (
        "commit notebooks without output"
    )
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()


def test_every_notebook_has_a_badge_and_the_same_first_cell():
    first = {
        next(c.source for c in read(path).cells if c.cell_type == "code") for path in NOTEBOOKS
    }
    assert len(first) == 1
    for path in NOTEBOOKS:
        badge = read(path).cells[0].source.partition("\n")[0]
        assert badge.endswith(f"/OWNER/perceiver_jax/blob/main/colabs/{path.name})")


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("tpu", [False, True])
@pytest.mark.parametrize("in_checkout", [False, True])
def test_the_first_cell_installs_what_is_missing(in_checkout, tpu, gpu, monkeypatch, tmp_path):
    """From the checkout around the notebook, else from a clone; with the extra of the runtime."""
    folder = ROOT / "colabs" if in_checkout else tmp_path
    cell = next(c.source for c in read(NOTEBOOKS[0]).cells if c.cell_type == "code")
    names: dict = {}

    class Shell:
        """Records what IPython would run."""

        commands: tuple = ()

        def system(self, command):
            self.commands += (command.format(**names),)

        def run_line_magic(self, magic, line):
            self.commands += (f"{magic} {line.format(**names)}",)

    shell = Shell()
    names["get_ipython"] = lambda: shell
    monkeypatch.chdir(folder)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if gpu else None)
    monkeypatch.setattr("sys.path", [])
    monkeypatch.delenv("COLAB_TPU_ADDR", raising=False)
    if tpu:
        monkeypatch.setenv("COLAB_TPU_ADDR", "10.0.0.2:8470")
    exec(compile(TransformerManager().transform_cell(cell), "cell", "exec"), names)
    checkout = ROOT if in_checkout else tmp_path / "perceiver_jax_checkout"
    clone = f"git clone -q --depth 1 https://github.com/OWNER/perceiver_jax.git {checkout}"
    extras = "video,tpu" if tpu else "video,cuda" if gpu else "video"
    install = f"pip install -q -e '{checkout}[{extras}]'"
    assert shell.commands == ((install,) if in_checkout else (clone, install))
    import sys

    assert sys.path == [str(checkout)]
