"""Predicting the next id of a sequence from all before it: a config to a `Task`.

The loss is at the latents: the last N places of what a training crop keeps. An evaluation scores
each id once: those at the end of a piece, or with `ar.stride` all of a sequence, in several passes.

Reference: Perceiver AR (Hawthorne et al. 2022), and its released code.
"""

import functools
from typing import Literal, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from experiments.tasks.ask import Writer
from experiments.tasks.data import Data, open_data
from experiments.tasks.writing import draw_reading, image_reading, writer
from perceiver_jax.ar import PerceiverAR, latent_places
from perceiver_jax.build import build
from perceiver_jax.config_types import ConfigError, NonNegative, Whole
from perceiver_jax.data import sequence_transforms, transforms
from perceiver_jax.train import loop
from perceiver_jax.train.task import Task


class AR(TypedDict):
    """The fields of `config.ar`."""

    z_loss: NonNegative  # times log(Z)^2 is added to the loss
    # Of evaluations, at most N: how far apart the ends of passes are, which together score all of a
    # sequence. 0 is one pass at its end.
    stride: Whole
    unit: Literal["byte", "dimension"]  # what an id stands for, in the names of metrics


class Config(loop.Config):
    """The fields of the config."""

    data: Data
    ar: AR


CROPS = ("crop_ids", "last_ids")


def check_sizes(config: Config) -> None:
    """Raises ConfigError where the windows of the data do not fit the model."""
    model, stride = config["model"], config["ar"]["stride"]
    if stride > model["num_latents"]:
        raise ConfigError(
            f"config.ar.stride={stride} is above config.model.num_latents={model['num_latents']}: "
            "some ids would never be scored"
        )
    for line in ("train", "eval"):
        steps = transforms.parse(config["data"][line]).steps
        for name, args, kwargs in steps:
            if name not in CROPS:
                continue
            length = args[0] if args else kwargs["length"]
            if length > model["max_length"] + 1:
                raise ConfigError(
                    f"config.data.{line} makes windows of {length} ids, but "
                    f"config.model.max_length={model['max_length']}: write at most "
                    f"{model['max_length'] + 1}, of which the last is only predicted"
                )


def make_task(config: ConfigDict) -> Task:
    """Builds the task; reads the data's headers."""
    task_data, section = open_data(config), config.ar
    model = build(config.model.to_dict())
    predict = functools.partial(score_all, model, section.stride) if section.stride else None
    return task_data.task(
        model,
        functools.partial(prepare_ids, num_latents=model.num_latents),
        loss=functools.partial(loss, z_loss=section.z_loss),
        metrics={
            "accuracy": functools.partial(mean_of, "right"),
            "nats": functools.partial(mean_of, "nats"),
            f"bits_per_{section.unit}": bits,
        },
        predict=predict,
        plots=functools.partial(draw, model, task_data, config),
    )


def ask(config: ConfigDict) -> Writer:
    """How the model of a run goes on with a text or an image."""
    return writer(config)


def prepare_ids(batch, key, *, num_latents: int):
    """uint16 `ids` of windows -> the inputs, what comes behind each, and where scoring begins.

    In training `weight` makes all scored ids of a batch weigh the same, whatever their sequence.
    """
    ids, count = batch["ids"].astype(jnp.int32), batch["num_ids"]
    length = jnp.maximum(count - 1, 0)
    first = jnp.maximum(count - batch["num_scored"] - 1, 0)
    made = {"ids": ids[:, :-1], "target": ids[:, 1:], "length": length, "first": first}
    if key is not None:
        scored = jnp.minimum(length - first, num_latents) * batch["mask"]
        weight = jnp.sum(batch["mask"]) / jnp.maximum(jnp.sum(scored), 1)
        made["weight"] = jnp.broadcast_to(weight, length.shape)
    return batch | made


