"""`Task`: what the training loop needs of an experiment."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from flax import linen as nn

Batch = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Task:
    """An experiment for the loop. A file of `experiments/tasks` builds one from a config.

    Attributes:
      model: `model.init({'params': key}, batch, train=False)` and `model.apply(variables, batch,
        train=...)` give variables and a prediction; called with a *prepared* batch. In training
        there is one random stream, 'dropout', and every collection but `params` may change.
        Initialised with zeros like `example`: parameters depend on shapes only. Layers scanned
        over lie below a path `layers/` (see `optimizer.STACKED`).
      example: an evaluation batch of one example, as arrays or as shapes and types.
      train_data: `train_data(start_step)` yields this process's part of the global batches
        `start_step, start_step + 1, ...` without end, as dicts of numpy arrays. It is read two
        batches ahead. `close()` is called at the end where it has one.
      eval_data: `eval_data()` yields this process's part of every evaluation batch, the last one
        padded, `batch["mask"]` False on padding. Every process yields as many. Closed likewise.
      prepare: `prepare(batch, key)` runs on the device inside the compiled step: uint8 to float,
        targets, mixing. Once per step, on the whole global batch; keeps `mask`, and axis 0 of
        every array counts examples. `key` is None in evaluation: nothing is random there, and each
        example is prepared by itself.
      loss: `loss(prediction, batch) -> [B]`, one value per example; the loop applies the mask.
      metrics: name to `metric(prediction, batch) -> (sum, count)`, masked. 'loss' and the names in
        `step.VITALS` are taken.
      predict: `predict(variables, batch)` with a prepared batch gives the prediction of an
        evaluation, where that is more than one call of the model (tiles of a large image, chunks of
        queries). None is the model itself.
      collect: `collect(prediction, batch)` gives, inside the compiled evaluation step, arrays
        `[B, ...]` by name: what `whole_metrics` need of each example. None is nothing.
      whole_metrics: name to `metric(collected) -> float`: a number of a whole evaluation that is no
        mean over its examples, from what was collected of the examples that `mask` keeps, numpy
        arrays `[N, ...]` in their order; every process has all of them. Not reported in training.
      flops_per_example: forward FLOPs of the textbook model for one example, multiply and add
        counted apart (the papers' convention).
      plots: `plots(variables, num_examples)` gives by name figures, `plots.Clip`s and tables (lists
        of dicts with the same keys); not used by the loop.
      description: lines printed once at the start (data pipelines, model size).
      classes: their names, where the data have any.
    """

    model: nn.Module
    example: Batch
    train_data: Callable[[int], Iterator[Batch]]
    eval_data: Callable[[], Iterator[Batch]]
    prepare: Callable[[Batch, jax.Array | None], Batch]
    loss: Callable[[Any, Batch], jax.Array]
    metrics: Mapping[str, Callable[[Any, Batch], tuple[jax.Array, jax.Array]]]
    flops_per_example: float
    predict: Callable[[Any, Batch], Any] | None = None
    collect: Callable[[Any, Batch], Batch] | None = None
    whole_metrics: Mapping[str, Callable[[Batch], float]] = dataclasses.field(default_factory=dict)
    plots: Callable[[Any, int], Mapping[str, Any]] = lambda variables, num_examples: {}
    description: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


@contextlib.contextmanager
def naming_fields(batch: Batch, line: str) -> Iterator[None]:
    """Says which field a batch lacks, of those that the task reads, and which line leaves it out.

    Raises:
      ValueError: in place of the KeyError of such a field.
    """
    try:
        yield
    except KeyError as error:
        (name,) = error.args
        if not isinstance(name, str) or name in batch:
            raise
        raise ValueError(
            f"the task reads {name!r}, and {line} keeps {sorted(batch)}: name it in keep(...)"
        ) from error
