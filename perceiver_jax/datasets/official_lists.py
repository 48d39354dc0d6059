"""The lists that Kinetics and AudioSet publish, and the video files that belong to their lines."""

import csv
import io
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from perceiver_jax.files.paths import read_text

VIDEOS = (".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".ts", ".webm")
KINETICS = ("label", "youtube_id", "time_start", "time_end", "split")
AUDIOSET = ["YTID", "start_seconds", "end_seconds", "positive_labels"]


class Segment(NamedTuple):
    """A line of a list: its number, a YouTube id, the segment's seconds and its classes' names."""

    line: int
    video: str
    start: float
    end: float
    labels: list[str]


class Found(NamedTuple):
    """The file of a segment, relative to the folder, and where in it the segment starts."""

    path: str
    start: float


def read_kinetics(path: pathlib.Path) -> list[Segment]:
    """Reads a CSV file with the columns of `KINETICS`, and perhaps others behind them.

    Raises:
      ValueError: other columns, or a line that is wrong; names the file and the line.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
    if missing := [name for name in KINETICS if name not in reader.fieldnames]:
        hint = ""
        if missing == ["label"]:
            hint = "; this is the list of a test set, whose labels are held out"
        raise ValueError(f"{path} has no column {missing[0]!r}: Kinetics has {KINETICS}{hint}")
    segments = []
    for cells in reader:
        row = {name: (cells[name] or "").strip() for name in KINETICS}
        where = f"{path}, line {reader.line_num}"
        if not row["label"]:
            raise ValueError(f"{where}: label is blank")
        times = _times(row["time_start"], row["time_end"], where)
        video = _video(row["youtube_id"], where)
        segments.append(Segment(reader.line_num, video, *times, [row["label"]]))
    return segments


def read_audioset(path: pathlib.Path, names: Mapping[str, str]) -> list[Segment]:
    """Reads a segments file: `#` lines, then `YTID, start, end, "id,id"` without a header.

    Args:
      path: the file.
      names: class names by id (`/m/09x0r`), of `read_indices`.

    Raises:
      ValueError: a line that is wrong, or an id that is not in `names`; names file and line.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""), skipinitialspace=True)
    segments = []
    for cells in reader:
        where = f"{path}, line {reader.line_num}"
        if not cells or cells[0].startswith("#"):
            continue
        if len(cells) != len(AUDIOSET):
            raise ValueError(f"{where}: {len(cells)} cells, AudioSet has {', '.join(AUDIOSET)}")
        video, start, end, text = (cell.strip() for cell in cells)
        ids = [x.strip() for x in text.split(",") if x.strip()]
        if unknown := [x for x in ids if x not in names]:
            raise ValueError(f"{where}: {unknown[0]!r} is no id of class_labels_indices.csv")
        labels = [names[x] for x in ids]
        segments.append(
            Segment(reader.line_num, _video(video, where), *_times(start, end, where), labels)
        )
    return segments


def read_indices(path: pathlib.Path) -> dict[str, str]:
    """Reads `class_labels_indices.csv`: the names by id, in the order of their numbers.

    Raises:
      ValueError: other columns, or numbers that do not count from 0.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), skipinitialspace=True)
    columns = reader.fieldnames or ()
    if list(columns) != ["index", "mid", "display_name"]:
        raise ValueError(f"{path} begins with {list(columns)}, not with index,mid,display_name")
    names = {}
    for cells in reader:
        number, name = cells["index"], (cells["display_name"] or "").strip()
        where = f"{path}, line {reader.line_num}"
        if number != str(len(names)):
            raise ValueError(f"{where}: index is {number!r}, {len(names)} comes next")
        if not name or ";" in name or name in names.values():
            raise ValueError(f"{where}: display_name={name!r} is blank, repeated or has a ';'")
        names[cells["mid"].strip()] = name
    return names


def find_files(
    folder: pathlib.Path, segments: Sequence[Segment], *, named_by_id: str = ""
) -> list[Found | None]:
    """Finds each segment's file anywhere below a folder; None where there is none.

    A file is named by the id and the segment's times, in seconds or milliseconds, and then holds
    the segment alone (`abc_000010_000020.mp4`, `abc_10.mkv`); or by the id alone.

    Args:
      folder: where to look.
      segments: lines of a list.
      named_by_id: what a file named by the id alone holds: "whole" video or "segment".

    Raises:
      ValueError: a segment has two files; or one named by the id, and `named_by_id` is "".
    """
    files: dict[str, list[str]] = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in VIDEOS and not name.startswith("."):
                path = os.path.relpath(os.path.join(parent, name), folder)
                files.setdefault(_without_times(stem), []).append(path)
    return [_file_of(segment, files.get(segment.video, ()), named_by_id) for segment in segments]


def _without_times(stem: str) -> str:
    """The id at the start of a file's name; an id may hold `_` and digits, but has 11 letters."""
    times = re.compile(r"(_\d+(\.\d+)?){1,2}")
    return stem[:11] if times.fullmatch(stem[11:]) else stem


def _file_of(segment: Segment, paths: Sequence[str], named_by_id: str) -> Found | None:
    starts = {segment.start, segment.start * 1000}
    found = []
    for path in sorted(paths):
        times = re.findall(r"_(\d+(?:\.\d+)?)", pathlib.PurePath(path).stem[len(segment.video) :])
        if not times or float(times[0]) in starts:
            found.append((path, bool(times)))
    if any(cut for _, cut in found):
        found = [(path, cut) for path, cut in found if cut]
    if not found:
        return None
    (path, cut), *others = found
    if others:
        raise ValueError(f"{path} and {others[0][0]} are both files of {segment.video}: keep one")
    if not cut and not named_by_id:
        raise ValueError(
            f"{path} is named by the id alone: say whether such files hold the whole video or the "
            "listed segment, --named_by_id=whole or --named_by_id=segment"
        )
    return Found(path, 0.0 if cut or named_by_id == "segment" else segment.start)


def _video(text: str, where: str) -> str:
    if not re.fullmatch(r"[\w-]{11}", text):
        raise ValueError(f"{where}: {text!r} is no YouTube id, which has 11 letters")
    return text


def _times(start: str, end: str, where: str) -> tuple[float, float]:
    try:
        times = float(start), float(end)
    except ValueError:
        times = (0.0, 0.0)
    if not 0 <= times[0] < times[1] < 1e6:
        raise ValueError(f"{where}: {start!r} to {end!r} are no seconds of a segment")
    return times
