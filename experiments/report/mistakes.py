"""One pass over the evaluation: its worst examples, and what it scores without a model."""

import contextlib
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from perceiver_jax.train.step import divide
from perceiver_jax.train.task import Task


class Mistake(NamedTuple):
    """An example as it was read, without a batch axis, what was predicted of it, and its loss."""

    loss: float
    example: Mapping[str, np.ndarray]
    prediction: Any


class Baseline(NamedTuple):
    """What a metric is without a model, and of which answer."""

    value: float
    answer: str


class Examined(NamedTuple):
    """How many examples were seen, the worst of them first, and baselines by metric."""

    count: int
    worst: list[Mistake]
    baselines: dict[str, list[Baseline]]


def examine(task: Task, variables: Any, *, most: int, keep: int) -> Examined:
    """Evaluates the first examples, at least `most` where there are as many; keeps the worst."""
    worst, sums, labels, count = [], {}, Counter(), 0
    tags, letters = [], Counter()

    @jax.jit
    def run(variables, batch):
        prepared = task.prepare(batch, None)
        predict = task.predict or (lambda v, b: task.model.apply(v, b, train=False))
        prediction = predict(variables, prepared)
        zeros = jax.tree.map(jnp.zeros_like, prediction)
        zeros = jax.lax.optimization_barrier(zeros)  # or the compiler folds all that follows
        mask = prepared["mask"]
        nothing = {name: metric(zeros, prepared) for name, metric in task.metrics.items()}
        nothing["loss"] = jnp.sum(jnp.where(mask, task.loss(zeros, prepared), 0)), jnp.sum(mask)
        return prediction, task.loss(prediction, prepared), mask, nothing

    with contextlib.closing(task.eval_data()) as batches:
        for batch in batches:
            prediction, loss, mask, nothing = jax.device_get(run(variables, batch))
            for name, pair in nothing.items():
                sums[name] = np.add(sums.get(name, 0.0), pair, dtype=np.float64)
            rows = np.flatnonzero(mask)
            count += len(rows)
            if "label" in batch:
                labels.update(batch["label"][rows].tolist())
            elif "hidden" in batch:
                hidden = batch["text"][rows][batch["hidden"][rows]]
                letters.update(bytes([byte]) for byte in hidden.tolist())
            if "labels" in batch:
                tags.append(batch["labels"][rows] > 0)
            for i in rows[np.argsort(-loss[rows], kind="stable")][:keep]:
                example = {name: np.array(x[i]) for name, x in batch.items()}
                row = jax.tree.map(lambda x, i=i: np.array(x[i]), prediction)
                worst.append(Mistake(float(loss[i]), example, row))
            worst = sorted(worst, key=lambda mistake: -mistake.loss)[:keep]
            if count >= most:
                break
    return Examined(count, worst, _baselines(divide(sums), labels, letters, tags, task))


def _baselines(zeros, labels, letters, tags, task: Task) -> dict[str, list[Baseline]]:
    """Of each metric: an output of zeros; of accuracies chance and the commonest answer."""
    result = {name: [Baseline(value, "all outputs zero")] for name, value in zeros.items()}
    if labels and "accuracy" in result:
        classes = max(_classes(task), len(labels))
        (label, times), total = labels.most_common(1)[0], labels.total()
        result["accuracy"] = [
            Baseline(1 / classes, f"chance, {classes} classes"),
            Baseline(times / total, f"always the commonest class, {label}"),
        ]
        five = sum(times for _, times in labels.most_common(5)) / total
        if "top5" in result:
            result["top5"] = [Baseline(five, "always the five commonest classes")]
    if letters and "accuracy" in result:
        (letter, times) = letters.most_common(1)[0]
        share = times / letters.total()
        result["accuracy"] = [Baseline(share, f"always the commonest byte, {letter!r}")]
    if tags and "mean_average_precision" in task.whole_metrics:
        share = np.concatenate(tags).mean(axis=0)
        mean = float(share[share > 0].mean()) if share.any() else 0.0
        result["mean_average_precision"] = [Baseline(mean, "tags in random order")]
    return result


def _classes(task: Task) -> int:
    """How many classes the model tells apart; 0 if it does not say."""
    output = getattr(task.model, "output", None)
    output = getattr(output, "modalities", {"label": output}).get("label")
    return getattr(output, "num_classes", 0)
