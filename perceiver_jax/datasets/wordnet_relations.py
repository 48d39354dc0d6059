"""Pairs of WordNet's glosses: a synset and its hypernym, a sister, or one that is unrelated.

The tree of first hypernyms is cut into subtrees, each of which is in one split, and both glosses of
a pair are of that split. So splits share neither a synset nor a branch of the tree. The most
general synsets, which lie above the subtrees, are in no pair.
"""

import collections
import functools
import zlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

import numpy as np

from perceiver_jax.config_types import Range, Size, Whole
from perceiver_jax.data.transforms import Example
from perceiver_jax.datasets.wordnet_files import SPLITS, Synset, check_split, hypernyms, read

RELATIONS = ("unrelated", "hypernym", "sister")


class Relations:
    """Glosses `first` and `second` with `label`, a number of `RELATIONS`, equally many of each.

    Each synset with a sister is `first` three times: before its hypernym, before a sister, and
    before a synset of another subtree, which is every other time a hypernym of some synset: so
    general glosses do not give the answer away. Glosses that several synsets share are left out.

    Attributes:
      label_names: `RELATIONS`.
      offsets: of both synsets of each pair, int `[n, 2]`.
    """

    in_memory = True
    label_names = RELATIONS

    def __init__(
        self,
        split: str,
        data_dir: str,
        *,
        speech: tuple[Literal["noun", "verb"], ...] = ("noun",),
        subtree: Size = 500,
        share: Annotated[float, Range(0, 1, above=True)] = 1.0,
        draw: Whole = 0,
    ):
        """Reads the files.

        Args:
          split: 'train', 'validation', 'test' or 'all', of the subtrees: tenths as of `Subjects`.
          data_dir: the folder of the database.
          speech: the parts of speech.
          subtree: synsets of the largest subtree.
          share, draw: of the synsets that are `first`, as of `Subjects`.

        Raises:
          FileNotFoundError: a file is not there; says where to get it.
          ValueError: an unknown split, a line that is not of this format, a hypernym that is not
            there, or fewer than two subtrees with sisters in the split.
        """
        check_split(split)
        self.name = f"wordnet[{split}] relations of {' '.join(speech)}"
        self.texts: dict[tuple[str, int], bytes] = {}
        pairs = []
        for part in speech:
            synsets = {synset.offset: synset for synset in read(data_dir, part)}
            above = {offset: _known(synset, synsets) for offset, synset in synsets.items()}
            root_of = roots({o: found[0] for o, found in above.items() if found}, synsets, subtree)
            count = collections.Counter(synset.gloss for synset in synsets.values())
            members = {
                offset: root
                for offset, root in root_of.items()
                if zlib.crc32(b"%08d" % root) % 10 in SPLITS[split]
                and count[synsets[offset].gloss] == 1
            }
            try:
                found = _pairs(members, above)
            except ValueError as error:
                raise ValueError(f"{self.name}: {error}; subtree={subtree}") from error
            pairs += [(part, a, b) for a, b in found]
            self.texts |= {(part, offset): synsets[offset].gloss for offset in members}
        chosen = np.random.default_rng(draw).random(len(pairs) // 3) < share
        self.pairs = [pairs[3 * row + kind] for row in np.flatnonzero(chosen) for kind in range(3)]

    @property
    def offsets(self) -> np.ndarray:
        return np.array([pair[1:] for pair in self.pairs])

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Example:
        part, first, second = self.pairs[index]
        return {
            "first": self.texts[part, first],
            "second": self.texts[part, second],
            "label": np.int32(range(len(self.pairs))[index] % 3),
        }

    def __repr__(self) -> str:
        return self.name


def _known(synset: Synset, synsets: Mapping[int, Synset]) -> list[int]:
    found = hypernyms(synset)
    if unknown := [offset for offset in found if offset not in synsets]:
        raise ValueError(f"{synset.place}: its hypernym {unknown[0]:08} is not in the file")
    return found


def roots(parent: Mapping[int, int], offsets: Iterable[int], largest: int) -> dict[int, int]:
    """The root of the subtree of each synset: the highest that has at most `largest` synsets.

    Args:
      parent: of all synsets but the roots of the forest.
      offsets: all synsets.
      largest: number of synsets.

    Raises:
      ValueError: a synset is above itself.
    """
    sizes = collections.Counter()
    for offset in offsets:
        path, above = {}, offset
        while above is not None:
            if above in path:
                raise ValueError(f"the hypernyms of {above:08} lead back to it")
            path[above] = 1
            above = parent.get(above)
        sizes.update(path)

    @functools.cache
    def root(offset: int) -> int:
        above = parent.get(offset)
        return offset if above is None or sizes[above] > largest else root(above)

    return {offset: root(offset) for offset in offsets if sizes[offset] <= largest}


def _pairs(root_of: Mapping[int, int], above: Mapping[int, list[int]]) -> list[tuple[int, int]]:
    """For each synset with a sister three pairs, in the order of `RELATIONS`.

    Args:
      root_of: the subtree of each synset of the split.
      above: the hypernyms of each synset, the first one in the same subtree unless it is its root.
    """
    rng, sisters = np.random.default_rng(0), collections.defaultdict(list)
    for offset, root in root_of.items():
        if offset != root and above[offset][0] in root_of:
            sisters[above[offset][0]].append(offset)
    firsts = [x for family in sisters.values() if len(family) > 1 for x in family]
    if len({root_of[first] for first in firsts}) < 2:
        raise ValueError("there are no two subtrees with sisters")
    pairs = []
    for number, first in enumerate(firsts):
        family = sisters[above[first][0]]
        sister = family[(family.index(first) + rng.integers(1, len(family))) % len(family)]
        drawn = (firsts[rng.integers(len(firsts))] for _ in range(1000))
        drawn = (above[x][0] if number % 2 else x for x in drawn)
        others = (x for x in drawn if root_of[x] != root_of[first])
        other = next((x for x in others if not _related(first, x, above)), None)
        if other is None:
            raise ValueError(f"no synset was found that is unrelated to {first:08}")
        pairs += [(first, other), (first, above[first][0]), (first, sister)]
    return pairs


def _related(first: int, other: int, above: Mapping[int, list[int]]) -> bool:
    """Whether one is a hypernym of the other, by any path, or both have one in common."""
    return (
        first in _ancestors(other, above)
        or other in _ancestors(first, above)
        or not set(above[first]).isdisjoint(above[other])
    )


def _ancestors(offset: int, above: Mapping[int, list[int]]) -> set[int]:
    found, left = set(), [offset]
    while left:
        new = [x for x in above[left.pop()] if x not in found]
        found.update(new)
        left += new
    return found
