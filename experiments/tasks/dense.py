"""A value for every pixel of a pair, flow or disparity: a config to a `Task`. Composition only.

Training decodes a random part of the pixels of random windows of the model's size. Evaluation
decodes all pixels of whole images, in tiles where they are larger than the model's size.
"""

import functools
from typing import Annotated, NotRequired, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.tasks import matching, psychometric
from experiments.tasks.ask import PAIRING, Field, read_pixels, stack_pair
from experiments.tasks.data import Data, open_data
from perceiver_jax import flops, losses, metrics, plots
from perceiver_jax.build import build
from perceiver_jax.config_types import ConfigError, NonNegative, Positive, Range, Whole
from perceiver_jax.data import pair_transforms, transforms
from perceiver_jax.datasets import registry
from perceiver_jax.inference import tiles
from perceiver_jax.inference.chunks import in_chunks
from perceiver_jax.train import loop
from perceiver_jax.train.task import Task

PSYCHOMETRIC = 256  # stereograms of each kind


class Dense(TypedDict):
    """The fields of `config.dense`: how training and evaluation decode pixels."""

    num_queries: Annotated[int, Range(0, 2**24)]  # pixels decoded per example and step; 0 is all
    loss_epsilon: NonNegative  # pixels, of losses.robust_field
    loss_power: Positive  # of losses.robust_field
    min_overlap: Whole  # pixels that neighbouring tiles of an evaluation share
    chunk_size: Whole  # queries decoded at once in an evaluation; 0 is a whole tile
    # An evaluation shrinks images by this factor and enlarges what is predicted: for displacements
    # that are larger than those of the training. Runs of older versions lack it, which is 1.
    shrink: NotRequired[Annotated[int, Range(1, 64)]]


class Config(loop.Config):
    """The fields of the config."""

    data: Data
    dense: Dense


def check_sizes(config: Config) -> None:
    """Raises ConfigError where queries or overlap are more than the model's window has."""
    dense, (height, width) = config["dense"], config["model"]["output"]["shape"]
    for field, most in (("num_queries", height * width), ("min_overlap", min(height, width) - 1)):
        if dense[field] > most:
            raise ConfigError(
                f"config.dense.{field}={dense[field]} is not allowed: write at most {most}, for "
                f"config.model.output.shape={(height, width)}"
            )


