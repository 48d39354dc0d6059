"""Waterbirds: birds of the land and of the water on grounds of both (Sagawa et al. 2020).

    DATA_DIR/metadata.csv      img_id, img_filename, y, split, place, place_filename
    DATA_DIR/...               the image files

In training 95 % of the birds are on their own ground. In validation and test half of each class is.
`split` is 0, 1, 2 for train, val, test; `y` and `place` are 0 for land and 1 for water.
"""

import csv
import io

import numpy as np

from perceiver_jax.conditions import Conditions
from perceiver_jax.data.transforms import Example
from perceiver_jax.datasets.shifts.files import ImageFiles, spec_with
from perceiver_jax.files.paths import read_text, user_path

SPLITS = ("train", "val", "test")
NAMES = ("landbird_on_land", "landbird_on_water", "waterbird_on_land", "waterbird_on_water")
LIST = "metadata.csv"
COLUMNS = ("img_filename", "y", "split", "place")


def load(split: str, *, data_dir: str = "") -> ImageFiles:
    """Opens `train`, `val` or `test`: `image`, `label`, `ground` and `condition`.

    Raises:
      FileNotFoundError: there is no list; says what it looks like.
      ValueError: an unknown split, or a line of the list that is wrong.
    """
    if split not in SPLITS:
        raise ValueError(f"waterbirds has the splits {list(SPLITS)}, not {split!r}")
    root = user_path(data_dir)
    path = root / LIST
    if not path.exists():
        raise FileNotFoundError(
            f"Waterbirds is not in config.data.data_dir={data_dir!r}: no {LIST} in it, with the "
            f"columns {', '.join(COLUMNS)}"
        )
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
        raise ValueError(f"{path} has no column {missing[0]!r}, only {reader.fieldnames}")
    names, numbers = [], []
    for row in reader:
        cells = [row[name] for name in COLUMNS[1:]]
        if any(
            cell not in allowed for cell, allowed in zip(cells, ("01", "012", "01"), strict=True)
        ):
            raise ValueError(
                f"{path}, line {reader.line_num}: y, split, place are "
                f"{', '.join(map(str, cells))}; y and place are 0 or 1, split is 0, 1 or 2"
            )
        names.append(row["img_filename"])
        numbers.append([int(cell) for cell in cells])
    label, part, ground = np.array(numbers).reshape(-1, 3).T
    condition = 2 * label + ground
    chosen = np.flatnonzero(part == SPLITS.index(split))
    if not len(chosen):
        raise ValueError(f"{path} lists no image of {split!r}")
    fields = {"label": label, "ground": ground, "condition": condition}
    return ImageFiles(
        f"waterbirds[{split}]",
        [root / names[i] for i in chosen],
        {field: values[chosen] for field, values in fields.items()},
        conditions=conditions(condition[part == 0]),
    )


def conditions(trained: np.ndarray) -> Conditions:
    """The four groups. Their average counts each as often as training did, of `trained` [N]."""
    counts = np.bincount(trained, minlength=len(NAMES))
    weights = counts / counts.sum() if counts.sum() else np.full(len(NAMES), 1 / len(NAMES))
    return Conditions(
        NAMES, worst_of=NAMES, weights=dict(zip(NAMES, weights.tolist(), strict=True))
    )


def spec() -> Example:
    """An example of zeros."""
    return spec_with("label", "ground", "condition")
