"""Classification of point clouds: a config to a `Task`. Composition only."""

import contextlib
import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.tasks.ask import TRUTH, Scores, class_names, evaluation_line, require_shapes
from experiments.tasks.data import Data, open_data
from perceiver_jax import conditions, files, losses, maps, metrics, plots
from perceiver_jax.build import build
from perceiver_jax.config_types import Rate
from perceiver_jax.data import on_device, transforms
from perceiver_jax.datasets.points import Options
from perceiver_jax.files.mesh import read_mesh, sample_surface
from perceiver_jax.perceiver import Perceiver
from perceiver_jax.train import loop
from perceiver_jax.train.task import Task

DRAWN = 3  # clouds whose attention is drawn, from three sides each


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
    model = build(config.model.to_dict())
    return task_data.task(
        model,
        prepare,
        loss=losses.softmax_cross_entropy,
        metrics={"accuracy": metrics.top_accuracy(1)},
        collect=collect,
        whole_metrics={"mean_class_accuracy": metrics.mean_class_accuracy},
        plots=functools.partial(draw, model, prepare, task_data),
        per="cloud",
    )


def ask(config: ConfigDict) -> Scores:
    """How the model of a run answers a mesh, from points of it, or a cloud; needs no data."""
    data, model = config.data, build(config.model.to_dict())
    options = data.source_options.to_dict()
    most, seed = np.max(options.get("num_points", Options.num_points)), options.get("seed", 0)
    _, kept, _ = transforms.parse(data.eval).steps[-1]
    fields = [field for field in kept if field not in TRUTH]
    prepare, example = evaluation_line(config, *fields)

    def read(paths, part=0):
        cloud = read_points(paths[0], int(most), seed)
        if missing := sorted({"normal"} & set(fields) - set(cloud)):
            raise ValueError(f"{paths[0]} has no {missing[0]}s, which the run reads: give a mesh")
        return require_shapes(prepare(cloud), example, data.eval)

    def logits(variables, batch):
        return model.apply(variables, batch, train=False)

    names = class_names(config, config.model.output.num_classes)
    return Scores(("mesh",), read, example, logits, names=names)


def read_points(path: str, count: int, seed: int) -> dict[str, np.ndarray]:
    """The points of a cloud, an .npy file `[n, 3]`, or `count` of a mesh with their normals.

    Raises:
      ValueError: the file cannot be read.
    """
    file = files.existing(path)
    if file.suffix.lower() != ".npy":
        rng = np.random.default_rng((seed, 0))  # as the first mesh of a set
        points, normal = sample_surface(read_mesh(file), count, rng)
        return {"points": points, "normal": normal}
    points = np.load(io.BytesIO(file.read_bytes()), allow_pickle=False)
    if points.ndim != 2 or points.shape[1] != 3 or points.dtype.kind not in "fiu":
        raise ValueError(f"{path} is {points.dtype} {list(points.shape)}, not points [n, 3]")
    if not len(points) or not np.isfinite(points).all():
        raise ValueError(f"{path} holds no points, or coordinates that are not finite")
    return {"points": points.astype(np.float32)}


def prepare_points(batch, key, *, num_classes, label_smoothing):
    """Adds `target` `[B, K]`, smoothed in training (with a `key`)."""
    smoothing = 0.0 if key is None else label_smoothing
    return batch | {"target": on_device.smooth_targets(batch["label"], num_classes, smoothing)}


def collect(logits, batch):
    """The class of each cloud, -1 where two are as likely, and its label."""
    guess = conditions.collect(logits, batch)["guess"]
    return {"prediction": guess, "label": batch["label"]}


def draw(model, prepare, task_data, variables, num_examples):
    """The first clouds with their predictions, the confusion of all, and where latents look."""
    batch = task_data.first_examples(num_examples)

    @jax.jit
    def classify(variables, batch):
        return model.apply(variables, prepare(batch, None), train=False)

    logits = jax.device_get(classify(variables, batch))
    names = getattr(task_data.eval_source, "classes", None) or map(str, range(logits.shape[1]))
    names = list(names)
    clouds = [
        points[present]
        for points, present in zip(batch["points"], batch["points_mask"], strict=True)
    ]
    images = np.stack([plots.cloud_image(points) for points in clouds])
    figures = {"predictions": plots.prediction_grid(images, logits, batch["label"], names)}
    labels, guesses = [], []
    with contextlib.closing(task_data.eval_data()) as batches:
        for part in batches:
            found = jax.device_get(collect(classify(variables, part), part))
            labels.append(found["label"][part["mask"]])
            guesses.append(found["prediction"][part["mask"]])
    figures["confusion"] = plots.confusion(np.concatenate(labels), np.concatenate(guesses), names)
    if not isinstance(model, Perceiver):
        return figures
    few = {name: x[:DRAWN] for name, x in batch.items()}

    @jax.jit
    def look(variables, batch):
        found = maps.attention_maps(model, variables, prepare(batch, None))
        return {name: jnp.mean(parts["input"], axis=1) for name, parts in found.items()}

    for name, weights in jax.device_get(look(variables, few)).items():
        shown = [x[:, there] for x, there in zip(weights, few["points_mask"], strict=True)]
        figures[f"attention_cloud_{name}"] = plots.cloud_attention(clouds[:DRAWN], shown)
    return figures
