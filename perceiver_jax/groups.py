"""Sets whose classes are groups of a model's classes, as 9 of ImageNet's 1,000.

A source of such a set has an attribute `groups`. A model with as many classes as the set needs no
groups.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Groups:
    """The model's classes that each class of a set stands for, and how the model is asked.

    Attributes:
      members: the model's classes, by the set's class.
      rule: `best` is the group of the most likely class of all, and no group is a wrong answer
        (ImageNet-9); `among` is the same among the classes of the groups (ImageNet-A and -R);
        `mean` is the group with the largest mean probability (Geirhos et al. 2019).
    """

    members: tuple[tuple[int, ...], ...]
    rule: Literal["best", "among", "mean"]

    def scores(self, logits: jax.Array) -> jax.Array:
        """The model's logits `[B, K]` -> logits `[B, G]`, or `[B, G + 1]`: the last is no group."""
        groups = [*self.members, *self._rest(logits.shape[1])]
        longest = max(map(len, groups))
        index = np.array([[*group, *group[:1] * (longest - len(group))] for group in groups])
        real = np.arange(longest) < np.array([[len(group)] for group in groups])
        found = jnp.where(real[None], logits[:, index], -jnp.inf)  # [B, G, longest]
        if self.rule == "mean":
            return jax.nn.logsumexp(found, axis=-1) - jnp.log(real.sum(1))[None]
        return jnp.max(found, axis=-1)

    def num_scores(self, num_classes: int) -> int:
        """How many `scores` there are for a model of so many classes."""
        return len(self.members) + len(self._rest(num_classes))

    def _rest(self, num_classes: int) -> list[tuple[int, ...]]:
        """The classes in no group as one more, where they count."""
        others = sorted(set(range(num_classes)) - set().union(*self.members))
        return [tuple(others)] if self.rule == "best" and others else []

    def check(self, num_classes: int) -> None:
        """Raises ValueError where a model of so many classes lacks one of the groups' classes."""
        largest = max(map(max, self.members))
        if largest >= num_classes:
            raise ValueError(
                f"config.model.output.num_classes={num_classes}: the set has {len(self.members)} "
                f"classes, which are groups of classes up to {largest}; write "
                f"{len(self.members)}, or the number of the classes that the model was trained on"
            )
