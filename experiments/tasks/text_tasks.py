"""Questions about a text or a pair of texts, of one task or several: a config to a `Task`.

Each example has the `task` that it belongs to (the source `mixture` gives it), and is answered by
that task's query: a class or a number. Metrics are of each part of the evaluation data by itself.

Reference: Perceiver IO (Jaegle et al. 2022), section 4.1, Table 2 and app. F.4.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from experiments.tasks.ask import TRUTH, Questions
from experiments.tasks.data import Data, open_data
from perceiver_jax import metrics
from perceiver_jax.build import build
from perceiver_jax.config_types import Ascending, ConfigError, Number
from perceiver_jax.data import text_transforms, transforms
from perceiver_jax.datasets import mixture
from perceiver_jax.modalities import text as text_modality
from perceiver_jax.train import loop
from perceiver_jax.train.task import Task


class TextTasks(TypedDict):
    """The fields of `config.text_tasks`."""

    # By task: the names of the classes, in the order of their numbers; () is a task that asks for a
    # number.
    classes: Mapping[str, tuple[str, ...]]
    # Of the labels that are numbers; the loss is on 0..1 in its place.
    number_range: Annotated[tuple[Number, Number], Ascending()]


class Config(loop.Config):
    """The fields of the config."""

    data: Data
    text_tasks: TextTasks


def check_sizes(config: Config) -> None:
    """Raises ConfigError where tasks, their classes, the data's parts and the model disagree."""
    classes, output = config["text_tasks"]["classes"], config["model"]["output"]
    sizes = {task: len(names) or 1 for task, names in classes.items()}
    if output.get("tasks") != sizes:
        raise ConfigError(
            f"config.model.output.tasks={output.get('tasks')}, but config.text_tasks.classes has "
            f"{sizes}: write the number of classes of each task, 1 of a number"
        )
    parts = config["data"]["source_options"].get("parts")
    if parts and mixture.task_names(parts) != sorted(sizes):
        raise ConfigError(
            f"{mixture.PARTS} has the tasks {mixture.task_names(parts)}, but "
            f"config.text_tasks.classes {sorted(sizes)}"
        )
    if not parts and len(sizes) > 1:
        raise ConfigError(
            f"config.data.source={config['data']['source']!r} is of one task, but "
            f"config.text_tasks.classes has {sorted(sizes)}: read them as a 'mixture'"
        )
    num_tasks = config["model"]["input"].get("num_tasks", 0)
    if num_tasks not in (0, len(sizes)):
        raise ConfigError(
            f"config.model.input.num_tasks={num_tasks}: write 0, or {len(sizes)} for the tasks of "
            "config.text_tasks.classes"
        )
    low, high = config["text_tasks"]["number_range"]
    if low == high:
        raise ConfigError(f"config.text_tasks.number_range={(low, high)} is empty")


def make_task(config: ConfigDict) -> Task:
    """Builds the task; reads the data's headers and one example."""
    section, sizes = config.text_tasks, config.model.output.tasks.to_dict()
    classes = {task: tuple(section.classes[task]) for task in sorted(sizes)}
    task_data = open_data(config, num_classes=tuple(sizes[task] for task in classes))
    check_label_names(task_data.eval_source, classes)
    model = build(config.model.to_dict())
    judge = Judge(tuple(not names for names in classes.values()), *section.number_range)
    return task_data.task(
        model,
        prepare_texts,
        loss=judge.loss,
        metrics=judge.metrics(),
        collect=judge.collect,
        whole_metrics=whole_metrics(task_data.eval_source, classes),
        plots=functools.partial(draw, model, task_data, judge, classes),
        about=("texts that are too long are cut at their ends; the metric `cut` is their share",),
    )


