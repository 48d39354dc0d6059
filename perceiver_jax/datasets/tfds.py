"""Prepared TensorFlow Datasets, read without TensorFlow; only `tfds build`, once, needs it."""

import functools
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from perceiver_jax.data.transforms import Encoded, Example
from perceiver_jax.datasets import fake
from perceiver_jax.datasets.options import check_reader
from perceiver_jax.datasets.texts import Documents
from perceiver_jax.files.paths import user_path


class UnknownName(ValueError):
    """TFDS knows no dataset of this name, and none is prepared."""


class Tfds:
    """A prepared split on disk or in a bucket. Images stay `Encoded` until `decode`.

    `label_names` are the names of the classes of `label`, in their order; () where TFDS has none.
    """

    in_memory = False

    def __init__(self, name: str, split: str, data_dir: str = ""):
        import tensorflow_datasets as tfds  # slow to import

        builder = find_builder(name, data_dir)
        self.name = f"{name}[{split}]"
        self.channels = {
            field: feature.shape[-1]
            for field, feature in builder.info.features.items()
            if isinstance(feature, tfds.features.Image)
        }
        for field, channels in self.channels.items():
            if channels not in {1, 3}:
                raise ValueError(f"{self.name}: {field!r} has {channels} channels, not 1 or 3")
        label = dict(builder.info.features.items()).get("label")
        self.label_names = tuple(getattr(label, "names", None) or ())
        # SkipDecoding returns the file's bytes: OpenCV decodes faster than TFDS's PIL, and
        # without the GIL.
        decoders = dict.fromkeys(self.channels, tfds.decode.SkipDecoding())
        try:
            self.records = builder.as_data_source(split=split, decoders=decoders)
        except Exception as error:
            _explain(builder, name, split, data_dir, error)
            raise
        splits = builder.info.splits  # empty under tfds.testing.mock_data
        files = len(splits[split].file_instructions) if splits else 0
        self.batched = _batched_reads_pay(files, str(builder.data_path))

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Example:
        return self._example(self.records[index])

    def __getitems__(self, indices: Sequence[int]) -> list[Example]:
        if not self.batched:
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


check_options = functools.partial(check_reader, Documents)


def load(name: str, split: str, *, data_dir: str = "", **options) -> Tfds | Documents:
    """Opens a split of a dataset; with `options`, those of `Documents`, its texts joined.

    Raises:
      FileNotFoundError: it is not prepared, or without random access; says what to run.
      ValueError: an unknown name or split.
    """
    source = Tfds(name, split, data_dir)
    return Documents(source, **options) if options else source


def spec(name: str, **options) -> Example:
    """An example of zeros by the builder's description: no file is read."""
    import tensorflow_datasets as tfds  # slow to import

    if options:  # of `Documents`
        return {"text": fake.TEXT}

    def value(feature):
        if isinstance(feature, tfds.features.Image):
            return fake.encoded([n or fake.IMAGE_SIZE for n in feature.shape])
        if isinstance(feature, tfds.features.Text):
            return fake.TEXT.decode()
        info = feature.get_tensor_info()
        zeros = np.zeros([n or 1 for n in info.shape], info.np_dtype)[()]
        return np.int32(zeros) if isinstance(zeros, np.int64) else zeros  # as `Tfds` does

    features = find_builder(name).info.features
    return {field: value(feature) for field, feature in features.items()}


def find_builder(name: str, data_dir: str = "") -> Any:
    """Returns TFDS's builder of a dataset, prepared or not."""
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=str(user_path(data_dir)) if data_dir else None)
    except tfds.core.DatasetNotFoundError:
        raise UnknownName(f"TFDS has no dataset {name!r}") from None


def class_names(name: str, data_dir: str = "", lists: Sequence[str] = ()) -> tuple[str, ...]:
    """The names of a dataset's classes by its description, prepared or not; () without a label."""
    del lists
    features = find_builder(name, data_dir).info.features
    return tuple(getattr(features["label"], "names", None) or ()) if "label" in features else ()


def _batched_reads_pay(files: int, path: str) -> bool:
    """Whether to fetch a batch's records in one call, which starts a thread for each file.

    That is 3 times faster for a single file and hides a bucket's latency, but a batch spread over
    many local files would spend more time on threads than on reading.
    """
    return files == 1 or "://" in path


def _explain(builder: Any, name: str, split: str, data_dir: str, error: Exception) -> None:
    """Raises an error that says what to do where a dataset's preparation is why it cannot open."""
    command = f"tfds build {name} --file_format=array_record"
    if data_dir:
        command += f" --data_dir={data_dir}"
    by_hand = " ".join((builder.MANUAL_DOWNLOAD_INSTRUCTIONS or "").split())
    if by_hand:
        command += f" --manual_dir=FOLDER\nFiles to fetch by hand first: {by_hand}"
    remedy = f"run\n  pip install -e '.[prepare]'\n  {command}"
    if not builder.is_prepared():
        raise FileNotFoundError(
            f"{name} is not prepared: nothing in {builder.data_path}. If it is elsewhere, set "
            f"config.data.data_dir; else prepare it once:\n{remedy}"
        ) from error
    file_format = builder.info.file_format
    if file_format is not None and not file_format.file_suffix.startswith("array_record"):
        place = os.path.relpath(builder.data_path, builder.data_dir_root)
        raise FileNotFoundError(
            f"{name} in {builder.data_path} is stored as {file_format.file_suffix}, which has no "
            "random access. Convert it into another folder, to be config.data.data_dir:\n  "
            f"pip install -e '.[prepare]'\n  tfds convert_format "
            f"--dataset_version_dir={builder.data_path} --out_file_format=array_record "
            f"--out_dir=FOLDER/{place}"
        ) from error
    splits = sorted(builder.info.splits)
    if isinstance(error, ValueError) and not set(re.findall(r"[A-Za-z_]\w*", split)) <= set(splits):
        raise ValueError(
            f"{name} in {builder.data_path} has the splits {splits}, so not {split!r}: set "
            "config.data.train_split and eval_split (only to evaluate, train_split='' will do)"
        ) from error
