"""The `data` section of a config to batches, for every experiment."""

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict

import jax
from ml_collections import ConfigDict

from perceiver_jax import flops
from perceiver_jax.config_types import (
    ConfigError,
    Count,
    NonNegative,
    Number,
    Pattern,
    Positive,
    Rate,
)
from perceiver_jax.data import pipeline, transforms
from perceiver_jax.datasets import copies, images, registry
from perceiver_jax.files.paths import user_path
from perceiver_jax.train import sharding
from perceiver_jax.train.task import Batch, Task, naming_fields
from perceiver_jax.train.workdir import CONFIG, load_config

HEAD = "output/logits/kernel"  # the parameters that belong to the classes


class Data(TypedDict):
    """The fields of `config.data` that every experiment has."""

    source: Annotated[str, Pattern(".+", "that names a source")]  # see `registry.load`
    data_dir: str
    in_memory: bool
    readers: Annotated[str, Pattern("auto|threads:[0-9]{1,3}|workers:[1-9][0-9]{0,2}",
                                    "'auto', 'threads:N' or 'workers:N'")]  # fmt: skip
    train_split: str  # '' to evaluate only
    eval_split: Annotated[str, Pattern(".+", "that names a split")]
    train: str  # transforms, see `transforms.parse`
    eval: str
    eval_batch_size: Count
    source_options: Mapping[str, Any]  # of the source, see `registry.find`
    train_source_options: Mapping[str, Any]
    # The names of the classes; () until the data are opened. With this field the config's
    # model.output.num_classes may be None: then it is that of the data.
    classes: NotRequired[tuple[str, ...]]


class Normalized(Data):
    """The fields of images and videos: mean and standard deviation of the channels, in 0..255."""

    mean: tuple[Number, ...]
    std: tuple[Positive, ...]


class Labelled(Normalized):
    """The fields of examples with one label each."""

    label_smoothing: Rate


class Mixed(Labelled):
    """The fields of images that mixup or CutMix may mix."""

    mix_alpha: NonNegative  # of mixup and CutMix; 0 is neither
    mix_partner: NotRequired[Literal["batch", "fresh"]]


class TaskData(NamedTuple):
    """The data of a `Task`, lines of its description, and the source of the evaluation."""

    train_data: Callable[[int], Iterator[Batch]]
    eval_data: Callable[[], Iterator[Batch]]
    description: tuple[str, ...]
    eval_source: Any

    def first_examples(self, count: int) -> Batch:
        """The first examples of the evaluation, at most a batch; the readers are closed again."""
        with contextlib.closing(self.eval_data()) as batches:
            return {name: x[:count] for name, x in next(batches).items()}

    def task(self, model, prepare, *, about: tuple[str, ...] = (), per="example", **fields) -> Task:
        """A `Task` on these data, whose FLOPs are those of one evaluation example.

        Args:
          model, prepare, fields: of the `Task`.
          about: lines of its description, after those on the data.
          per: what an example is called in the line on the FLOPs.
        """
        example = self.first_examples(1)
        with naming_fields(example, "config.data.eval"):
            prepared = jax.eval_shape(lambda batch: prepare(batch, None), example)
            size = flops.forward(model, prepared)
        about = (*about, f"{size / 1e9:.3g} GFLOP per {per} (forward)")
        return self.sized_task(model, prepare, example, size, about=about, **fields)

    def sized_task(self, model, prepare, example, size: float, *, about, **fields) -> Task:
        """A `Task` on these data, with `size` FLOPs per example, which `about` describes."""
        return Task(
            model=model,
            example=example,
            train_data=self.train_data,
            eval_data=self.eval_data,
            prepare=prepare,
            flops_per_example=size,
            description=(*self.description, *about),
            classes=tuple(getattr(self.eval_source, "classes", None) or ()),
            **fields,
        )


