"""Random-access sources: `len(source)` examples, `source[i]` a dict. `load` finds one by name.

Reading needs no TensorFlow; only preparing a TFDS dataset, once, does.
"""

import importlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from perceiver_jax.data.pipeline import fetch
from perceiver_jax.data.transforms import Encoded, Example, decode
from perceiver_jax.datasets import pair_sets
from perceiver_jax.datasets.clips import Clips
from perceiver_jax.datasets.generated.source import GENERATED
from perceiver_jax.datasets.texts import Documents, Texts

# Of a TFDS name only the version comes behind a colon.
_OWN = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")


class Arrays:
    """Examples held in memory: a dict of arrays that share their leading axis [N, ...]."""

    in_memory = True

    def __init__(self, arrays: Mapping[str, Any], name: str = "arrays"):
        self.arrays = {field: np.asarray(array) for field, array in arrays.items()}
        self.name = name
        lengths = {field: len(array) for field, array in self.arrays.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"{name}: the arrays need one common length, got {lengths}")

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, index: int) -> Example:
        return {field: array[index] for field, array in self.arrays.items()}

    def __repr__(self) -> str:
        return self.name


class Tfds:
    """A prepared TFDS split on disk or in a bucket. Images stay `Encoded` for `decode`."""

    in_memory = False

    def __init__(self, name: str, split: str, data_dir: str = ""):
        import tensorflow_datasets as tfds  # Slow to import, and digits does without.

        builder = tfds_builder(name, data_dir)
        self.name = f"{name}[{split}]"
        self.channels = {
            field: feature.shape[-1]
            for field, feature in builder.info.features.items()
            if isinstance(feature, tfds.features.Image)
        }
        for field, channels in self.channels.items():
            if channels not in {1, 3}:
                raise ValueError(f"{self.name}: {field!r} has {channels} channels, not 1 or 3")
        # SkipDecoding hands over the file's bytes: OpenCV decodes faster than TFDS's PIL, and
        # off the GIL.
        decoders = dict.fromkeys(self.channels, tfds.decode.SkipDecoding())
        try:
            self.records = builder.as_data_source(split=split, decoders=decoders)
        except Exception as error:
            _explain(builder, name, split, data_dir, error)
            raise
        splits = builder.info.splits  # empty under tfds.testing.mock_data
        files = len(splits[split].file_instructions) if splits else 0
        self.at_once = _worth_reading_at_once(files, str(builder.data_path))

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Example:
        return self._example(self.records[index])

    def __getitems__(self, indices: Sequence[int]) -> list[Example]:
        if not self.at_once:
            return [self[index] for index in indices]
        return [self._example(record) for record in self.records.__getitems__(indices)]

    def _example(self, record: Example) -> Example:
        return {field: self._value(field, value) for field, value in record.items()}

    def _value(self, field: str, value: Any) -> Any:
        if field in self.channels:
            return Encoded(value, self.channels[field])
        if isinstance(value, int | np.integer):
            return np.int32(value)  # TFDS labels are int64, which JAX would cut anyway.
        return value

    def __repr__(self) -> str:
        return self.name


def _worth_reading_at_once(files: int, path: str) -> bool:
    """Whether to fetch a batch's records by one call, which starts a thread for each file.

    That is 3 times faster for a lone file and hides a bucket's latency, but a batch spread over
    many local files would spend more on threads than on reading.
    """
    return files == 1 or "://" in path


