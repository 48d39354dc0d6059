"""Test conditions: images that come in several, and the numbers of one evaluation of them all.

A source of such images has an attribute `conditions`. Its test examples have an int32 `condition`,
the position of a name in `Conditions.names`, and may have a `ground`: the class that their ground
tells.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
import numpy as np

DRAWS = 1000  # of a worst group's null

Collected = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Conditions:
    """The conditions of a source, and which of them are compared.

    Attributes:
      names: of the conditions.
      gaps: name to two conditions: the accuracy in the first less that in the second.
      conflict: the condition in which a ground may tell another class than the object.
      by_class: the condition whose classes are also counted apart.
      single: name to a condition and a class: the accuracy on that class alone.
      worst_of: conditions whose worst is reported.
      weights: shares of the conditions in training, for an average.
    """

    names: tuple[str, ...]
    gaps: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    conflict: str = ""
    by_class: str = ""
    single: Mapping[str, tuple[str, int]] = dataclasses.field(default_factory=dict)
    worst_of: tuple[str, ...] = ()
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def fields(self) -> set[str]:
        """The fields of an example that the metrics need besides its image."""
        return {"label", "condition"} | ({"ground"} if self.conflict else set())

    def metrics(self, num_classes: int) -> dict[str, Callable[[Collected], float]]:
        """The `whole_metrics` of a `Task` whose `collect` is the one of this module.

        - `accuracy_CONDITION`, of each;
        - the gaps;
        - `ground_choice`: share of the images in conflict that are called by their ground;
        - `reliance`: `ground_choice` / (`ground_choice` + their accuracy);
        - `accuracy_CONDITION_CLASS` of `by_class`, `worst_class_CONDITION` and its null;
        - `worst_group`, the smallest accuracy of `worst_of`, and its null: the mean smallest one
          of equal conditions;
        - `weighted_accuracy`, by `weights`.

        Where a condition has no example, its numbers are nan.
        """

        def within(condition: str, metric, **options):
            return functools.partial(_within, self.names.index(condition), metric, **options)

        def gap(high: str, low: str):
            high, low = within(high, accuracy), within(low, accuracy)
            return lambda collected: high(collected) - low(collected)

        found = {f"accuracy_{name}": within(name, accuracy) for name in self.names}
        found |= {name: gap(*pair) for name, pair in self.gaps.items()}
        if self.conflict:
            found["ground_choice"] = within(self.conflict, ground_choice)
            found["reliance"] = within(self.conflict, reliance)
        if name := self.by_class:
            for k in range(num_classes):
                found[f"accuracy_{name}_{k}"] = within(name, class_accuracy, label=k)
            found[f"worst_class_{name}"] = within(name, worst_class)
            found[f"worst_class_{name}_null"] = within(name, worst_class_null)
        for name, (condition, label) in self.single.items():
            found[name] = within(condition, class_accuracy, label=label)
        if self.worst_of:
            numbers = [self.names.index(name) for name in self.worst_of]
            found["worst_group"] = functools.partial(_worst, numbers)
            found["worst_group_null"] = functools.partial(_worst_null, numbers)
        if self.weights:
            parts = {within(name, accuracy): share for name, share in self.weights.items()}
            found["weighted_accuracy"] = lambda collected: sum(
                share * metric(collected) for metric, share in parts.items() if share
            )
        return found


def collect(logits, batch):
    """What the metrics need of each example: its `guess` is -1 where two logits are largest."""
    best = jnp.max(logits, axis=-1, keepdims=True)
    sure = jnp.sum(logits == best, axis=-1) == 1  # nor where one is NaN
    guess = jnp.where(sure, jnp.argmax(logits, axis=-1), -1)
    fields = {field: batch[field] for field in ("label", "ground", "condition") if field in batch}
    return {"guess": guess, **fields}


def _within(condition: int, metric: Callable[..., float], collected: Collected, **options) -> float:
    chosen = collected["condition"] == condition
    return metric({field: values[chosen] for field, values in collected.items()}, **options)


def accuracy(collected: Collected) -> float:
    """Share of the examples whose guess is their label."""
    return _mean(collected["guess"] == collected["label"])


def class_accuracy(collected: Collected, *, label: int) -> float:
    """The accuracy on the examples of one label."""
    return _mean(collected["guess"][collected["label"] == label] == label)


def ground_choice(collected: Collected) -> float:
    """Share of the examples called by their ground, of those whose ground is not their label."""
    return _mean((collected["guess"] == collected["ground"])[_disagree(collected)])


def reliance(collected: Collected) -> float:
    """Of guesses that follow object or ground where these disagree, the share of the ground's."""
    followed = ground_choice(collected)
    right = _mean((collected["guess"] == collected["label"])[_disagree(collected)])
    return followed / (followed + right) if followed + right else float("nan")


def worst_class(collected: Collected) -> float:
    """The smallest accuracy of a class."""
    classes = np.unique(collected["label"])
    return min((class_accuracy(collected, label=k) for k in classes), default=float("nan"))


def worst_class_null(collected: Collected) -> float:
    """What `worst_class` would be on average if all classes had the same true accuracy."""
    _, sizes = np.unique(collected["label"], return_counts=True)
    return worst_group_null(accuracy(collected), sizes)


def worst_group_null(true_accuracy: float, sizes: np.ndarray) -> float:
    """The mean smallest accuracy of groups of these sizes with one true accuracy, simulated."""
    if not len(sizes):
        return float("nan")
    draws = np.random.default_rng(0).binomial(sizes, true_accuracy, (DRAWS, len(sizes)))
    return float((draws / sizes).min(axis=1).mean())


def _worst(numbers: Sequence[int], collected: Collected) -> float:
    return min(_within(number, accuracy, collected) for number in numbers)


def _worst_null(numbers: Sequence[int], collected: Collected) -> float:
    chosen = np.isin(collected["condition"], numbers)
    _, sizes = np.unique(collected["condition"][chosen], return_counts=True)
    right = collected["guess"][chosen] == collected["label"][chosen]
    return worst_group_null(_mean(right), sizes)


def _disagree(collected: Collected) -> np.ndarray:
    return collected["ground"] != collected["label"]


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