def score(logits: jax.Array, batch, length: jax.Array | None = None) -> dict[str, jax.Array]:
    """How well latents predict: `nats`, `log_z`, `right` and `scored`, each `[B, N]`.

    Args:
      logits: `[B, N, V]`.
      batch: of `prepare_ids`.
      length: of the sequences, `[B]`; None is all of each.
    """
    places = latent_places(batch["length"] if length is None else length, logits.shape[1])
    target = jnp.take_along_axis(batch["target"], jnp.maximum(places, 0), axis=1)
    values = optax.softmax_cross_entropy_with_integer_labels(logits, target)
    right = jnp.argmax(logits, axis=-1) == target
    right &= ~jnp.isnan(jnp.max(logits, axis=-1))  # argmax treats NaN as the largest
    return {
        "nats": values,
        "log_z": jax.nn.logsumexp(logits, axis=-1),
        "right": right,
        "scored": places >= batch["first"][:, None],
    }


def score_all(model: PerceiverAR, stride: int, variables, batch) -> dict[str, jax.Array]:
    """`score` of all of each sequence, `[B, passes * stride]`, in passes of a model of N latents.

    Passes end `stride` places apart, so each id but the first ones has N - stride latents before
    its own.
    """
    passes = -(-batch["ids"].shape[1] // stride)

    def one(number):
        length = jnp.maximum(batch["length"] - number * stride, 0)
        logits = model.apply(variables, batch["ids"], length, method="logits")
        scores = score(logits, batch, length)
        scores["scored"] &= latent_places(length, logits.shape[1]) >= 0
        return {name: x[:, -stride:] for name, x in scores.items()}

    scores = jax.lax.map(one, jnp.arange(passes))
    return {name: jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1) for name, x in scores.items()}


def scores_of(prediction, batch) -> dict[str, jax.Array]:
    """The scores of logits; those of `score_all` are there already."""
    return prediction if isinstance(prediction, dict) else score(prediction, batch)


def loss(prediction, batch, *, z_loss: float) -> jax.Array:
    """Cross-entropy of the scored ids, in nats, plus `z_loss` log(Z)^2: a mean over them."""
    scores = scores_of(prediction, batch)
    values = scores["nats"] + z_loss * jnp.square(scores["log_z"])
    total = jnp.sum(jnp.where(scores["scored"], values, 0.0), axis=1)
    if "weight" in batch:
        return total * batch["weight"]
    return total / jnp.maximum(jnp.sum(scores["scored"], axis=1), 1)


def mean_of(name: str, prediction, batch) -> tuple[jax.Array, jax.Array]:
    """Sum and count of a score, over all scored ids of all examples."""
    scores = scores_of(prediction, batch)
    counted = scores["scored"] & batch["mask"][:, None]
    values = jnp.where(counted, scores[name].astype(jnp.float32), 0.0)
    return jnp.sum(values), jnp.sum(counted, dtype=jnp.float32)


def bits(prediction, batch) -> tuple[jax.Array, jax.Array]:
    """Mean cross-entropy of the scored ids, in bits."""
    total, count = mean_of("nats", prediction, batch)
    return total / jnp.log(2.0), count


def draw(model: PerceiverAR, task_data, config: ConfigDict, variables, num_examples: int):
    """The bytes before the last latents, what comes next, and what the model thinks likeliest.

    Of the first example also which places its last latents read.
    """
    batch = task_data.first_examples(num_examples)
    batch = prepare_ids(batch, None, num_latents=model.num_latents)
    logits = jax.jit(functools.partial(model.apply, train=False))(variables, batch)
    guesses = np.argmax(np.asarray(logits), axis=-1)
    rows = []
    for example, (ids, target, length, guess) in enumerate(
        zip(
            *map(np.asarray, (batch["ids"], batch["target"], batch["length"])), guesses, strict=True
        )
    ):
        count = min(len(guess), length)
        parts = {
            "before": ids[max(length - count - 60, 0) : length - count + 1],
            "next": target[length - count : length],
            "likeliest": guess[len(guess) - count :],
        }
        shown = {
            n: sequence_transforms.decode(x).decode(errors="replace") for n, x in parts.items()
        }
        rows.append({"example": example, **shown})
    count = int(batch["length"][0])
    ids = np.append(batch["ids"][0][:count], batch["target"][0][count - 1])
    reading = image_reading(config)
    figure = draw_reading(
        model, variables, ids, max(count + 1 - model.num_latents, 1), reading and reading[1]
    )
    return {"next": rows, "attention_cross_attend": figure}
