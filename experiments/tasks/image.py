"""Classification of images, or of pairs of views: a config to a `Task`. Composition only."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.tasks.ask import (
    Scores,
    class_names,
    evaluation_line,
    normalized,
    read_pixels,
    require_shapes,
    stack_pair,
)
from experiments.tasks.data import Mixed, open_data
from perceiver_jax import conditions, losses, maps, metrics, plots
from perceiver_jax.build import build
from perceiver_jax.data import on_device, transforms
from perceiver_jax.groups import Groups
from perceiver_jax.perceiver import Perceiver
from perceiver_jax.train import loop
from perceiver_jax.train.task import Task


class Config(loop.Config):
    """The fields of the config."""

    data: Mixed


def make_task(config: ConfigDict) -> Task:
    """Builds the task; reads the data's headers, and all of it where it is kept in memory."""
    data = config.data
    partners = bool(data.mix_alpha) and fresh_partners(data)
    task_data = open_data(config, num_classes=config.model.output.num_classes, partners=partners)
    num_classes = config.model.output.num_classes  # set by the data where it was None
    model = build(config.model.to_dict())
    groups, predict, scores = group_classes(config, task_data.eval_source), None, lambda x: x
    if groups:
        num_classes, scores = groups.num_scores(num_classes), groups.scores

        def predict(variables, batch):
            return scores(model.apply(variables, batch, train=False))

    prepare = functools.partial(
        prepare_images,
        num_classes=num_classes,
        mean=data.mean,
        std=data.std,
        label_smoothing=data.label_smoothing,
        mix_alpha=data.mix_alpha,
    )
    return task_data.task(
        model,
        prepare,
        loss=losses.softmax_cross_entropy,
        metrics={"accuracy": metrics.top_accuracy(1), "top5": metrics.top_accuracy(5)},
        predict=predict,
        plots=functools.partial(draw, model, prepare, task_data, scores),
        **compare_conditions(task_data.eval_source, data.eval, num_classes),
    )


def ask(config: ConfigDict) -> Scores:
    """How the model of a run answers an image, or a pair of views; needs no data."""
    data, model = config.data, build(config.model.to_dict())
    _, kept, _ = transforms.parse(data.eval).steps[-1]
    pair = "frames" in kept
    field, channels = ("frames", 3) if pair else ("image", len(data.mean))
    prepare, example = evaluation_line(config, field)

    def read(paths, part=0):
        images = [read_pixels(path, channels) for path in paths]
        given = {field: stack_pair(*images) if pair else images[0]}
        return require_shapes(prepare(given), example, data.eval)

    def logits(variables, batch):
        return model.apply(variables, normalized(config, field, batch), train=False)

    return Scores(
        kinds=("left image", "right image") if pair else ("image",),
        read=read,
        example=example,
        logits=logits,
        names=class_names(config, config.model.output.num_classes),
    )


def group_classes(config: ConfigDict, source) -> Groups | None:
    """The groups in which a model's classes are asked for, if a source needs any.

    Raises:
      ValueError: the model has other classes, or is to be trained on the groups.
    """
    groups, num_classes = getattr(source, "groups", None), config.model.output.num_classes
    if groups is None or len(groups.members) == num_classes:
        return None
    groups.check(num_classes)
    if config.data.train_split:
        raise ValueError(
            f"config.data.train_split={config.data.train_split!r}: {source!r} has "
            f"{len(groups.members)} classes and the model {num_classes}, so it can only be "
            "evaluated: write train_split=''"
        )
    return groups


def compare_conditions(source, line: str, num_classes: int) -> dict[str, Any]:
    """The fields of a `Task` that count apart the conditions of a source, if it has any."""
    found = getattr(source, "conditions", None)
    if found is None:
        return {}
    _, kept, _ = transforms.parse(line).steps[-1]
    if missing := sorted(found.fields - set(kept)):
        raise ValueError(
            f"config.data.eval={line!r} keeps no {missing}, which the conditions "
            f"{list(found.names)} of {source!r} need: write them into keep(...)"
        )
    return {"collect": conditions.collect, "whole_metrics": found.metrics(num_classes)}


