"""Several labels of an image: a config to a `Task`. Composition only."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.tasks import image, tagging
from experiments.tasks.ask import Scores
from experiments.tasks.data import Normalized, open_data
from perceiver_jax import losses, metrics
from perceiver_jax.build import build
from perceiver_jax.data import on_device
from perceiver_jax.train import loop
from perceiver_jax.train.task import Task


class Config(loop.Config):
    """The fields of the config."""

    data: Normalized


def make_task(config: ConfigDict) -> Task:
    """Builds the task; reads the lists of the data and one example."""
    data = config.data
    task_data = open_data(config)
    model = build(config.model.to_dict())
    num_classes = config.model.output.num_classes
    prepare = functools.partial(
        prepare_images, num_classes=num_classes, mean=data.mean, std=data.std
    )
    return task_data.task(
        model,
        prepare,
        loss=losses.sigmoid_cross_entropy,
        metrics={},
        collect=tagging.collect,
        whole_metrics={"mean_average_precision": metrics.mean_average_precision},
        plots=functools.partial(draw, model, prepare, task_data),
    )


def ask(config: ConfigDict) -> Scores:
    """How the model of a run answers an image; needs no data."""
    return dataclasses.replace(image.ask(config), activation=jax.nn.sigmoid)


def prepare_images(batch, key, *, num_classes, mean, std):
    """uint8 `image` -> float32, `labels` -> `target` `[B, num_classes]`; unreadable ones masked."""
    del key
    labels = batch["labels"]
    return image.mask_unreadable(batch) | {
        "image": on_device.normalize(batch["image"], mean, std),
        "target": jnp.pad(labels, ((0, 0), (0, num_classes - labels.shape[1]))),
    }


def draw(model, prepare, task_data, variables, num_examples):
    """Where each cross-attend looks, and a table of images with their labels and the likeliest."""
    batch = task_data.first_examples(num_examples)
    logits, seen, tokens = image.look(model, prepare, variables, batch)
    figures = image.attention_figures(image.pixels(batch["image"]), seen, tokens)
    return figures | {"tags": table(task_data.eval_source, batch, logits)}


def table(source, batch, logits):
    """A row for each image of a batch: its file, its labels, and the five likeliest."""
    classes = np.array(source.classes)
    rows = []
    scores = np.asarray(jax.nn.sigmoid(logits))[:, : len(classes)]
    for row, labels, score in zip(batch["row"], batch["labels"], scores, strict=True):
        best = np.argsort(-score, kind="stable")[:5]
        rows.append(
            {
                "file": source.paths[row],
                "labels": "; ".join(classes[labels > 0]),
                "predicted": "; ".join(f"{classes[k]} {score[k]:.2f}" for k in best),
            }
        )
    return rows
