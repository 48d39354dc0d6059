"""Folders of small video files with sound, as `perceiver_jax.datasets.clips` reads them."""

import pathlib
from collections.abc import Sequence

import numpy as np

from perceiver_jax import files

RATE = 25  # frames per second


def write_clip(path: pathlib.Path, brightness: int, *, frames: int = 8, sound: bool = True) -> None:
    """Grey frames, 48 x 64, the t-th of `brightness` + 4 t, and a 500 Hz tone during the third."""
    video = np.full((frames, 48, 64, 3), brightness, np.uint8)
    video += (4 * np.arange(frames, dtype=np.uint8)).reshape(-1, 1, 1, 1)
    time = np.arange(frames * 48000 // RATE) / 48000
    tone = 0.5 * np.sin(2 * np.pi * 500 * time) * ((time >= 2 / RATE) & (time < 3 / RATE))
    files.write_mp4(path, video, tone if sound else None, frames_per_second=RATE)


def write_clips(
    folder: pathlib.Path,
    splits: Sequence[str] = ("train", "validate"),
    *,
    count: int = 6,
    damaged: Sequence[int] = (),
) -> None:
    """`count` files of brightness 20 i and class `kind i % 3` in each split; some are no video."""
    lines = ["path,start,label"]
    for i in range(count):
        if i in damaged:
            (folder / f"{i}.mp4").write_bytes(b"no video")
        else:
            write_clip(folder / f"{i}.mp4", 20 * i)
        lines.append(f"{i}.mp4,0,kind {i % 3}")
    for split in splits:
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")


def write_tagged_clips(
    folder: pathlib.Path, *, count: int = 3, damaged: Sequence[int] = ()
) -> None:
    """`count` files with several labels each: `a;c`, `b`, none, and so on; of `a` to `d`."""
    folder.mkdir(exist_ok=True)
    write_clips(folder, count=count, damaged=damaged)
    lines = [f"{i}.mp4,0,{('a;c', 'b', '')[i % 3]}" for i in range(count)]
    for split in ("train", "validate"):
        (folder / f"{split}.csv").write_text("\n".join(["path,start,labels", *lines]) + "\n")
    (folder / "classes.txt").write_text("a\nb\nc\nd\n")
