"""Where the latents look in study `sea`: on the digit, or on the ground.

    WORKDIR/lab_attention.csv   a row per Perceiver and seed whose weights are in the workdir

The numbers are shares of the cross-attention of all heads and latents, means over test images.
Attention shows where information is taken from, not what is done with it.

- `attention_object`: on the digit's pixels, in images whose ground is another class's.
- `attention_ground`: on the others.
- `attention_absent`: control, on the pixels of `attention_object` where no digit is drawn.
- `attention_area`: control, the share of all pixels that they are: that of a model that looks
  everywhere alike.

Models with shuffled labels, which have learned no digit, are a control too. Tokens of the stem
cover 4x4 pixels, of which the digit has a share.
"""

import csv
import functools
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import command
from experiments.lab.rows import Row, read
from perceiver_jax import maps
from perceiver_jax.build import build
from perceiver_jax.data import on_device
from perceiver_jax.datasets import registry
from perceiver_jax.datasets.generated import sea
from perceiver_jax.train import checkpoint
from perceiver_jax.train.log import say, warn
from perceiver_jax.train.workdir import git_commit, load_config

FILE = "lab_attention.csv"
STUDY, MODELS, SETTINGS = "sea", ("pixels", "stem"), ("base", "labels_shuffled")
KEYS = ("study", "cell", "seed", "config_hash")
NUMBERS = ("attention_object", "attention_ground", "attention_absent", "attention_area")
DIGITS = 200  # in each condition
DRAWN = 0.5 * sea.OPACITY[0] * (sea.DIGIT_LUMINANCE - sea.LUMINANCE) * 255  # half a faint digit


def update(workdir: pathlib.Path) -> None:
    """Measures every training of a workdir that is not in the table, and adds it."""
    table = workdir / f"lab_{STUDY}.csv"
    if not table.exists():
        return
    known = measured(workdir)
    left = {
        key(row): folder
        for row in read(table)
        if row["model"] in MODELS and row["setting"] in SETTINGS and row["status"] == "ok"
        if key(row) not in known
        if (folder := workdir / STUDY / row["cell"] / str(row["seed"])).is_dir()
    }
    run = functools.cache(attention)
    for number, (place, folder) in enumerate(left.items(), 1):
        config = load_config(folder)
        model = json.dumps(config.model.to_dict())
        known[place] = look(config, folder, run(model)) | {"commit": git_commit()}
        write(workdir / FILE, known)
        if number % 20 == 0 or number == len(left):
            say(f"where the latents look: {number} of {len(left)} trainings")


def key(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What a row of either table is of."""
    return tuple(str(row[name]) for name in KEYS)


def measured(workdir: pathlib.Path) -> dict[tuple[str, ...], Mapping[str, Any]]:
    """The rows that are there, by `key`.

    Raises:
      ValueError: a column is missing.
    """
    path = workdir / FILE
    if not path.exists():
        return {}
    with path.open("r") as file:
        table = csv.DictReader(file)
        if absent := [n for n in (*KEYS, *NUMBERS) if n not in (table.fieldnames or ())]:
            raise ValueError(f"{path}: no column {', '.join(absent)}; remove it, and it is made")
        return {key(row): row for row in table}


def write(path: pathlib.Path, rows: Mapping[tuple[str, ...], Mapping[str, Any]]) -> None:
    """Writes the table."""
    whole = [dict(zip(KEYS, place, strict=True)) | row for place, row in rows.items()]
    command.write_table(path, whole, (*KEYS, *NUMBERS, "commit"))


def join(rows: Iterable[Row], workdir: pathlib.Path) -> list[Row]:
    """Rows with the numbers of their training as further columns, where there are any."""
    known = measured(workdir)
    return [
        {**row, **{name: float(known[key(row)][name]) for name in NUMBERS}}
        if key(row) in known
        else row
        for row in rows
    ]


def attention(model: str) -> Callable[[Any, jax.Array], jax.Array]:
    """The compiled function of a `model` section: images to attention `[B, *grid]`, of sum 1."""
    built = build(json.loads(model))

    def run(variables, image):
        found = maps.attention_maps(built, variables, {"image": image})
        return found[maps.CROSS_ATTEND]["input"].mean(axis=(1, 2))

    return jax.jit(run)


def look(
    config: ConfigDict, folder: pathlib.Path, run: Callable[[Any, jax.Array], jax.Array]
) -> dict[str, float]:
    """The numbers of one training."""
    images = stimuli(config)
    digit = np.abs(images["object_only"] - np.float32(255 * sea.LUMINANCE)).max(axis=-1) > DRAWN
    weights, _ = checkpoint.restore_weights(folder, None, warn=warn)
    variables = {"params": weights["params"], **weights["model_state"]}
    on_digit = {}
    for name in ("conflict", "ground_only"):
        image = on_device.normalize(jnp.asarray(images[name]), config.data.mean, config.data.std)
        seen = np.asarray(run(variables, image))
        on_digit[name] = float((seen * resized(digit, seen.shape[1:])).sum(axis=(1, 2)).mean())
    return {
        "attention_object": on_digit["conflict"],
        "attention_ground": 1 - on_digit["conflict"],
        "attention_absent": on_digit["ground_only"],
        "attention_area": float(digit.mean()),
    }


def stimuli(config: ConfigDict) -> Mapping[str, np.ndarray]:
    """The same digits uint8 `[DIGITS, H, W, 3]` in each condition of a training's test."""
    data = config.data
    count = len(sea.CONDITIONS.names) * DIGITS
    options = data.source_options.to_dict()
    source = registry.load(STUDY, f"test[:{count}]", data_dir=data.data_dir, options=options)
    examples = source.arrays
    return {
        name: examples["image"][examples["condition"] == number]
        for number, name in enumerate(sea.CONDITIONS.names)
    }


def resized(mask: np.ndarray, grid: Sequence[int]) -> np.ndarray:
    """Masks `[B, H, W]` to the share of each place of a coarser grid that they cover."""
    tall, wide = (side // places for side, places in zip(mask.shape[1:], grid, strict=True))
    parts = mask.reshape(len(mask), grid[0], tall, grid[1], wide)
    return parts.mean(axis=(2, 4))
