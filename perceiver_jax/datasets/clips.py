"""Local video files with sound and labels, listed in CSV files: Kinetics, AudioSet, your own."""

import functools
import os
import sys
from collections.abc import Sequence

import numpy as np

from perceiver_jax.config_types import Count, Pixels, Positive
from perceiver_jax.data.transforms import Example
from perceiver_jax.datasets import clip_lists
from perceiver_jax.datasets.options import check_reader
from perceiver_jax.files import read_clip, video_seconds
from perceiver_jax.files.paths import user_path

OBTAINED = """\
Make a folder with the video files and, for each split, <split>.csv:

    path,start,label
    train/juggling/abc.mp4,0,juggling balls

`path` within the folder; `start` in seconds; `label` a class's name or number (or `labels`, with
';' between several). Classes are numbered as in classes.txt, one name a line, if that is there,
else as their names are sorted over the lists of train_split and eval_split. Lists of Kinetics and
copies of its videos: https://github.com/cvdfoundation/kinetics-dataset; lists of AudioSet:
https://research.google.com/audioset. `python -m experiments.convert_lists --help` says how both
are converted into this form.
Then --config.data.data_dir=FOLDER."""


class Clips:
    """Pieces of a folder's video files that `<split>.csv` lists; `OBTAINED` says how to get them.

    An example holds `video` uint8 `[T, H, W, 3]`, the shorter side `short_side` pixels; `audio`
    float32 `[S]` in [-1, 1], S = T `samples_per_second` / `frames_per_second`, zeros where there is
    no sound; `label` int32, or `labels` float32 `[K]` of zeros and ones; `row` int32, the number of
    its row in the list; and `readable`, bool.

    A file that is missing, damaged or too short is reported once on stderr and kept in
    `unreadable`. With `replace` (to train) the clip of the next readable row replaces it, so that
    an example stays a function of its number. Otherwise (to evaluate) the example is black and
    silent with `readable` False, and the task leaves it out.

    Attributes:
      classes: names by number.
      classes_fixed: whether classes.txt or the list itself says the numbers, or only the names in
        the lists do: then another list may number them otherwise.
      unreadable: the reason by path, for files that this process has tried to read.
    """

    in_memory = False

    def __init__(
        self,
        split: str,
        data_dir: str,
        *,
        lists: Sequence[str] = (),
        num_frames: Pixels,
        frames_per_second: Positive,
        samples_per_second: Count,
        short_side: Pixels,
        clips_per_row: Count = 1,
        row_seconds: Positive = 10.0,
        replace: bool = False,
    ):
        """Reads the lists only.

        Args:
          split: name of the CSV file.
          data_dir: the folder.
          lists: the names of all CSV files whose classes are numbered together, where there is no
            classes.txt; () is `split` alone.
          num_frames: T.
          frames_per_second: of `video`; other rates are resampled.
          samples_per_second: of `audio`; other rates are resampled.
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
        path = user_path(data_dir) / f"{split}.csv"
        if not data_dir or not path.is_file():
            where = f"there is no {path}" if data_dir else "config.data.data_dir is not set"
            raise FileNotFoundError(f"{self.name}: {where}. {OBTAINED}")
        self.field, rows = clip_lists.read_list(path)
        if not rows:
            raise ValueError(f"{path} lists no file")
        self.classes, self.classes_fixed = clip_lists.read_classes(path.parent, lists or (split,))
        known = {name: number for number, name in enumerate(self.classes)}
        self.folder = path.parent
        self.paths = [row.path for row in rows]
        self.starts = [row.start for row in rows]
        self.labels = [clip_lists.class_numbers(row, self.classes, known, path) for row in rows]
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
                start, lie = self.starts[candidate], (self.clips_per_row, self.row_seconds)
                video, audio = read_part(self.folder / path, start, clip, *lie, **self.reading)
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


def read_part(
    path: os.PathLike | str,
    start: float,
    clip: int,
    clips_per_row: int = 1,
    row_seconds: float = 10.0,
    **reading,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Clip number `clip` of those that lie evenly within a row's seconds; see `Clips`.

    Args:
      path: the file.
      start: of the row, in seconds.
      clip: its number, below `clips_per_row`.
      clips_per_row, row_seconds: as of `Clips`.
      reading: as of `files.read_clip`.
    """
    if clip:
        length = reading["num_frames"] / reading["frames_per_second"]
        end = min(start + row_seconds, video_seconds(path))
        start += max(end - start - length, 0.0) * clip / (clips_per_row - 1)
    return read_clip(path, start, **reading)


def class_names(data_dir: str, lists: Sequence[str]) -> tuple[str, ...]:
    """The names of the classes, as `Clips` numbers them; () where the lists are not there."""
    folder = user_path(data_dir)
    there = (folder / clip_lists.CLASSES, *(folder / f"{name}.csv" for name in lists))
    if not data_dir or not (there[0].is_file() or all(path.is_file() for path in there[1:])):
        return ()
    return tuple(clip_lists.read_classes(folder, lists)[0])


check_options = functools.partial(check_reader, Clips)


def load(split: str, *, data_dir: str = "", lists: Sequence[str] = (), **options) -> Clips:
    """Opens `<split>.csv` of the folder `data_dir`; `options` are those of `Clips`."""
    return Clips(split, data_dir, lists=lists, **options)


def spec(*, num_frames, frames_per_second, samples_per_second, short_side, **_) -> Example:
    """An example of zeros, of a list with `label` and of one with `labels`, of one class."""
    samples = num_frames * samples_per_second // frames_per_second
    return {
        "video": np.zeros((num_frames, short_side, short_side, 3), np.uint8),
        "audio": np.zeros(samples, np.float32),
        "label": np.int32(0),
        "labels": np.zeros(1, np.float32),
        "row": np.int32(0),
        "readable": np.bool_(True),
    }