def open_data(
    config: ConfigDict,
    *,
    num_classes: int | tuple[int, ...] | None = None,
    partners: bool = False,
) -> TaskData:
    """Opens the sources: reads headers or names, and all data where they are kept in memory.

    Args:
      config: its `data` section is used, and `batch_size`, `seed` and `parallel`. Where it has the
        field `classes`, that is set, and so is `model.output.num_classes` where it is None.
      num_classes: the model's, for examples with one `label` each; other labels are refused. None
        is that of `config.data.classes`, or checks none. A tuple has those of each task.
      partners: whether a training example comes with another one to be mixed with.
    """
    data = config.data
    load = functools.partial(
        registry.load, data.source, data_dir=data.data_dir, in_memory=data.in_memory
    )
    options = data.source_options.to_dict()
    train_options = options | data.train_source_options.to_dict()
    unread = []
    dataset = registry.find(data.source)
    if train_options and not dataset.takes_options:
        # A config made for a generated source reads another one: a command line has no way to
        # empty a dict.
        unread = [f"source_options: not read, {data.source} has none"]
        options = train_options = {}
    if dataset.takes_lists:
        lists = {"lists": tuple(filter(None, (data.train_split, data.eval_split)))}
        options, train_options = options | lists, train_options | lists
    eval_source = load(split=data.eval_split, options=options)
    if "classes" in data:
        num_classes = name_classes(config, eval_source)
    if not any(re.search(pattern, HEAD) for pattern in config.start.fresh):
        check_class_order(eval_source, num_classes, config.start.weights)
        check_same_classes(data.get("classes", ()), config.start.weights)
    train_source = load(split=data.train_split, options=train_options) if data.train_split else None
    train_line, eval_line = transforms.parse(data.train), transforms.parse(data.eval)
    train = {"batch_size": config.batch_size, "seed": config.seed}
    mixing = {"partners": partners}
    evaluate = {"batch_size": data.eval_batch_size}

    def common():
        part, parts = sharding.reader(sharding.make_mesh(config.parallel))
        return {
            "readers": data.readers,
            "process_index": part,
            "process_count": parts,
            "num_classes": num_classes,
        }

    def train_data(start_step: int):
        if train_source is None:
            raise ValueError("config.data.train_split is '': such a config can only be evaluated")
        return pipeline.train_batches(
            train_source, train_line, start_step=start_step, **train, **mixing, **common()
        )

    def eval_data():
        return pipeline.eval_batches(eval_source, eval_line, **evaluate, **common())

    description = [f"eval: {pipeline.describe(eval_source, eval_line, **evaluate)}"]
    if train_source is not None:
        description.insert(0, f"train: {pipeline.describe(train_source, train_line, **train)}")
    for source in filter(None, (train_source, eval_source)):
        description += [line for line in getattr(source, "notes", ()) if line not in description]
    if options.get("find_copies", True) and hasattr(train_source, "files"):
        description += copies.describe(train_source.files, eval_source.files)
    if names := data.get("classes", ()):
        description.append(f"{len(names)} classes: {images.some(names, 20)}")
    return TaskData(train_data, eval_data, (*description, *unread), eval_source)


def name_classes(config: ConfigDict, source: Any) -> int:
    """Writes the classes of the data into the config, and their number where it has none.

    Returns:
      The number of the model's classes.

    Raises:
      ConfigError: the data have other classes than those in the config, which a run has written
        there, or more than the model, or do not tell.
    """
    output, known = config.model.output, config.data.classes
    if hasattr(source, "classes"):
        found = tuple(source.classes)
        if known and known != found:
            raise ConfigError(
                f"{source!r} has other classes than config.data.classes: "
                f"{differences(known, found)}"
            )
        known = found
    if output.num_classes is None and not known:
        raise ConfigError(f"set config.model.output.num_classes: {source!r} tells no classes")
    number = output.num_classes or len(known)
    if len(known) > number:
        raise ConfigError(
            f"{source!r} has {len(known)} classes, but config.model.output.num_classes={number}"
        )
    config.data.classes, output.num_classes = known, number
    return number


def check_class_order(source: Any, num_classes: int | None, weights: str) -> None:
    """Refuses weights for a list of too few classes, whose sorted names are not their numbers."""
    found = len(getattr(source, "classes", ()))
    by_name = not getattr(source, "classes_fixed", True)
    if weights and num_classes and by_name and found != num_classes:
        raise ValueError(
            f"{source!r} names {found} classes, config.start.weights={weights!r} knows "
            f"{num_classes}: put a classes.txt with all their names, in the order of the weights, "
            "into config.data.data_dir"
        )


def check_same_classes(classes: Sequence[str], weights: str) -> None:
    """Refuses weights of a run on other classes, unless the model's last layer is a fresh one."""
    path = user_path(weights)
    if not classes or not weights or not (path / CONFIG).is_file():
        return
    theirs = load_config(path).get("data", {}).get("classes", ())
    if theirs and theirs != classes:
        raise ConfigError(
            f"config.start.weights={weights!r} is a run on other classes: "
            f"{differences(theirs, classes)}. config.start.fresh=('output/logits',) starts a new "
            "last layer"
        )


def differences(theirs: Sequence[str], ours: Sequence[str]) -> str:
    """How our classes differ from theirs."""
    gone, new = sorted(set(theirs) - set(ours)), sorted(set(ours) - set(theirs))
    parts = [("without", gone), ("with", new)]
    found = [f"{word} {images.some(names)}" for word, names in parts if names]
    return "; ".join(found) or "in another order"
