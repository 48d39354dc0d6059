"""Sources and transforms to batches: a batch is a function of (seed, step) alone.

    one endless sequence of positions 0, 1, 2, ...  each epoch has its own permutation
    -> transforms, seeded by (seed, position)       so every epoch crops and flips differently
       (the example carries its `position`, for what changes as training goes on)
    -> step s of batch size B: positions s B to (s + 1) B - 1
    -> process p of n: the p-th contiguous part of those rows

So resuming is arithmetic, and the processes' parts, concatenated in order, are the same global
batch for any number of processes, threads or workers. A batch may span two epochs; nothing is
dropped. Grain permutes and reads in the background. It reads whole local batches, so that many
records are fetched in one call, which saves overhead.

One file, because the order of examples must be the same for training, evaluation and resuming.

`readers` says how each process reads:

    'threads:4'   4 threads (decoding releases the GIL). 'threads:0' reads in the foreground.
    'workers:4'   4 processes, for transforms heavy in Python such as RandAugment; about 0.25 GiB
                  and 2 s of start-up each. A script that asks for them needs
                  `if __name__ == "__main__":`, because Python imports it in each process.
    'auto'        threads: one for arrays in memory, else one for each core, up to 64.
"""

import dataclasses
import re
import sys
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import grain
import numpy as np
from absl import flags

from perceiver_jax.data import checks
from perceiver_jax.data.transforms import Example, Pipeline
from perceiver_jax.machine import cores

MOST_THREADS = 64  # of readers that nobody counted

Batch = dict[str, np.ndarray]


def fetch(source: Any, indices: Sequence[int]) -> Sequence[Example]:
    """Reads many examples, in one call if the source has `__getitems__`."""
    if hasattr(source, "__getitems__"):
        return source.__getitems__(indices)
    return [source[index] for index in indices]


