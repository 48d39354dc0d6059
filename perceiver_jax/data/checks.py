"""Checks of examples on the host. A model would misread these examples without an error."""

import contextlib
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from perceiver_jax.data.transforms import Example

IMAGES = ("image", "frames", "video")
# Errors that a record's contents cause. Anything else is a defect of code and keeps its traceback.
EXPECTED = (ValueError, OSError, EOFError, cv2.error)


class BadExample(ValueError):
    """An example that cannot be read or used; one line names its source and index."""


@contextlib.contextmanager
def named(source: Any, index: int) -> Iterator[None]:
    """Turns an error about a record into a `BadExample` that names it."""
    try:
        yield
    except BadExample:
        raise
    except EXPECTED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadExample(f"{source!r}, example {index}: {reason}") from error


def check_images(example: Example) -> None:
    """Refuses images whose type is not uint8, such as floats in 0..1."""
    for field in IMAGES:
        value = example.get(field)
        if isinstance(value, np.ndarray) and value.dtype != np.uint8:
            span = f" from {value.min():g} to {value.max():g}" if value.size else ""
            raise ValueError(
                f"{field!r} is {value.dtype}{span}; sources give uint8 from 0 to 255: convert "
                "floats in 0..1 with np.round(255 * x).astype(np.uint8)"
            )


def check_label(example: Example, num_classes: int | tuple[int, ...]) -> None:
    """Refuses a `label` that is not one integer from 0 to `num_classes` - 1.

    A tuple has the classes of each task, which the example's `task` counts (none is the first). A
    task of one class asks for a number. Of several labels, `label_ids`, -1 is none.
    """
    highest = max(example.get("label_ids", ()), default=-1)
    if isinstance(num_classes, int) and highest >= num_classes:
        raise ValueError(
            f"label_ids holds {highest}, which is not one of 0 to {num_classes - 1}: set "
            f"num_classes={num_classes} to the number of classes"
        )
    label = example.get("label")
    if label is None:
        return
    array = np.asarray(label)
    if isinstance(num_classes, tuple):
        num_classes = num_classes[int(example.get("task", 0))]
        if array.shape == () and array.dtype.kind in "iuf":
            if array == -1:
                raise ValueError(
                    "label=-1: the labels of this split are not public; choose another one in "
                    "config.data.train_split and eval_split"
                )
            if num_classes == 1 and not np.isfinite(array):
                raise ValueError(f"label={array} is not a finite number")
            if num_classes == 1:
                return
            if array == np.round(array):
                array = array.astype(np.int64)
    if array.shape or array.dtype.kind not in "iu":
        kind = f"{array.dtype} {list(array.shape)}" if array.shape else type(label).__name__
        raise ValueError(
            f"label={_short(label)} is {kind}, not one integer from 0 to {num_classes - 1} "
            f"(num_classes={num_classes}); one-hot rows become integers by np.argmax"
        )
    if not 0 <= array < num_classes:
        raise ValueError(
            f"label={array} is not one of 0 to {num_classes - 1}: set num_classes={num_classes} to "
            "the number of classes, and number them from 0"
        )


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 40 else text[:37] + "..."
