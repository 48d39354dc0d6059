"""Composition: each `experiments/tasks/<config.experiment>.py` makes a config into a `Task`."""

import importlib

from ml_collections import ConfigDict

from perceiver_jax.train.task import Task


def make_task(config: ConfigDict) -> Task:
    """The task of a config, made by the experiment that it names."""
    return importlib.import_module(f"experiments.tasks.{config.experiment}").make_task(config)
