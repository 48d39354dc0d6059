"""Classification of point clouds: a config to a `Task`. Composition only."""

import functools

from ml_collections import ConfigDict

from experiments.tasks.data import Data, open_data
from perceiver_jax import conditions, losses, metrics
from perceiver_jax.build import build
from perceiver_jax.config_types import Rate
from perceiver_jax.data import on_device
from perceiver_jax.train import loop
from perceiver_jax.train.task import Task


class Clouds(Data):
    """The fields of `config.data`."""

    label_smoothing: Rate


class Config(loop.Config):
    """The fields of the config."""

    data: Clouds


def make_task(config: ConfigDict) -> Task:
    """Builds the task; reads the lists of the data, or all of them, and one example."""
    task_data = open_data(config, num_classes=config.model.output.num_classes)
    prepare = functools.partial(
        prepare_points,
        num_classes=config.model.output.num_classes,  # set by the data where it was None
        label_smoothing=config.data.label_smoothing,
    )
    return task_data.task(
        build(config.model.to_dict()),
        prepare,
        loss=losses.softmax_cross_entropy,
        metrics={"accuracy": metrics.top_accuracy(1)},
        collect=collect,
        whole_metrics={"mean_class_accuracy": metrics.mean_class_accuracy},
        per="cloud",
    )


def prepare_points(batch, key, *, num_classes, label_smoothing):
    """Adds `target` `[B, K]`, smoothed in training (with a `key`)."""
    smoothing = 0.0 if key is None else label_smoothing
    return batch | {"target": on_device.smooth_targets(batch["label"], num_classes, smoothing)}


def collect(logits, batch):
    """The class of each cloud, -1 where two are as likely, and its label."""
    guess = conditions.collect(logits, batch)["guess"]
    return {"prediction": guess, "label": batch["label"]}
