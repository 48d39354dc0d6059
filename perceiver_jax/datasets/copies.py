"""Files that are in training and in the evaluation both, by their contents."""

import concurrent.futures
import contextlib
import hashlib
import os
from typing import NamedTuple

import numpy as np

HEAD = 2**14  # bytes, which tell most files of one size apart


class Files(NamedTuple):
    """Paths within a folder, and bytes `[N]`, -1 where they are unknown, as in buckets."""

    folder: str
    paths: list[str]
    sizes: np.ndarray


def describe(train: Files, evaluation: Files) -> list[str]:
    """A line about the files that are in both; none without such files."""
    if (train.sizes < 0).any() or (evaluation.sizes < 0).any():
        return ["files in buckets are not compared: some may be in training and evaluation both"]
    found = find(train, evaluation)
    if not found:
        return []
    ours, theirs = next(iter(found.items()))
    return [
        f"warning: {len(found):,} of {len(evaluation.paths):,} evaluation images are also in "
        f"training, byte for byte: {ours!r} is {theirs!r}"
    ]


def find(train: Files, evaluation: Files) -> dict[str, str]:
    """The evaluation's files that equal a training file byte by byte, with that file.

    Only files of equal size are read: their first bytes, then whole files whose first bytes agree.
    """
    parts = (train, evaluation)
    shared = np.intersect1d(train.sizes, evaluation.sizes)
    chosen = [np.flatnonzero(np.isin(files.sizes, shared)) for files in parts]
    digests: list[dict[int, bytes]] = []
    for length in (HEAD, None):
        digests = [digest_files(*part, length) for part in zip(parts, chosen, strict=True)]
        both = set(digests[0].values()) & set(digests[1].values())
        chosen = [np.array([k for k, digest in part.items() if digest in both]) for part in digests]
    theirs = {digest: train.paths[index] for index, digest in reversed(digests[0].items())}
    return {evaluation.paths[index]: theirs[digests[1][index]] for index in chosen[1]}


def digest_files(files: Files, indices: np.ndarray, length: int | None) -> dict[int, bytes]:
    """By number, a hash of each file's size and its first bytes, or of all; unreadable ones lack.

    Args:
      files: to choose from.
      indices: which to read.
      length: how many bytes of each; None is all.
    """

    def digest_part(part: np.ndarray) -> dict[int, bytes]:
        found = {}
        for index in part:
            with contextlib.suppress(OSError):
                with open(f"{files.folder}/{files.paths[index]}", "rb", buffering=0) as file:
                    size = os.fstat(file.fileno()).st_size
                    data = file.read(-1 if length is None else length)
                found[index] = digest(b"%d " % size + data)
        return found

    parts = np.array_split(indices, max(len(indices) // 256, 1))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:  # hides the latency of a network's disk
        return {
            index: value for part in pool.map(digest_part, parts) for index, value in part.items()
        }


def digest(data: bytes) -> bytes:
    """A hash of 16 bytes."""
    return hashlib.blake2b(data, digest_size=16).digest()
