"""Images that a table lists: CSV, TSV or Parquet with a column of paths and one of labels.

    path,label
    shelf/0001.jpg,cup
    shelf/0002.jpg,cup;plate        several labels, with `multi_label`

`data_dir` is a folder with one table for each part, such as train.csv and val.csv (or test.csv), or
one table, of which a seed holds out some images. Paths are relative to the folder of the table; if
config.data.train_split and eval_split are paths of tables elsewhere, to `data_dir`.
"""

import io
import os
import pathlib
from collections.abc import Sequence

from perceiver_jax.datasets import images
from perceiver_jax.datasets.clip_lists import CLASSES, read_class_file
from perceiver_jax.datasets.images import Images, Item, Listing, Options, check_options, spec
from perceiver_jax.files.paths import read_text, user_path

__all__ = ["check_options", "load", "spec"]

ENDINGS = (".csv", ".tsv", ".parquet")


def load(split: str, *, data_dir: str = "", lists: Sequence[str] = (), **options) -> Images:
    """Opens a part of the set that tables list; reads the tables and the sizes of the files.

    Args:
      split: the name of a table, with or without its ending; "val" is also looked for as
        validation, valid and test.
      data_dir: the folder of the tables and images, or one table; with `~`, or in a bucket.
      lists: the names of all tables, that for training first, whose classes are numbered together.
      options: those of `Options`.

    Raises:
      FileNotFoundError: the folder or a table is not there.
      ValueError: a column is missing; a path or label is blank; a path leads out of the folder or
        has two labels; all files are missing; or a class is alone or in the evaluation only.
    """
    options = Options(**options)
    root = images.existing_dir(data_dir)
    lists = tuple(lists) or (split,)
    whole = not root.is_dir()
    folder = root.parent if whole else root
    if whole:
        tables = {split: read_table(root, folder, options)}
        items, share = images.take_part(tables[split], split, lists, options, root)
        name = f"table[{root.name}, {share}]"
    else:
        paths = {part: _find_table(root, part) for part in dict.fromkeys((*lists, split))}
        tables = {part: read_table(path, folder, options) for part, path in paths.items()}
        items, name = tables[split], f"table[{root.name}/{paths[split].name}]"
    labels = {part: {x for item in table for x in item.labels} for part, table in tables.items()}
    classes = images.in_order(set().union(*labels.values()))
    fixed = read_class_file(folder)
    if fixed and (unknown := [name for name in classes if name not in fixed]):
        raise ValueError(f"{folder / CLASSES} does not name the label {images.some(unknown)}")
    classes = fixed or classes
    trained = labels[lists[0]] if len(lists) > 1 and not whole else ()
    fewest = 1 if options.multi_label else 2
    images.check_classes(classes, trained, labels[split], root, fewest=fewest)
    return Images(name, Listing(folder, items, classes, bool(fixed), []), options)


def read_table(path: pathlib.Path, folder: pathlib.Path, options: Options) -> list[Item]:
    """The rows of a table, whose files are in `folder`.

    Raises:
      ValueError: see `load`; names the table and the row, counted from 1 without the header.
    """
    paths, labels = read_columns(path, (options.path_column, options.label_column))
    if not paths:
        raise ValueError(f"{path} lists no images")
    items, seen = [], {}
    for row, (cell, label) in enumerate(zip(paths, labels, strict=True), 1):
        where = f"{path}, row {row}"
        file = _within(folder, _text(cell), where)
        names = tuple(sorted(_names(label, options, where)))
        if seen.setdefault(file, names) != names:
            raise ValueError(
                f"{where}: {file!r} has the label {images.some(names)}, in an earlier row "
                f"{images.some(seen[file])}: list it once (multi_label: 'a;b')"
            )
        items.append(Item(file, _size(folder, file), names))
    return items


def read_columns(path: pathlib.Path, columns: Sequence[str]) -> list[list]:
    """Columns of a CSV, TSV or Parquet file; CSV and TSV give strings.

    Raises:
      ValueError: no such table, or no such columns; names the file and the columns that there are.
    """
    import pyarrow  # slow to import
    from pyarrow import csv, parquet

    try:
        if path.suffix == ".parquet":
            table = parquet.read_table(io.BytesIO(path.read_bytes()))
            found = {name.strip(): table[name] for name in table.column_names}
        else:
            text = pyarrow.BufferReader(read_text(path).encode())
            parse = csv.ParseOptions(delimiter="\t" if path.suffix == ".tsv" else ",")
            header = csv.open_csv(text, parse_options=parse).schema.names
            text.seek(0)
            strings = csv.ConvertOptions(
                column_types=dict.fromkeys(header, pyarrow.string()), strings_can_be_null=False
            )
            table = csv.read_csv(text, parse_options=parse, convert_options=strings)
            found = {name.strip(): table[name] for name in header}
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path} is no readable table: {' '.join(str(error).split())}") from error
    if missing := [name for name in columns if name not in found]:
        raise ValueError(
            f"{path} has no column {missing[0]!r}, but {images.some(list(found), 20)}: set "
            "config.data.source_options.path_column and label_column"
        )
    return [found[name].to_pylist() for name in columns]


def _find_table(root: pathlib.Path, split: str) -> pathlib.Path:
    """The table of a part."""
    given = user_path(split)
    if given.suffix in ENDINGS:
        names = [split]
    else:
        names = [name + ending for name in images.names_of_part(split) for ending in ENDINGS]
    for name in names:
        path = user_path(name) if given.is_absolute() or "://" in split else root / name
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"{root} has none of the tables {', '.join(names)}: set config.data.train_split and "
        "eval_split to their names, or config.data.data_dir to one table that has all images"
    )


def _within(folder: pathlib.Path, file: str, where: str) -> str:
    """A path relative to the folder.

    Raises:
      ValueError: it is blank, or leads out of the folder.
    """
    if not file:
        raise ValueError(f"{where}: the path is blank")
    base = str(folder)
    file = os.path.expanduser(file) if file.startswith("~/") else file
    within = file.removeprefix(f"{base}/")
    if os.path.isabs(within) and isinstance(folder, pathlib.Path):
        within = os.path.relpath(within, base)
    within = os.path.normpath(within)
    if within.split("/")[0] == ".." or os.path.isabs(within) or ":/" in within:
        raise ValueError(
            f"{where}: {file!r} is outside of {base}: set config.data.data_dir to a folder with "
            "all images"
        )
    return within


def _names(label: object, options: Options, where: str) -> list[str]:
    """The labels of a row.

    Raises:
      ValueError: the label is blank, or there are several where one is expected.
    """
    cells = label if isinstance(label, list) else _text(label).split(";")
    names = [name for name in map(_text, cells) if name]
    if options.multi_label:
        return list(dict.fromkeys(names))
    if not names:
        raise ValueError(f"{where}: the label is blank: name its class or remove the row")
    if len(names) > 1:
        raise ValueError(
            f"{where}: {_text(label)!r} are several labels: set "
            "config.data.source_options.multi_label, as configs/folder.py:tags does"
        )
    return names


def _text(cell: object) -> str:
    return "" if cell is None else str(cell).strip()


def _size(folder: pathlib.Path, file: str) -> int:
    """Bytes of a file; 0 if it is missing, -1 (unknown) in a bucket, to save requests."""
    if not isinstance(folder, pathlib.Path):
        return -1
    try:
        return os.stat(os.path.join(folder, file)).st_size
    except OSError:
        return 0
