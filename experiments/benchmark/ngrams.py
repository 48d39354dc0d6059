"""Bits per byte of held-out files by n-grams and by compressors: what a byte model must beat.

    python -m experiments.benchmark.ngrams --data_dir=FOLDER --train='[!x-z]*.py' --eval='[x-z]*.py'

--data_dir is by default Python's own standard library. --output=FILE.csv gets the rows.

    order k      the k bytes before, of the training files. Where a context is new, or a byte new in
                 it, shorter contexts stand in (interpolated, Witten and Bell 1991); below order 0
                 all bytes are alike
    bz2, xz      the evaluation files alone, joined
    xz, primed   what they add to the size of the training files
"""

import bz2
import lzma
import sysconfig
from typing import NamedTuple

import numpy as np
from absl import flags

from experiments import command
from perceiver_jax.datasets import registry
from perceiver_jax.files.paths import user_path
from perceiver_jax.train.workdir import git_commit

ORDERS = 5


class Counts(NamedTuple):
    """Of n-grams, as numbers in base 256, sorted, and of the contexts that they begin with."""

    grams: np.ndarray
    count: np.ndarray
    contexts: np.ndarray
    total: np.ndarray  # how often a context occurs
    kinds: np.ndarray  # how many different bytes follow it


def grams(data: np.ndarray, order: int) -> np.ndarray:
    """The byte at each place with `order` before it, int64 `[T]`; zeros before the beginning."""
    padded = np.concatenate([np.zeros(order, np.int64), data.astype(np.int64)])
    return sum(padded[i : i + len(data)] << 8 * (order - i) for i in range(order + 1))


def count(data: np.ndarray, order: int) -> Counts:
    """Counts the n-grams of training data, uint8 `[T]`."""
    found, times = np.unique(grams(data, order), return_counts=True)
    contexts, first = np.unique(found >> 8, return_index=True)
    kinds = np.diff(np.append(first, len(found)))
    return Counts(found, times, contexts, np.add.reduceat(times, first), kinds)


def look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The values of sorted keys; 0 where a key is not there."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)


def bits_by_order(train: bytes, held_out: bytes) -> list[float]:
    """Bits per byte of orders 0 to 4."""
    train, test = (np.frombuffer(x, np.uint8) for x in (train, held_out))
    chance, result = np.full(len(test), 1 / 256), []
    for order in range(ORDERS):
        counts, wanted = count(train, order), grams(test, order)
        total = look_up(counts.contexts, counts.total, wanted >> 8)
        kinds = look_up(counts.contexts, counts.kinds, wanted >> 8)
        seen = look_up(counts.grams, counts.count, wanted)
        mixed = (seen + kinds * chance) / np.maximum(total + kinds, 1)
        chance = np.where(total > 0, mixed, chance)
        result.append(float(-np.log2(chance).mean()))
    return result


def measure(train: bytes, held_out: bytes) -> dict[str, float]:
    """Bits per byte by name."""
    orders = bits_by_order(train, held_out)
    size = 8 / len(held_out)
    primed = len(lzma.compress(train + held_out, preset=9)) - len(lzma.compress(train, preset=9))
    return {f"order {order}": bits for order, bits in enumerate(orders)} | {
        "bz2": len(bz2.compress(held_out, 9)) * size,
        "xz": len(lzma.compress(held_out, preset=9)) * size,
        "xz, primed": primed * size,
    }


def read(data_dir: str, split: str) -> bytes:
    """All files that match, as the source `texts` joins them."""
    options = {"length": 2**20, "utf8": False}
    source = registry.load("texts", split, data_dir=data_dir, options=options)
    return b"".join(source[i]["text"][: 2**20] for i in range(len(source)))


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    where = {"flag_values": values}
    stdlib = sysconfig.get_path("stdlib")
    flags.DEFINE_string("data_dir", stdlib, "The folder of the files.", **where)
    flags.DEFINE_string("train", "[!x-z]*.py", "Pattern of the files to count.", **where)
    flags.DEFINE_string("eval", "[x-z]*.py", "Pattern of the files to predict.", **where)
    flags.DEFINE_string("output", "", "A CSV file for the rows.", **where)


@command.one_line_errors
def main(argv):
    """The command."""
    del argv
    chosen = flags.FLAGS
    train, held_out = (read(chosen.data_dir, split) for split in (chosen.train, chosen.eval))
    sizes = {"train_bytes": len(train), "eval_bytes": len(held_out), "commit": git_commit()[:10]}
    rows = [
        {"model": name, "bits_per_byte": round(bits, 4)} | sizes
        for name, bits in measure(train, held_out).items()
    ]
    for row in rows:
        print(f"{row['model']:<12}{row['bits_per_byte']:8.4f} bits per byte")
    if chosen.output:
        command.write_table(user_path(chosen.output), rows)


if __name__ == "__main__":
    command.run(main, define_flags)
