"""The CSV files that list video files with their labels, and the numbers of the classes."""

import csv
import io
import math
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from perceiver_jax.files.paths import read_text

CLASSES = "classes.txt"


class Row(NamedTuple):
    """A line of a list: its number, a file, seconds, and the names of classes."""

    line: int
    path: str
    start: float
    labels: list[str]


class Classes(NamedTuple):
    """Names by number, and whether the user fixed their order (else it is that of the lists)."""

    names: list[str]
    fixed: bool


def read_list(path: pathlib.Path) -> tuple[str, list[Row]]:
    """Returns `label` or `labels`, and the rows, whose cells are stripped of spaces.

    Raises:
      ValueError: the columns or a line are wrong; names the file and the line.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
    columns = set(reader.fieldnames)
    fields = columns & {"label", "labels"}
    if len(columns) < len(reader.fieldnames):
        raise ValueError(f"{path} begins with {reader.fieldnames}: a column is named twice")
    if not {"path", "start"} <= columns or len(fields) != 1:
        raise ValueError(
            f"{path} begins with {sorted(columns)}; it needs path, start and one of label, labels"
        )
    field = fields.pop()
    return field, [_row(cells, reader.line_num, field, path) for cells in reader]


def _row(cells: dict[str, str], line: int, field: str, path: pathlib.Path) -> Row:
    file, start, text = ((cells[name] or "").strip() for name in ("path", "start", field))
    if None in cells:  # DictReader's name for what is beyond the columns
        raise ValueError(
            f"{path}, line {line} has more cells than columns: quote what holds a comma, and write "
            "';' between several labels"
        )
    if not file or (field == "label" and not text):
        empty = field if file else "path"
        raise ValueError(f"{path}, line {line}: {empty} is blank")
    labels = [text] if field == "label" else [x.strip() for x in text.split(";") if x.strip()]
    try:
        seconds = float(start)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{path}, line {line}: start={start!r} is no number of seconds from 0 on")
    return Row(line, file, seconds, labels)


def read_classes(folder: pathlib.Path, lists: Sequence[str]) -> Classes:
    """The classes of `classes.txt`, one name a line, else those of the named lists, sorted.

    Where a list has numbers instead of names, these are the classes' numbers.
    """
    if names := read_class_file(folder):
        return Classes(names, fixed=True)
    rows = [row for name in lists for row in read_list(folder / f"{name}.csv")[1]]
    used = {name for row in rows for name in row.labels}
    if used and all(name.isdigit() for name in used):
        return Classes(list(map(str, range(max(map(int, used)) + 1))), fixed=True)
    return Classes(sorted(used), fixed=False)


def read_class_file(folder: pathlib.Path) -> list[str]:
    """The names in `classes.txt` of a folder, one a line; none where there is no such file.

    Raises:
      ValueError: a blank or repeated name, or none.
    """
    file = folder / CLASSES
    if not file.is_file():
        return []
    names = [line.strip() for line in read_text(file).rstrip().splitlines()]
    for number, name in enumerate(names):
        if not name or name in names[:number]:
            problem = f"repeats {name!r}" if name else "is blank"
            raise ValueError(f"{file}, line {number + 1} {problem}: one class a line")
    if not names:
        raise ValueError(f"{file} is empty: write one class a line, or remove it")
    return names


def class_numbers(
    row: Row, classes: Sequence[str], known: dict[str, int], path: pathlib.Path
) -> list[int]:
    """The numbers of a row's classes; `known` are the numbers by name."""
    numbers = [known.get(x, int(x) if x.isdigit() else -1) for x in row.labels]
    for number, name in zip(numbers, row.labels, strict=True):
        if not 0 <= number < len(classes):
            raise ValueError(
                f"{path}, line {row.line}: {name!r} is none of the {len(classes)} classes of "
                f"{path.parent / CLASSES}, nor the number of one"
            )
    return numbers