def ask(config: ConfigDict) -> Questions:
    """How the model of a run answers its questions about texts; needs no data."""
    section, line = config.text_tasks, transforms.parse(config.data.eval)
    classes = {task: tuple(section.classes[task]) for task in sorted(section.classes)}
    model = build(config.model.to_dict())
    judge = Judge(tuple(not names for names in classes.values()), *section.number_range)
    fields = next(args[1:] for name, args, _ in line.steps if name == "join_texts")
    counts = dict.fromkeys(classes, len(fields))
    for name, part in config.data.source_options.to_dict().get("parts", {}).items():
        if "fields" in part:  # those that are '' are not there
            counts[part.get("task", name)] = sum(map(bool, part["fields"].values()))

    def read(texts, number):
        task = list(classes)[number]
        if len(texts) != counts[task]:
            raise ValueError(
                f"the question {task!r} is about {counts[task]} texts, not {len(texts)}: write "
                f"--input='{'[SEP]'.join('AB'[: counts[task]])}'"
            )
        given = dict.fromkeys(fields) | dict(zip(fields, texts, strict=False))
        truth = TRUTH | {"task": np.int32(number), "part": np.int32(0)}
        example = line(truth | given, np.random.default_rng(0))
        kept = {name: example[name] for name in ("text", "text_mask", "marks")}
        return kept | {"task": np.int32(number)}

    def answer(variables, batch):
        batch = prepare_texts(batch, None)
        logits = model.apply(variables, batch, train=False)
        chances = jax.nn.softmax(logits[:, 0])
        return {"probability": chances, "number": judge.answer(logits, batch)}

    zeros = jax.tree.map(np.zeros_like, read(["a"] * next(iter(counts.values())), 0))
    return Questions(classes, read, zeros, answer)


def check_label_names(source: Any, classes: Mapping[str, Sequence[str]]) -> None:
    """Raises ConfigError where the data name the classes of a task in another order."""
    if isinstance(source, mixture.Mixture):
        tasks = [source.tasks[numbers["task"]] for numbers in source.numbers]
        sources = dict(zip(tasks, source.sources, strict=True))
    else:
        sources = {next(iter(classes)): source}
    for task, part in sources.items():
        found = tuple(getattr(part, "label_names", ()))
        if found and found != classes[task]:
            raise ConfigError(
                f"config.text_tasks.classes.{task}={classes[task]}, but the labels of {part!r} "
                f"are {found}"
            )


def prepare_texts(batch, key):
    """Bytes and marks -> ids; `indices`, the query of each example's task."""
    del key
    marks = batch["marks"]
    ids = batch["text"].astype(jnp.int32) + text_modality.NUM_RESERVED
    ids = jnp.where(marks == text_transforms.CLS, text_modality.CLS, ids)
    ids = jnp.where(marks == text_transforms.SEP, text_modality.SEP, ids)
    ids = jnp.where(batch["text_mask"], ids, text_modality.PAD)
    task = batch.get("task", jnp.zeros(ids.shape[0], jnp.int32))
    return batch | {"text": ids, "task": task, "indices": task[:, None]}


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


def draw(model, task_data, judge, classes, variables, num_examples):
    """Answers to the first evaluation examples, beside their labels."""
    batch = prepare_texts(task_data.first_examples(num_examples), None)
    prediction = jax.jit(functools.partial(model.apply, train=False))(variables, batch)
    answers = np.asarray(judge.answer(prediction, batch))
    rows = []
    for ids, task, label, answer in zip(
        np.asarray(batch["text"]), np.asarray(batch["task"]), batch["label"], answers, strict=True
    ):
        name = list(classes)[task]
        texts = np.split(ids, np.flatnonzero(ids == text_modality.SEP))
        shown = " | ".join(filter(None, map(text_modality.decode, texts)))
        words = {"task": name, "text": shown}
        for title, value in (("label", label), ("answer", answer)):
            names = classes[name]
            words[title] = names[int(value)] if names and value >= 0 else f"{value:.2f}"
        rows.append(words)
    return {"answers": rows}
