"""Sets of entities with a question whose answer is known: first tests of models of sets.

An entity has a place in a square and a kind. The slots of a set are in random order.
"""

import dataclasses
import functools
from typing import Annotated, Literal

import numpy as np

from perceiver_jax.config_types import Ascending, Range, Whole
from perceiver_jax.data.transforms import Example
from perceiver_jax.datasets.generated.source import Generated, check_generated, configured

Several = Annotated[int, Range(2, 4096)]


@dataclasses.dataclass(frozen=True)
class Entities:
    """Makes one set when called with a random generator.

    An example is `entities` float32 [M, 2 + num_kinds + noise_channels]: a place in -1..1, one of
    the kinds, normal noise; `entities_mask` bool [M], False on unused slots, which are zero; and
    the answer to one question. M is the largest number of entities.

    - "nearest": which other entity is nearest to each? `named` int32 [M], a slot; -1 where unused.
    - "count": how many kinds are there? `label` int32, all numbers from 1 on equally often.
    - "middle": which entity is nearest to the mean place of all? `label` int32, a slot.

    Attributes:
      question: see above.
      num_entities: (fewest, most) in a set.
    """

    question: Literal["nearest", "count", "middle"] = "nearest"
    num_entities: Annotated[tuple[Several, Several], Ascending()] = (8, 16)
    num_kinds: Several = 8
    noise_channels: Whole = 0

    def __call__(self, rng: np.random.Generator) -> Example:
        low, high = self.num_entities
        count = int(rng.integers(low, high + 1))
        place = rng.uniform(-1, 1, (count, 2))
        num_kinds = int(rng.integers(1, min(count, self.num_kinds) + 1))
        kinds = rng.permutation(self.num_kinds)[:num_kinds]
        kind = np.concatenate([kinds, rng.choice(kinds, count - num_kinds)])  # each at least once
        kind = rng.permutation(kind)
        noise = rng.normal(size=(count, self.noise_channels))
        features = [place, np.eye(self.num_kinds)[kind], noise]
        entities = np.zeros((high, sum(x.shape[1] for x in features)), np.float32)
        entities[:count] = np.concatenate(features, axis=1)
        example = {"entities": entities, "entities_mask": np.arange(high) < count}
        if self.question == "nearest":
            named = np.full(high, -1, np.int32)
            named[:count] = nearest(place)
            return example | {"named": named}
        middle = np.square(place - place.mean(axis=0)).sum(axis=1).argmin()
        return example | {"label": np.int32(num_kinds if self.question == "count" else middle)}


def nearest(place: np.ndarray) -> np.ndarray:
    """The number of the nearest other row of `[n, d]` for each, `[n]`."""
    distance = np.square(place[:, None] - place[None]).sum(axis=-1)
    np.fill_diagonal(distance, np.inf)
    return distance.argmin(axis=1)


check_options = functools.partial(check_generated, Entities)


def load(split: str, *, data_dir: str = "", seed: int = 0, **options) -> Generated:
    """The source `entities`; `options` are the attributes of `Entities`."""
    del data_dir
    return Generated("entities", split, seed, configured(Entities, options))
