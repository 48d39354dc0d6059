"""The loss and the metrics of answers to questions about texts, classes or numbers.

Reference: Perceiver IO (Jaegle et al. 2022), app. F.4.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from perceiver_jax import metrics
from perceiver_jax.datasets import mixture


class Judge:
    """The loss and the metrics of answers `[B, 1, K]`.

    Args:
      numbers: of each task, whether it asks for a number.
      low, high: the range of the numbers.
    """

    def __init__(self, numbers: Sequence[bool], low: float, high: float):
        self.numbers, self.low, self.high = np.array(numbers), low, high

    def asks_number(self, batch) -> jax.Array:
        """Whether each example `[B]` is to be answered by a number."""
        return jnp.asarray(self.numbers)[batch["task"]]

    def loss(self, prediction, batch) -> jax.Array:
        """Cross-entropy of classes, in nats; the squared error of numbers, scaled to 0..1."""
        answers, label, is_number = prediction[:, 0], batch["label"], self.asks_number(batch)
        label_class = jnp.where(is_number, 0, label).astype(jnp.int32)
        nats = optax.softmax_cross_entropy_with_integer_labels(answers, label_class)
        target = (label.astype(jnp.float32) - self.low) / (self.high - self.low)
        return jnp.where(is_number, jnp.square(answers[:, 0] - target), nats)

    def metrics(self):
        """Means over examples: those cut, and the accuracy over all tasks that ask for a class."""
        cut = {"cut": lambda _, batch: metrics.masked_sum(batch["cut"].astype(jnp.float32), batch)}
        return cut if self.numbers.all() else {"accuracy": self.accuracy, **cut}

    def accuracy(self, prediction, batch):
        """Share of the classes that are right."""
        right = self.answer(prediction, batch) == batch["label"].astype(jnp.float32)
        counted = batch["mask"] & ~self.asks_number(batch)
        return metrics.masked_sum(right.astype(jnp.float32), {"mask": counted})

    def answer(self, prediction, batch) -> jax.Array:
        """float32 `[B]`: the number, or that of the likeliest class; -1 where it is NaN."""
        answers = prediction[:, 0]
        number = answers[:, 0] * (self.high - self.low) + self.low
        likeliest = jnp.where(jnp.isnan(answers).any(1), -1, jnp.argmax(answers, axis=1))
        return jnp.where(self.asks_number(batch), number, likeliest.astype(jnp.float32))

    def collect(self, prediction, batch):
        """What the metrics of a whole evaluation need."""
        return {
            "prediction": self.answer(prediction, batch),
            "label": batch["label"].astype(jnp.float32),
            "part": batch.get("part", batch["task"]),
        }


def whole_metrics(source: Any, classes: Mapping[str, Sequence[str]]):
    """The metrics of each part of the evaluation, and the paper's average where all are there."""
    if not isinstance(source, mixture.Mixture):
        if len(classes) > 1:  # fake data tell no parts
            return {}
        found = scores(*classes.values())
        found.pop("accuracy", None)  # a mean over examples, among the task's `metrics`
        return found
    result = {}
    for name, numbers in zip(source.parts, source.numbers, strict=True):
        task = source.tasks[numbers["task"]]
        for metric, function in scores(classes[task]).items():
            result[f"{name}_{metric}"] = functools.partial(of_part, function, int(numbers["part"]))
    if metrics.GLUE.keys() <= set(source.parts):

        def glue_average(collected):
            found = {p: result[f"{p}_{metric}"](collected) for p, metric in metrics.GLUE.items()}
            return metrics.glue_average(found)

        return result | {"glue_average": glue_average}
    return result


def scores(classes: Sequence[str]):
    """The metrics of a task with these classes, by name; of one that asks for a number."""
    if not classes:
        return {"pearson": metrics.pearson, "spearman": metrics.spearman}
    found = {"accuracy": metrics.accuracy}
    if len(classes) == 2:
        found |= {"f1": metrics.f1, "matthews": metrics.matthews}
    return found


def of_part(metric, part: int, collected) -> float:
    """A metric of the examples of one part; nan without any."""
    rows = collected["part"] == part
    if not rows.any():
        return float("nan")
    return metric({name: values[rows] for name, values in collected.items()})
