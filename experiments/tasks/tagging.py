"""Labels of clips with sound, several to each: a config to a `Task`. Composition only.

Training uses single clips. Evaluation averages the scores of a file's clips, with all modalities or
without those of `eval_hidden`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.tasks.ask import (
    Scores,
    class_names,
    clip_reading,
    evaluation_line,
    normalized,
    require_shapes,
)
from experiments.tasks.autoencode import (
    Hidden,
    check_modalities,
    classify_alone,
    describe_hidden,
    hide,
    require_classes,
)
from experiments.tasks.data import Normalized, open_data
from perceiver_jax import losses, metrics
from perceiver_jax.build import build
from perceiver_jax.data import on_device
from perceiver_jax.datasets.clips import read_part
from perceiver_jax.train import loop
from perceiver_jax.train.task import Task


class Config(loop.Config):
    """The fields of the config."""

    data: Normalized
    tagging: Hidden


def check_sizes(config: Config) -> None:
    """Raises ConfigError where a modality is named that the model does not have."""
    check_modalities(config, "tagging", config["tagging"])


def make_task(config: ConfigDict) -> Task:
    """Builds the task; reads the lists of the data and one example."""
    data, hidden = config.data, config.tagging.eval_hidden
    spec = config.model.to_dict()
    model = build(spec)
    num_classes = spec["output"]["num_classes"]
    task_data = open_data(config, num_classes=num_classes)
    require_classes(task_data.eval_source, num_classes, "config.model.output.num_classes")
    prepare = functools.partial(
        prepare_clips, num_classes=num_classes, mean=data.mean, std=data.std
    )
    return task_data.task(
        model,
        prepare,
        loss=losses.sigmoid_cross_entropy,
        metrics={},
        collect=collect,
        whole_metrics={"mean_average_precision": metrics.mean_average_precision},
        predict=functools.partial(hide(spec, hidden).apply, train=False),
        plots=functools.partial(draw, spec, prepare, task_data),
        about=(describe_hidden(hidden),),
        per="clip",
    )


def ask(config: ConfigDict) -> Scores:
    """How the model of a run answers a video file with its sound; needs no data."""
    data, spec = config.data, config.model.to_dict()
    prepare, example = evaluation_line(config, "video", "audio")
    model, reading = hide(spec, config.tagging.eval_hidden), clip_reading(config)
    options = data.source_options
    parts = options.get("clips_per_row", 1)

    def read(paths, part):
        lie = {"clips_per_row": parts, "row_seconds": options.get("row_seconds", 10.0)}
        video, audio = read_part(paths[0], 0.0, part, **lie, **reading)
        silence = np.zeros_like(example["audio"])
        given = {"video": video, "audio": silence if audio is None else audio}
        return require_shapes(prepare(given), example, data.eval)

    def logits(variables, batch):
        return model.apply(variables, normalized(config, "video", batch), train=False)

    return Scores(
        kinds=("video",),
        read=read,
        example=example,
        logits=logits,
        activation=jax.nn.sigmoid,
        names=class_names(config, spec["output"]["num_classes"]),
        parts=parts,
    )


def prepare_clips(batch, key, *, num_classes, mean, std):
    """uint8 `video` -> float, `labels` -> `target` `[B, num_classes]`; unreadable clips masked."""
    del key
    labels = batch["labels"]
    return batch | {
        "video": on_device.normalize(batch["video"], mean, std),
        "target": jnp.pad(labels, ((0, 0), (0, num_classes - labels.shape[1]))),
        "mask": batch["mask"] & batch["readable"],
    }


def collect(logits, batch):
    """The fields of each clip that mAP needs."""
    return {"score": jax.nn.sigmoid(logits), "target": batch["target"] > 0, "file": batch["row"]}


def draw(spec, prepare, task_data, variables, num_examples):
    """The first evaluation clips: their labels, and the five likeliest by what the model sees."""
    batch = task_data.first_examples(num_examples)
    classes = np.array(task_data.eval_source.classes)
    scores = classify_alone(spec, prepare, jax.nn.sigmoid, variables, batch)
    scores = {title: score[:, : len(classes)] for title, score in scores.items()}
    rows = []
    for i, (row, labels) in enumerate(zip(batch["row"], batch["labels"], strict=True)):
        line = {"file": task_data.eval_source.paths[row], "labels": "; ".join(classes[labels > 0])}
        for title, score in scores.items():
            best = np.argsort(-score[i], kind="stable")[:5]
            line[title] = "; ".join(f"{classes[k]} {score[i, k]:.2f}" for k in best)
        rows.append(line)
    return {"tags": rows}
