"""The examples of docs/adding.md, written to files and run."""

import re
from pathlib import Path

import experiments.tasks
from experiments import make_task
from perceiver_jax.train import loop


def test_the_examples_of_the_page_run(tmp_path, monkeypatch, one_device):
    text = Path(__file__).parents[1].joinpath("docs/adding.md").read_text(encoding="utf-8")
    blocks = re.findall(
        r"^`([\w/]+\.py)`[^\n]*:\n\n```python\n(.*?)```", text, re.MULTILINE | re.DOTALL
    )
    assert [name for name, _ in blocks] == [
        "waves.py",
        "waves.py",
        "experiments/tasks/waves.py",
        "waves_config.py",
    ]
    for name, code in blocks:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(code)
    monkeypatch.syspath_prepend(tmp_path)
    tasks = [*experiments.tasks.__path__, str(tmp_path / "experiments/tasks")]
    monkeypatch.setattr(experiments.tasks, "__path__", tasks)

    import waves_config

    config = waves_config.get_config("tiny")
    result = loop.train(make_task(config), config, tmp_path / "workdir")
    assert 0 <= result["accuracy"] <= 1
