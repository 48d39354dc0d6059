"""Questions about sets of entities: a config to a `Task`. Composition only.

Each entity names another one (`named`), or the set has one answer (`label`), a number or a slot.
"""

import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.tasks.ask import Scores, evaluation_line, require_shapes
from experiments.tasks.data import Data, open_data
from perceiver_jax import files, losses, maps, metrics, plots
from perceiver_jax.build import build
from perceiver_jax.config_types import ConfigError
from perceiver_jax.train import loop
from perceiver_jax.train.task import Task

DRAWN = 8  # sets


class Config(loop.Config):
    """The fields of the config."""

    data: Data


def make_task(config: ConfigDict) -> Task:
    """Builds the task; reads one example."""
    num_classes = config.model.output.get("num_outputs")  # None: the answer is a slot
    task_data = open_data(config, num_classes=num_classes)
    model = build(config.model.to_dict())
    prepare = functools.partial(prepare_sets, num_classes=num_classes)
    loss, accuracy = losses.softmax_cross_entropy, metrics.top_accuracy(1)
    if asks_entities(config):
        loss, accuracy = losses.entity_cross_entropy, metrics.entity_accuracy
    return task_data.task(
        model,
        prepare,
        loss=loss,
        metrics={"accuracy": accuracy},
        plots=functools.partial(draw, model, prepare, task_data),
        per="set",
    )


def asks_entities(config: ConfigDict) -> bool:
    """Whether each entity has an answer of its own."""
    return config.model.output.module == "entities.Pointers"


def ask(config: ConfigDict) -> Scores:
    """How the model of a run answers about a set, an .npy file `[n, C]`; needs no data.

    Raises:
      ConfigError: each entity has an answer.
    """
    if asks_entities(config):
        raise ConfigError(
            "config.model.output.module='entities.Pointers' answers for each entity, and predict "
            "has one answer for each file"
        )
    model = build(config.model.to_dict())
    prepare, example = evaluation_line(config, "entities", "entities_mask")
    most, channels = example["entities"].shape

    def read(paths, part=0):
        entities = np.load(io.BytesIO(files.existing(paths[0]).read_bytes()), allow_pickle=False)
        shape = list(entities.shape)
        if entities.ndim != 2 or shape[1] != channels or not 0 < shape[0] <= most:
            raise ValueError(f"{paths[0]} is {shape}, not entities [1 to {most}, {channels}]")
        padded = np.zeros_like(example["entities"])
        padded[: len(entities)] = entities
        given = {"entities": padded, "entities_mask": np.arange(most) < len(entities)}
        return require_shapes(prepare(given), example, config.data.eval)

    def logits(variables, batch):
        return model.apply(variables, batch, train=False)

    return Scores(("set",), read, example, logits)


def prepare_sets(batch, key, *, num_classes):
    """Adds `target` `[B, K]` of sets with one answer; K is M where that is a slot."""
    del key
    if "named" in batch:
        return batch
    size = num_classes or batch["entities"].shape[1]
    return batch | {"target": jax.nn.one_hot(batch["label"], size)}


def draw(model, prepare, task_data, variables, num_examples):
    """The first sets: what each entity names, and what it attends to, at its first two features."""
    batch = task_data.first_examples(min(num_examples, DRAWN))

    @jax.jit
    def run(variables, batch):
        batch = prepare(batch, None)
        logits = model.apply(variables, batch, train=False)
        return jnp.argmax(logits, axis=-1), maps.attention_of_queries(model, variables, batch)

    guess, weights = jax.device_get(run(variables, batch))
    sets = batch["entities"][..., :2], batch["entities_mask"]
    figures = {}
    if "named" in batch:
        figures["predictions"] = plots.named_entities(*sets, guess, batch["named"])
        titles = [f"set {i}" for i in range(len(guess))]
    else:
        titles = [f"guess {g}, is {k}" for g, k in zip(guess, batch["label"], strict=True)]
    few = np.s_[:4]
    attention = plots.entity_attention(*(x[few] for x in (*sets, weights)), titles[few])
    return figures | {"attention_entities": attention}
