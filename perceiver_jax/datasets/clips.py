"""Local video files with sound and labels, listed in CSV files: Kinetics, AudioSet, your own."""

import csv
import pathlib
import sys
from typing import NamedTuple

import numpy as np

from perceiver_jax.data.transforms import Example
from perceiver_jax.files import read_clip, video_seconds

OBTAINED = """\
Make a folder with the video files and, for each split, <split>.csv:

    path,start,label
    train/juggling/abc.mp4,0,juggling balls

`path` within the folder; `start` in seconds; `label` a class's name or number (or `labels`, with
';' between several). Classes are numbered as in classes.txt, one name a line, if that is there,
else as their names are sorted over all the folder's CSV files. Lists of Kinetics-700-2020 and
copies of its videos: https://github.com/cvdfoundation/kinetics-dataset; lists of AudioSet:
https://research.google.com/audioset. Then --config.data.data_dir=FOLDER."""


class Clips:
    """Pieces of the video files of a folder that `<split>.csv` lists; `OBTAINED` says how.

    An example holds `video` uint8 `[T, H, W, 3]`, the shorter side `short_side` pixels; `audio`
    float32 `[S]` in [-1, 1], S = T `samples_per_second` / `frames_per_second`, zeros where there is
    no sound; `label` int32, or `labels` float32 `[K]` of zeros and ones; `row` int32, whose clip it
    is; and `readable`, bool.

    A file that is missing, damaged or too short is said once on stderr and kept in `unreadable`.
    With `replace` (to train) the clip of the next row that can be read stands in for it, so that an
    example stays a function of its number; without (to evaluate) the example is black and silent,
    `readable` False: the task leaves it out.

    Attributes:
      classes: names by number.
      unreadable: reason by path, for the files that this process has met.
    """

    in_memory = False

    def __init__(
        self,
        split: str,
        data_dir: str,
        *,
        num_frames: int,
        frames_per_second: float,
        samples_per_second: int,
        short_side: int,
        clips_per_row: int = 1,
        row_seconds: float = 10.0,
        replace: bool = False,
    ):
        """Reads the lists only.

        Args:
          split: name of the CSV file.
          data_dir: the folder.
          num_frames: T.
          frames_per_second: of `video`, whatever the file's.
          samples_per_second: of `audio`, whatever the file's.
          short_side: of a frame, in pixels.
          clips_per_row: how many clips, each an example, lie evenly, from `start` on, within
          row_seconds: or what the file has of them.
          replace: see above.

        Raises:
          FileNotFoundError: no such list; says what is needed.
          ValueError: a list that is wrong, its line named.
        """
        self.name = f"clips[{split}]"
        samples = num_frames * samples_per_second / frames_per_second
        if samples != int(samples) or clips_per_row < 1:
            raise ValueError(
                f"{self.name}: num_frames={num_frames} at {frames_per_second} a second go with "
                f"{samples:g} samples at {samples_per_second}, clips_per_row={clips_per_row}: "
                "need a whole number of samples and at least one clip"
            )
        path = pathlib.Path(data_dir, f"{split}.csv")
        if not data_dir or not path.is_file():
            where = f"there is no {path}" if data_dir else "config.data.data_dir is not set"
            raise FileNotFoundError(f"{self.name}: {where}. {OBTAINED}")
        self.field, rows = _read_list(path)
        if not rows:
            raise ValueError(f"{path} lists no file")
        self.classes, known = _class_names(path.parent)
        self.folder = path.parent
        self.paths = [row.path for row in rows]
        self.starts = [row.start for row in rows]
        self.labels = [_numbers(row, self.classes, known, path) for row in rows]
        self.samples, self.clips_per_row, self.replace = int(samples), clips_per_row, replace
        self.row_seconds = row_seconds
        self.reading = {
            "num_frames": num_frames,
            "frames_per_second": frames_per_second,
            "samples_per_second": samples_per_second,
            "short_side": short_side,
        }
        self.unreadable: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.paths) * self.clips_per_row

    def __getitem__(self, index: int) -> Example:
        row, clip = divmod(index, self.clips_per_row)
        rows = [(row + i) % len(self.paths) for i in range(len(self.paths) if self.replace else 1)]
        for candidate in rows:
            path = self.paths[candidate]
            try:
                start = self._start(candidate, clip)
                video, audio = read_clip(self.folder / path, start, **self.reading)
            except ValueError as error:
                self._skip(path, str(error))
            else:
                return self._example(candidate, video, audio, readable=True)
        if self.replace:
            raise ValueError(
                f"{self.name}: none of the {len(rows)} files listed can be read, of {self.folder}; "
                f"for example {self.unreadable[self.paths[row]]}"
            )
        side = self.reading["short_side"]
        black = np.zeros((self.reading["num_frames"], side, side, 3), np.uint8)
        return self._example(row, black, None, readable=False)

    def _start(self, row: int, clip: int) -> float:
        """Seconds into the file at which a clip of a row begins."""
        start = self.starts[row]
        if not clip:
            return start
        length = self.reading["num_frames"] / self.reading["frames_per_second"]
        end = min(start + self.row_seconds, video_seconds(self.folder / self.paths[row]))
        return start + max(end - start - length, 0.0) * clip / (self.clips_per_row - 1)

    def _example(
        self, row: int, video: np.ndarray, audio: np.ndarray | None, *, readable: bool
    ) -> Example:
        audio = np.zeros(self.samples, np.float32) if audio is None else audio
        numbers = self.labels[row]
        if self.field == "label":
            label = np.int32(numbers[0])
        else:
            label = np.isin(np.arange(len(self.classes)), numbers).astype(np.float32)
        return {
            "video": video,
            "audio": audio,
            self.field: label,
            "row": np.int32(row),
            "readable": np.bool_(readable),
        }

    def _skip(self, path: str, reason: str) -> None:
        if path not in self.unreadable:
            self.unreadable[path] = reason
            count = f"{len(self.unreadable)} of {len(self.paths)}"
            print(f"{self.name}: skipped ({count}): {reason}", file=sys.stderr, flush=True)

    def __repr__(self) -> str:
        return self.name