def make_task(config: ConfigDict) -> Task:
    """Builds the task; lists the data's files, and reads all of them if kept in memory."""
    task_data, dense = open_data(config), config.dense
    model = build(config.model.to_dict())
    tile = tuple(config.model.output.shape)
    prepare = functools.partial(prepare_pairs, tile=tile, num_queries=dense.num_queries)
    shrink = dense.get("shrink", 1)
    predict = functools.partial(
        predict_whole,
        model,
        min_overlap=dense.min_overlap,
        chunk_size=dense.chunk_size,
        shrink=shrink,
    )
    example = task_data.first_examples(1)
    seen = jax.eval_shape(lambda batch: prepare(batch, None), example)
    if dense.num_queries:
        seen["indices"] = jax.ShapeDtypeStruct((1, dense.num_queries), jnp.int32)
    size = flops.textbook(model, seen)
    full = example["frames"].shape[2:4]
    if any(side % shrink for side in full):
        raise ConfigError(
            f"config.dense.shrink={shrink} does not divide the {full} pixels of evaluation images: "
            "let config.data.eval fill them up with pad_pair"
        )
    starts = [
        tiles.tile_starts(side // shrink, edge, dense.min_overlap)
        for side, edge in zip(full, tile, strict=True)
    ]
    return task_data.sized_task(
        model,
        prepare,
        example,
        size,
        predict=predict,
        loss=losses.robust_field(epsilon=dense.loss_epsilon, power=dense.loss_power),
        metrics=field_metrics(
            channels=example["field"].shape[-1],
            with_occlusions=all(
                "occluded" in line for line in (config.data.train, config.data.eval)
            ),
            with_invalid="known" in example,
        ),
        plots=functools.partial(draw, config, prepare, predict, task_data),
        about=(
            f"{size / 1e9:.3g} GFLOP per training example (forward, textbook), "
            f"{len(starts[0]) * len(starts[1])} tiles in a whole image",
        ),
    )


def ask(config: ConfigDict) -> Field:
    """How the model of a run answers two images, as its evaluation does; needs no data.

    The evaluation pads images by their border pixels to one size. Here only those smaller than the
    model's window are padded, and images may be of any size.
    """
    model = build(config.model.to_dict())
    line = transforms.parse(config.data.eval).without(*PAIRING, "pad_pair")
    flow, shrink = model.output.components == 2, config.dense.get("shrink", 1)

    def read(paths):
        frames = stack_pair(*(read_pixels(path) for path in paths))
        known = np.ones(frames.shape[1:3], bool)
        truth = {
            "field": np.zeros((*known.shape, model.output.components), np.float32),
            "valid": known,
            "occluded": ~known,
            "known": known,
            "size": np.array(known.shape, np.int32),
        }
        frames = line({"frames": frames} | truth, np.random.default_rng(0))["frames"]
        size = frames.shape[1:3]
        window = np.maximum(-(-np.array(size) // shrink), model.output.shape) * shrink
        frames = pair_transforms.pad_pair({"frames": frames}, None, *window)["frames"]
        if shrink > 1:
            frames = np.uint8(np.rint(tiles.shrink(frames.astype(np.float32), shrink)))
        return frames, size

    return Field(
        model=model,
        kinds=("first image", "second image") if flow else ("left image", "right image"),
        read=read,
        min_overlap=config.dense.min_overlap,
        shrink=shrink,
    )


def prepare_pairs(batch, key, *, tile, num_queries):
    """uint8 `frames` -> float32 in [-1, 1], on the device.

    In training (with a `key`) `num_queries` pixels of each example are chosen, valid ones first,
    none twice (0: all pixels in order): `indices` `[B, n]`, and `field`, `valid` and `occluded` are
    those of the chosen pixels. In evaluation `whole` holds the images and `frames` their first
    tile, which has the model's size.
    """
    frames = batch["frames"].astype(jnp.float32) / 127.5 - 1
    full = frames.shape[2:4]
    if key is None:
        size = jnp.broadcast_to(jnp.array(full, jnp.int32), (frames.shape[0], 2))
        window = frames[:, :, : tile[0], : tile[1]]
        return {"size": size} | batch | {"frames": window, "whole": frames}
    if full != tile:
        raise ValueError(
            f"training reads windows of config.model.output.shape={tile}, not of {full}: let "
            f"config.data.train cut them with crop_pair{tile}"
        )
    batch = batch | {"frames": frames}
    if not num_queries:
        return batch
    valid = batch["valid"].reshape(frames.shape[0], -1)  # [B, H W]
    _, indices = jax.lax.top_k(valid + jax.random.uniform(key, valid.shape), num_queries)
    chosen = {
        name: jnp.take_along_axis(batch[name].reshape(*valid.shape), indices, axis=1)
        for name in ("valid", "occluded")
        if name in batch
    }
    field = batch["field"].reshape(*valid.shape, -1)
    field = jnp.take_along_axis(field, indices[..., None], axis=1)  # [B, n, C]
    return batch | chosen | {"field": field, "indices": indices}


def predict_whole(model, variables, batch, *, min_overlap, chunk_size, shrink=1):
    """The field of whole images `[B, H, W, C]`; `chunk_size` 0 decodes all of a tile at once."""
    whole, size = batch["whole"], batch["size"]
    if shrink > 1:
        whole, size = tiles.shrink(whole, shrink), -(-size // shrink)
    tile = model.output.shape

    def on_tiles(frames):
        if not chunk_size:
            return model.apply(variables, {"frames": frames}, train=False)
        tokens, latents = model.apply(variables, {"frames": frames}, train=False, method="encode")

        def decode(indices):
            return model.apply(
                variables, tokens, latents, train=False, indices=indices, method="decode"
            )

        parts = in_chunks(decode, tile[0] * tile[1], chunk_size)
        return parts.reshape(-1, *tile, parts.shape[-1])

    field = tiles.blend(on_tiles, whole, size, tile=tile, min_overlap=min_overlap)
    return tiles.enlarge(field, shrink) if shrink > 1 else field


def field_metrics(*, channels, with_occlusions, with_invalid=False):
    """Metrics by name of a flow (2 channels) or a disparity (1).

    `_noc` counts the pixels visible in both images; `epe_valid` leaves out those that the set marks
    as invalid, which the other metrics count (`with_invalid`).
    """
    kinds = {"epe": metrics.end_point_error, "image_epe": metrics.image_end_point_error}
    if channels == 2:
        kinds["fl_all"] = metrics.outliers
    else:
        for threshold in (0.5, 1, 2, 3):
            kinds[f"bad_{threshold}"] = functools.partial(metrics.bad_pixels, threshold)
        kinds["d1_all"] = metrics.outliers
    result = {name: kind() for name, kind in kinds.items()}
    if with_invalid:
        result["epe_valid"] = metrics.end_point_error(valid_only=True)
    if with_occlusions:
        result |= {f"{name}_noc": kind(visible=True) for name, kind in kinds.items()}
    return result


def draw(config, prepare, predict, task_data, variables, num_examples):
    """The first evaluation examples, at most eight: images, truth, prediction, error, occlusion.

    For disparities also the errors of matchers on these examples, for stereograms the psychometric
    curve and its table in their place.
    """
    batch = task_data.first_examples(min(num_examples, 8))

    @jax.jit
    def run(variables, batch):
        batch = prepare(batch, None)
        return predict(variables, batch), batch["size"]

    prediction, size = jax.device_get(run(variables, batch))
    windows = [np.s_[:height, :width] for height, width in size]
    cut = {
        name: [x[window] for x, window in zip(arrays, windows, strict=True)]
        for name, arrays in {**batch, "prediction": prediction}.items()
        if name in ("field", "valid", "occluded", "prediction")
    }
    figure = plots.field_grid(
        [x[:, *window] for x, window in zip(batch["frames"], windows, strict=True)],
        cut["field"],
        cut["prediction"],
        cut["valid"],
        cut.get("occluded"),
    )
    if config.data.source != "stereograms":
        if batch["field"].shape[-1] == 2:
            return {"predictions": figure}
        frames = [x[:, *window] for x, window in zip(batch["frames"], windows, strict=True)]
        rows = matching.errors(frames, cut["field"], cut["valid"], cut["prediction"])
        return {"predictions": figure, "matching_table": rows}
    options = config.data.source_options.to_dict()
    rows = psychometric.measure(
        lambda changed: registry.load(
            "stereograms", config.data.eval_split, options=options | changed
        ),
        lambda batch: jax.device_get(run(variables, batch)[0]),
        count=PSYCHOMETRIC,
        disparity=options["disparity"],
    )
    curve = plots.psychometric_curve(rows)
    return {"predictions": figure, "psychometric": curve, "psychometric_table": rows}