def load(
    name: str,
    split: str,
    *,
    data_dir: str = "",
    in_memory: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """Opens a dataset's split.

    Args:
      name: `digits` (scikit-learn's, nothing to download), `clips` (local video files, see
        `Clips`), `texts` (local text files, see `Texts`), a module of `data/` that makes its
        examples (`generated.GENERATED`), one of `pair_sets.SETS` (flow and stereo in local
        directories), a TFDS name: `mnist`, `cifar10`, `c4/en`, with version if wanted; or
        `module:function` for a source of your own, opened by `function(split, data_dir=...,
        **options)`. `blank:NAME` has the fields of the source NAME, which need not be there (see
        `fake`).
      split: for digits `train` or `test`; for clips the name of a CSV file; for texts a pattern of
        files; else a split of the set such as `train[10000:]`.
      data_dir: TFDS's directory, a `gs://` path included; '' is TFDS's default. For clips, texts
        and pairs the folder of the set.
      in_memory: decode everything once into arrays. For images of one size that fit.
      options: of clips, texts and a source that makes its examples, by name; of a TFDS set of
        texts, those of `Documents`; the others have none.

    Raises:
      FileNotFoundError: the dataset is not there or not prepared; says how to get it.
      ValueError: an unknown name, split or option, or `in_memory` for images of many sizes.
    """
    options = dict(options or {})
    if name.startswith("blank:"):
        from perceiver_jax.datasets import fake  # which opens sources itself

        return fake.load(name.removeprefix("blank:"), split, options)
    if options and not takes_options(name):
        raise ValueError(f"the source {name!r} has no options, got {sorted(options)}")
    if name == "digits":
        return _digits(split)
    if name == "clips":
        source = Clips(split, data_dir, **options)
    elif name == "texts":
        source = Texts(split, data_dir, **options)
    elif name in GENERATED:
        module = importlib.import_module(f"perceiver_jax.datasets.generated.{name}")
        source = module.load(split, data_dir=data_dir, **options)
    elif own := _OWN.fullmatch(name):
        source = _function(name, *own.groups())(split, data_dir=data_dir, **options)
    elif name in pair_sets.SETS:
        source = pair_sets.load(name, split, data_dir)
    else:
        source = Tfds(name, split, data_dir)
        source = Documents(source, **options) if options else source
    return into_memory(source) if in_memory else source


def takes_options(name: str) -> bool:
    """Whether the source of this name has options: digits and files of pairs have none."""
    name = name.removeprefix("blank:")
    return name != "digits" and name not in pair_sets.SETS


def into_memory(source: Any) -> Arrays:
    """Decodes every example of `source` into `Arrays`, with progress on stderr."""
    arrays: dict[str, np.ndarray] = {}
    total = len(source)
    for start in range(0, total, 1000):
        stop = min(start + 1000, total)
        for index, encoded in enumerate(fetch(source, range(start, stop)), start):
            example = decode(encoded, np.random.default_rng(0))
            if not arrays:
                arrays = {field: _rows(total, value) for field, value in example.items()}
            for field, value in example.items():
                _require_shape(np.shape(value), arrays[field].shape[1:], source, field, index)
                arrays[field][index] = value
        end = "\n" if stop == total else "\r"
        print(f"decoding {source!r}: {stop:,} of {total:,}", end=end, file=sys.stderr)
    return Arrays(arrays, name=repr(source))


def _require_shape(
    shape: tuple[int, ...], first: tuple[int, ...], source: Any, field: str, index: int
) -> None:
    if shape != first:
        raise ValueError(
            f"{source!r}: in_memory needs every {field!r} of one shape, but example {index} has "
            f"{list(shape)} and the first {list(first)}; load it with in_memory=False"
        )


def _rows(count: int, value: Any) -> np.ndarray:
    """Room for `count` values like this one; texts differ in length, so they stay objects."""
    value = np.asarray(value)
    return np.empty((count, *value.shape), object if value.dtype.kind in "SU" else value.dtype)


def _digits(split: str) -> Arrays:
    """Scikit-learn's 1,797 handwritten digits: uint8 [8, 8, 1] scaled from 0..16, int32 labels.

    They come unsplit. Ours is `train_test_split(range(1797), test_size=0.2, random_state=0,
    stratify=labels)`, sorted: 1,437 train and 360 test examples.
    """
    from sklearn import datasets, model_selection

    if split not in {"train", "test"}:
        raise ValueError(f"digits has the splits 'train' and 'test', not {split!r}")
    digits = datasets.load_digits()
    train, test = model_selection.train_test_split(
        np.arange(len(digits.target)), test_size=0.2, random_state=0, stratify=digits.target
    )
    rows = np.sort(train if split == "train" else test)
    image = np.round(digits.images[rows] * (255 / 16)).astype(np.uint8)[..., None]
    label = digits.target[rows].astype(np.int32)
    return Arrays({"image": image, "label": label}, name=f"digits[{split}]")


def _function(source: str, module: str, name: str) -> Callable[..., Any]:
    """What `module:function` means."""
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"config.data.source={source!r} does not exist: {error}") from error


def tfds_builder(name: str, data_dir: str = "") -> Any:
    """TFDS's builder of a dataset, prepared or not."""
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=data_dir or None)
    except tfds.core.DatasetNotFoundError:
        raise ValueError(
            f"no dataset {name!r}: none of {['digits', 'clips', 'texts', *GENERATED]}, of "
            "data.pair_sets.SETS, of TFDS (c4, wikipedia: only with apache-beam, or prepared)"
        ) from None


def _explain(builder: Any, name: str, split: str, data_dir: str, error: Exception) -> None:
    """Raises what to do where a dataset cannot be opened because of how it was prepared."""
    command = f"tfds build {name} --file_format=array_record"
    if data_dir:
        command += f" --data_dir={data_dir}"
    by_hand = " ".join((builder.MANUAL_DOWNLOAD_INSTRUCTIONS or "").split())
    if by_hand:
        command += f" --manual_dir=FOLDER\nFiles to fetch by hand first: {by_hand}"
    remedy = f"run\n  pip install 'perceiver_jax[prepare]'\n  {command}"
    if not builder.is_prepared():
        raise FileNotFoundError(
            f"{name} is not prepared: nothing in {builder.data_path}. If it is elsewhere, set "
            f"config.data.data_dir; else prepare it once:\n{remedy}"
        ) from error
    file_format = builder.info.file_format
    if file_format is not None and not file_format.file_suffix.startswith("array_record"):
        raise FileNotFoundError(
            f"{name} in {builder.data_path} is stored as {file_format.file_suffix}, which has no "
            f"random access. Prepare it again, into another directory or over it:\n{remedy}"
        ) from error
    splits = sorted(builder.info.splits)
    if isinstance(error, ValueError) and not set(re.findall(r"[A-Za-z_]\w*", split)) <= set(splits):
        raise ValueError(
            f"{name} in {builder.data_path} has the splits {splits}, so not {split!r}: set "
            "config.data.train_split and eval_split (only to evaluate, train_split='' will do)"
        ) from error
