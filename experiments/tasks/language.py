"""Masked language modelling on bytes: a config to a `Task`. Composition only."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.tasks.ask import Text
from experiments.tasks.data import Data, open_data
from perceiver_jax import losses, metrics
from perceiver_jax.build import build
from perceiver_jax.inference.text import likeliest
from perceiver_jax.modalities import text as text_modality
from perceiver_jax.train import loop
from perceiver_jax.train.task import Task


class Config(loop.Config):
    """The fields of the config."""

    data: Data


def make_task(config: ConfigDict) -> Task:
    """Builds the task; reads the data's headers."""
    task_data = open_data(config)
    model = build(config.model.to_dict())
    return task_data.task(
        model,
        prepare_text,
        loss=losses.hidden_cross_entropy,
        metrics={"accuracy": metrics.hidden_accuracy, "bits_per_byte": metrics.bits_per_byte},
        plots=functools.partial(draw, model, task_data),
    )


def ask(config: ConfigDict) -> Text:
    """How the model of a run answers a text in which [MASK] stands for hidden bytes."""
    return Text(build(config.model.to_dict()))


def prepare_text(batch, key):
    """uint8 `text` -> ids, MASK where `hidden`, and the original ids as `target`; on the device.

    Where `indices` `[B, n]` are the bytes asked for, `target` and `hidden` are of those alone.
    """
    del key  # the host draws which words are hidden
    ids = batch["text"].astype(jnp.int32) + text_modality.NUM_RESERVED
    ids = jnp.where(batch["text_mask"], ids, text_modality.PAD)
    masked = jnp.where(batch["hidden"], text_modality.MASK, ids)
    asked = {"target": ids, "hidden": batch["hidden"]}
    if "indices" in batch:
        asked = {
            name: jnp.take_along_axis(values, batch["indices"], axis=1)
            for name, values in asked.items()
        }
    return batch | asked | {"text": masked}


def draw(model, task_data, variables, num_examples):
    """Predictions for the first evaluation examples: a row for every run of hidden bytes."""
    batch = prepare_text(task_data.first_examples(num_examples), None)
    logits = jax.jit(functools.partial(model.apply, train=False))(variables, batch)
    guess = likeliest(np.asarray(logits))
    rows = []
    for example, (ids, hidden) in enumerate(
        zip(*map(np.asarray, (batch["target"], batch["hidden"])), strict=True)
    ):
        edges = np.flatnonzero(np.diff(hidden, prepend=False, append=False)).reshape(-1, 2)
        shown = np.where(hidden, text_modality.encode("_")[0], ids)
        for start, stop in edges:
            parts = {
                "before": shown[max(start - 60, 0) : start],
                "hidden": ids[start:stop],
                "filled": guess[example, start:stop],
                "after": shown[stop : stop + 30],
            }
            text = {name: text_modality.decode(part) for name, part in parts.items()}
            rows.append({"example": example, **text})
    return {"filled": rows}