def fresh_partners(data: ConfigDict) -> bool:
    """Whether training reads a partner for each image; configs without the field do not."""
    return data.get("mix_partner", "batch") == "fresh"


def prepare_images(batch, key, *, num_classes, mean, std, label_smoothing, mix_alpha):
    """uint8 `image`, or `frames` of a pair, and labels -> float32 and `target` `[B, K]`.

    Smoothing and mixing only in training (with a `key`): evaluation reports the plain loss. Images
    that are not `readable` are masked, where the source tells.
    """
    batch = mask_unreadable(batch)
    field = "frames" if "frames" in batch else "image"
    image = on_device.normalize(batch[field], mean, std)
    if key is None:
        return batch | {field: image, "target": targets(batch, num_classes)}
    target = targets(batch, num_classes, label_smoothing)
    if mix_alpha:
        if field == "frames":
            raise ValueError("config.data.mix_alpha mixes images; write 0.0 for pairs of views")
        partner = None
        if "partner_image" in batch:
            partner = (
                on_device.normalize(batch["partner_image"], mean, std),
                targets(batch, num_classes, label_smoothing, of="partner_"),
            )
            batch = {name: x for name, x in batch.items() if not name.startswith("partner_")}
        image, target = on_device.mix(image, target, key, mix_alpha, partner)
    return batch | {field: image, "target": target}


def targets(batch, num_classes, smoothing=0.0, *, of=""):
    """Targets `[B, K]` of `label` `[B]`, or of several labels each, `label_ids` `[B, L]`."""
    if f"{of}label_ids" in batch:
        return on_device.several_targets(batch[f"{of}label_ids"], num_classes, smoothing)
    return on_device.smooth_targets(batch[f"{of}label"], num_classes, smoothing)


def mask_unreadable(batch):
    """The batch whose `mask` leaves out what is not `readable`, if it has that field."""
    if "readable" not in batch:
        return batch
    return batch | {"mask": batch["mask"] & batch["readable"]}


def draw(model, prepare, task_data, scores, variables, num_examples):
    """Predictions for the first evaluation examples, and where a Perceiver's cross-attends look.

    For pairs it shows both views, and the attention to the left one.
    """
    batch = task_data.first_examples(num_examples)
    logits, seen, tokens = look(model, prepare, variables, batch)
    images = shown = pixels(batch["image"] if "image" in batch else batch["frames"][:, 0])
    if "frames" in batch:
        shown = np.concatenate([images, batch["frames"][:, 1]], axis=2)
    names = getattr(task_data.eval_source, "classes", None)
    logits = scores(logits)
    label = batch["label_ids"][:, 0] if "label_ids" in batch else batch["label"]
    figures = {"predictions": plots.prediction_grid(shown, logits, label, names)}
    return figures | attention_figures(images, seen, tokens)


def look(model, prepare, variables, batch):
    """The logits of a batch, the attention weights of each cross-attend, and the tokens."""

    @jax.jit
    def run(variables, batch):
        batch = prepare(batch, None)
        if not isinstance(model, Perceiver):
            return model.apply(variables, batch, train=False), {}, None
        logits, seen = model.apply(variables, batch, train=False, mutable=["intermediates"])
        tokens = model.apply(variables, batch, method=lambda m, b: m.input(b, train=False))
        return logits, seen["intermediates"]["encoder"], tokens

    return run(variables, batch)


def pixels(images):
    """Images as uint8, to show them: `resize_tf` overshoots."""
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)


def attention_figures(images, seen, tokens):
    """A figure for each cross-attend of what `look` gives: where its latents look, six images."""
    figures = {}
    for name, cross in seen.items():
        found = to_grid(cross["attention"]["weights"][-1], tokens, images.shape[1:3])
        figures[f"attention_{name}"] = plots.attention_maps(images[:6], found[:6])
    return figures


def to_grid(weights, tokens, image_shape):
    """Attention weights `[B, H, N, M]`, by token -> the mean over heads `[B, N, h, w]`, by place.

    A learned table has no grid of its own: its tokens are the image's pixels.
    """
    found = np.asarray(maps.on_grid(jnp.mean(weights, axis=1), tokens))
    return found if found.ndim == 4 else found.reshape(*found.shape[:2], *image_shape)
