"""Composition: each `experiments/tasks/<config.experiment>.py` makes a config into a `Task`."""

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from perceiver_jax.build import build
from perceiver_jax.config_types import ConfigError, check, check_fields
from perceiver_jax.data import transforms
from perceiver_jax.datasets import registry
from perceiver_jax.train.optimizer import make_optimizer
from perceiver_jax.train.task import Task


def make_task(config: ConfigDict) -> Task:
    """The task of a config, made by the experiment that it names, after all fields are checked."""
    check_config(config)
    return find_task(config.experiment).make_task(config)


def ask(config: ConfigDict) -> Any:
    """How the model of a run answers files: a record of `experiments.tasks.ask`; opens no data.

    Raises:
      ConfigError: its experiment does not say.
    """
    task = find_task(config.experiment)
    if not hasattr(task, "ask"):
        raise ConfigError(
            f"config.experiment={config.experiment!r} does not say how it answers files: its file "
            "in experiments/tasks has no function ask(config)"
        )
    return task.ask(config)


def find_task(experiment: str) -> ModuleType:
    """The module of `experiments/tasks` with this name."""
    check(str, experiment, "config.experiment")
    name = f"experiments.tasks.{experiment}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        text = f"config.experiment={experiment!r} is no file of experiments/tasks"
        raise ConfigError(text) from error


def with_classes(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """The `model` section with two classes where their number is None: until the data tell it."""
    output = model.get("output")
    if isinstance(output, Mapping) and output.get("num_classes", 0) is None:
        return {**model, "output": {**output, "num_classes": 2}}
    return model


def check_config(config: ConfigDict) -> None:
    """Checks every field by itself and with the others; opens no data and compiles nothing.

    An experiment declares its fields as `Config`, without which nothing is checked, and may check
    how they fit in `check_sizes`.

    Raises:
      ConfigError: with one line that names the field, its value and what is allowed.
    """
    values = config.to_dict()
    task = find_task(values.get("experiment"))
    if not hasattr(task, "Config"):
        return
    check_fields(task.Config, values, "config")
    build(with_classes(values["model"]) if "classes" in values["data"] else values["model"])
    make_optimizer(config)
    if values["batch_size"] % values["accumulate"]:
        raise ConfigError(
            f"config.batch_size={values['batch_size']} does not divide by "
            f"config.accumulate={values['accumulate']}"
        )
    for line in ("train", "eval"):
        transforms.parse(values["data"][line])
    data = values["data"]
    registry.check_options(data["source"], data["source_options"])
    registry.check_options(data["source"], data["source_options"] | data["train_source_options"])
    if hasattr(task, "check_sizes"):
        task.check_sizes(values)
