"""Random bytes and their mirror image: what a model predicts of the mirror, it must have read.

Perceiver AR's copy task. With SOS and EOS a sequence of `length` ids is half random and half known.

Reference: Perceiver AR (Hawthorne et al. 2022), section 4.1.
"""

import dataclasses
import functools
from typing import Annotated

import numpy as np

from perceiver_jax.config_types import Range
from perceiver_jax.data.transforms import Example
from perceiver_jax.datasets.generated.source import Generated, check_generated, configured


@dataclasses.dataclass(frozen=True)
class Mirrored:
    """Makes one text when called with a random generator.

    An example is `text`, bytes.

    Attributes:
      length: of a sequence with SOS and EOS: an even number, half of it 1 + the random bytes.
    """

    length: Annotated[int, Range(4, 2**24)] = 32

    def __post_init__(self):
        if self.length % 2:
            raise ValueError(
                f"config.data.source_options.length={self.length} is odd: write an even number"
            )

    def __call__(self, rng: np.random.Generator) -> Example:
        half = rng.integers(0, 256, self.length // 2 - 1, np.uint8)
        return {"text": half.tobytes() + half[::-1].tobytes()}


check_options = functools.partial(check_generated, Mirrored)


def load(split: str, *, data_dir: str = "", seed: int = 0, **options) -> Generated:
    """The source `mirrored`; `options` are the attributes of `Mirrored`."""
    del data_dir
    return Generated("mirrored", split, seed, configured(Mirrored, options))