@dataclasses.dataclass(frozen=True)
class LocalBatches:
    """Random access to the processes' parts of batches: number k is part k % parts of a batch.

    Each part has as many rows. Where a batch does not divide by `parts`, copies of its last row,
    `mask` False, fill it up.

    Attributes:
      source: the examples.
      transforms: a parsed line, or such a function.
      batch_size: rows of a whole batch.
      parts: how many parts a batch has.
      count: how many parts there are in all.
      seed: of the transforms.
      order: position to the example's index; None repeats the source in order.
      valid: positions from here on are padding, `mask` False.
      num_classes: of the model; a label that is not below it is an error. A tuple: by task.
      partners: whether every other position is the partner of the one before it: a batch then holds
        twice as many positions, and `partner_image` beside `image`.
    """

    source: Any
    transforms: Pipeline
    batch_size: int
    parts: int
    count: int
    seed: int
    order: grain.MapDataset | None = None
    valid: int = sys.maxsize
    num_classes: int | tuple[int, ...] | None = None
    partners: bool = False

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Batch | Exception:
        """Returns a batch, or the error that stops it.

        Errors travel as values, because Grain's workers would wrap them in pages of tracebacks.
        """
        size = self.batch_size * (2 if self.partners else 1)
        rows = -(-size // self.parts)
        batch, part = divmod(number, self.parts)
        places = np.arange(part * rows, (part + 1) * rows)
        positions = batch * size + np.minimum(places, size - 1)
        try:
            return self._batch(positions.tolist(), (places < size) & (positions < self.valid))
        except checks.EXPECTED as error:
            return error

    def _batch(self, positions: Sequence[int], mask: np.ndarray) -> Batch:
        indices = [p % len(self.source) if self.order is None else self.order[p] for p in positions]
        examples = []
        for raw, index, position in zip(self._fetch(indices), indices, positions, strict=True):
            with checks.named(self.source, index):
                checks.check_images(raw)
                rng = np.random.default_rng((self.seed, position))
                example = self.transforms({**raw, "position": position}, rng)
                if self.num_classes is not None:
                    checks.check_label(example, self.num_classes)
            examples.append(example)
        batch = {field: _stack(field, [e[field] for e in examples]) for field in examples[0]}
        batch["mask"] = mask
        if self.partners:
            pairs = {field: (x[::2], x[1::2]) for field, x in batch.items()}
            batch = {field: own for field, (own, _) in pairs.items()}
            batch |= {f"partner_{field}": x for field, (_, x) in pairs.items() if field != "mask"}
        return batch

    def _fetch(self, indices: Sequence[int]) -> Sequence[Example]:
        try:
            return fetch(self.source, indices)
        except checks.EXPECTED:
            for index in indices:  # again, one at a time, to find and name the record
                with checks.named(self.source, index):
                    self.source[index]
            raise


def _stack(field: str, values: list[Any]) -> np.ndarray:
    shapes = {np.shape(value) for value in values}
    if len(shapes) > 1:
        raise ValueError(
            f"{field!r} differs in shape within a batch: {sorted(shapes)[:3]}; a crop and a "
            "resize(size) in the pipeline make images of one size"
        )
    return np.stack(values)


def train_batches(
    source: Any,
    transforms: Pipeline,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    readers: str = "auto",
    num_classes: int | tuple[int, ...] | None = None,
    partners: bool = False,
) -> "BatchIterator":
    """Yields this process's rows of the batches start_step, start_step + 1, ... without end.

    Args:
      source: `len(source)` and `source[i] -> dict`.
      transforms: a parsed line.
      batch_size: rows of the *global* batch; a multiple of `process_count`.
      seed: of the order and of the transforms.
      start_step: where to begin: the number of batches already consumed.
      process_index: this process among `process_count`.
      process_count: how many processes share each batch.
      readers: see above.
      num_classes: the model's. Every `label` must be one integer below it; None checks none.
      partners: reads twice as many examples, each once: the second half as `partner_image` and so
        on beside the fields of the first, to be mixed with them.

    Returns:
      An iterator of dicts of arrays [batch_size / process_count, ...], `mask` all True. Its
      `close()` stops the readers.

    Raises:
      ValueError: an empty source, or a `batch_size` that the processes cannot share. The iterator
        raises `checks.BadExample`, a ValueError, on an example that cannot be read or used.
    """
    _check_size(source, batch_size)
    if batch_size % process_count:
        raise ValueError(
            f"batch_size {batch_size} is global and must be a multiple of the number of processes, "
            f"{process_count}"
        )
    order_seed, transform_seed = (int(s) for s in np.random.SeedSequence(seed).generate_state(2))
    order = grain.MapDataset.range(len(source)).shuffle(seed=order_seed).repeat()
    count = sys.maxsize // (2 * batch_size)
    batches = LocalBatches(
        source,
        transforms,
        batch_size,
        process_count,
        count,
        transform_seed,
        order,
        num_classes=num_classes,
        partners=partners,
    )
    first = start_step * process_count + process_index
    readers = automatic_readers(source) if readers == "auto" else readers
    return BatchIterator(batches, slice(first, None, process_count), readers)


def eval_batches(
    source: Any,
    transforms: Pipeline,
    *,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    readers: str = "threads:1",
    num_classes: int | tuple[int, ...] | None = None,
) -> "BatchIterator":
    """Yields this process's rows of every evaluation batch: each example once, in order.

    The last batch is filled up with examples from the start, and a batch that does not divide by
    the processes with copies of its last row. `mask` is False there, so every process yields
    equally many batches of equal shape. Arguments as for `train_batches`; random transforms are
    allowed and draw the same every time.
    """
    _check_size(source, batch_size)
    count = -(-len(source) // batch_size) * process_count
    batches = LocalBatches(
        source,
        transforms,
        batch_size,
        process_count,
        count,
        seed=0,
        valid=len(source),
        num_classes=num_classes,
    )
    readers = automatic_readers(source) if readers == "auto" else readers
    return BatchIterator(batches, slice(process_index, None, process_count), readers)


def describe(source: Any, transforms: Pipeline, *, batch_size: int, seed: int | None = None) -> str:
    """The pipeline in one line; with a `seed` it is a training pipeline."""
    order = [] if seed is None else [f"shuffle(seed {seed})"]
    stages = [f"{source!r} {len(source)} examples", *order, str(transforms), f"batch({batch_size})"]
    return " | ".join(stages)


def automatic_readers(source: Any) -> str:
    """`readers` for 'auto': one thread for arrays in memory, else a thread for each core.

    Threads were never slower than processes where we measured both (two cores): 1,253 and 1,307
    ImageNet images/s, 998 and 1,000 with RandAugment, all within the spread of the runs, and 22.9
    and 7.0 clips/s (experiments/results/data_pipeline.csv, clips.csv). Each thread holds a batch,
    so hosts of hundreds of cores get `MOST_THREADS`.
    """
    in_memory = getattr(source, "in_memory", False)
    return "threads:1" if in_memory else f"threads:{min(cores(), MOST_THREADS)}"


def _check_size(source: Any, batch_size: int) -> None:
    if len(source) == 0:
        raise ValueError(f"{source!r} is empty: check its split")
    if batch_size < 1:
        raise ValueError(f"batch_size {batch_size} must be positive")


def _count(readers: str) -> tuple[str, int]:
    match = re.fullmatch(r"(threads|workers):(\d+)", readers)
    if not match or readers == "workers:0":
        raise ValueError(f"readers: 'auto', 'threads:4' or 'workers:4', got {readers!r}")
    return match[1], int(match[2])


class BatchIterator(Iterator[Batch]):
    """Iterates over `batches[part]` with `readers` in the background until closed or collected."""

    def __init__(self, batches: LocalBatches, part: slice, readers: str):
        kind, count = _count(readers)
        cv2.setNumThreads(0)  # OpenCV's own threads would compete with ours
        selected = grain.MapDataset.source(batches)[part]
        if kind == "threads":
            options = grain.ReadOptions(count, prefetch_buffer_size=count + 1 if count else 0)
            dataset = selected.to_iter_dataset(options)
        else:
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()  # Grain reads its flags; notebooks never parse any.
            serial = selected.to_iter_dataset(grain.ReadOptions(0, prefetch_buffer_size=0))
            workers = grain.MultiprocessingOptions(count, per_worker_buffer_size=2)
            dataset = serial.mp_prefetch(workers, worker_init_fn=_tune_worker)
        self._iterators = [iter(dataset)]
        # Also runs at exit. Grain's own clean-up runs later, when modules that it needs are gone.
        self.close = weakref.finalize(self, _close, self._iterators)

    def __next__(self) -> Batch:
        if not self._iterators:
            raise StopIteration
        batch = next(self._iterators[0])
        if isinstance(batch, Exception):
            raise batch
        return batch


def _close(iterators: list[grain.DatasetIterator]) -> None:
    iterators.pop().close()


def _tune_worker(index: int, count: int) -> None:
    del index, count
    cv2.setNumThreads(0)  # OpenCV's own threads would compete with ours
