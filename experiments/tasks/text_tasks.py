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
from ml_collections import ConfigDict

from experiments.tasks.ask import TRUTH, Questions
from experiments.tasks.data import Data, open_data
from experiments.tasks.judge import Judge, whole_metrics
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

    # A text that every line reads, also one that asks for the word in the place of "_".
    zeros = jax.tree.map(np.zeros_like, read(["_"] * next(iter(counts.values())), 0))
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