def load(split: str, *, data_dir: str = "", **options) -> Clips:
    """Opens `<split>.csv` of the folder `data_dir`; `options` are those of `Clips`."""
    return Clips(split, data_dir, **options)


def spec(*, num_frames, frames_per_second, samples_per_second, short_side, **_) -> Example:
    """An example of zeros."""
    samples = num_frames * samples_per_second // frames_per_second
    return {
        "video": np.zeros((num_frames, short_side, short_side, 3), np.uint8),
        "audio": np.zeros(samples, np.float32),
        "label": np.int32(0),
        "readable": np.bool_(True),
    }


class Row(NamedTuple):
    """A line of a list: its number, a file, seconds, and the names of classes."""

    line: int
    path: str
    start: float
    labels: list[str]


def _read_list(path: pathlib.Path) -> tuple[str, list[Row]]:
    """(`label` or `labels`, the rows) of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        columns = set(reader.fieldnames or ())
        fields = columns & {"label", "labels"}
        if not {"path", "start"} <= columns or len(fields) != 1:
            raise ValueError(
                f"{path} begins with {sorted(columns)}; it needs path, start and one of label, "
                "labels"
            )
        field, rows = fields.pop(), []
        for cells in reader:
            line, text = reader.line_num, cells[field] or ""
            labels = [text] if field == "label" else [x for x in text.split(";") if x]
            try:
                rows.append(Row(line, cells["path"], float(cells["start"]), labels))
            except (TypeError, ValueError):
                raise ValueError(
                    f"{path}, line {line}: start={cells['start']!r} is no number of seconds"
                ) from None
    return field, rows


def _class_names(folder: pathlib.Path) -> tuple[list[str], dict[str, int]]:
    """Names by number, and numbers by name."""
    file = folder / "classes.txt"
    if file.is_file():
        names = file.read_text(encoding="utf-8").splitlines()
    else:
        lists = [_read_list(path)[1] for path in sorted(folder.glob("*.csv"))]
        used = {name for rows in lists for row in rows for name in row.labels}
        numbers = used and all(name.isdigit() for name in used)
        names = list(map(str, range(max(map(int, used)) + 1))) if numbers else sorted(used)
    return names, {name: number for number, name in enumerate(names)}


def _numbers(row: Row, classes: list[str], known: dict[str, int], path: pathlib.Path) -> list[int]:
    """The numbers of a row's classes."""
    numbers = [known.get(x, int(x) if x.isdigit() else -1) for x in row.labels]
    for number, name in zip(numbers, row.labels, strict=True):
        if not 0 <= number < len(classes):
            raise ValueError(
                f"{path}, line {row.line}: {name!r} is none of the {len(classes)} classes of "
                f"{path.parent / 'classes.txt'}, nor the number of one"
            )
    return numbers
