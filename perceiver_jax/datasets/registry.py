"""Sources by name. A source has `len(source)` examples; `source[i]` is a dict.

A name stands for a module of this package with two functions:

    load(split, *, data_dir, **options) -> source
    check_options(**options)            raises ValueError; opens nothing
    spec(**options) -> example      only if it reads files: zeros of the same fields and shapes

`pair_sets` and `tfds` hold many datasets each; their functions take the name first.
"""

import dataclasses
import difflib
import functools
import importlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from perceiver_jax.config_types import import_name
from perceiver_jax.data.transforms import Example
from perceiver_jax.datasets import fake, pair_sets, tfds
from perceiver_jax.datasets.arrays import into_memory
from perceiver_jax.datasets.options import check_function

GENERATED = (
    "stereograms",
    "scenes",
    "depth_digits",
    "bounce",
    "av_digits",
    "sea",
    "dominoes",
    "centre",
    "shapes",
    "mirrored",
    "entities",
)
NAMES = ("digits", "clips", "texts", "folder", "table", "mixture", "wordnet", "points")
MODULES = {name: name for name in NAMES}
MODULES |= {name: f"generated.{name}" for name in GENERATED}
SHIFTS = ("imagenet9", "waterbirds", "cue_conflict", "some_classes", "corrupted")
MODULES |= {name: f"shifts.{name}" for name in SHIFTS}

# A TFDS name has only a version behind a colon.
_FUNCTION = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What a name stands for.

    Attributes:
      load, spec, check_options: see above; `spec` is None where no files are read.
      class_names: of (data_dir, names of the lists): those known without the data or from lists.
    """

    load: Callable[..., Any]
    spec: Callable[..., Example] | None = None
    check_options: Callable[..., None] = lambda **options: None
    class_names: Callable[[str, Sequence[str]], tuple[str, ...]] = lambda data_dir, lists: ()

    @property
    def takes_options(self) -> bool:
        """Whether `load` has parameters besides the split and `data_dir`."""
        _, *others = inspect.signature(self.load).parameters
        return others != ["data_dir"]

    @property
    def takes_lists(self) -> bool:
        """Whether `load` numbers the classes of several splits together: its `lists`."""
        return "lists" in inspect.signature(self.load).parameters


def find(name: str) -> Dataset:
    """Returns the dataset of a name, with or without `blank:` before it; opens nothing."""
    name = name.removeprefix(fake.PREFIX)
    if name in MODULES:
        module = importlib.import_module(f"perceiver_jax.datasets.{MODULES[name]}")
        check = getattr(module, "check_options", Dataset.check_options)
        names = getattr(module, "class_names", Dataset.class_names)
        return Dataset(module.load, getattr(module, "spec", None), check, names)
    if name in pair_sets.SETS:
        return Dataset(
            functools.partial(pair_sets.load, name), functools.partial(pair_sets.spec, name)
        )
    if match := _FUNCTION.fullmatch(name):
        load = import_name("config.data.source", name, *match.groups())
        return Dataset(load, check_options=functools.partial(check_function, load))
    load, spec = functools.partial(tfds.load, name), functools.partial(tfds.spec, name)
    return Dataset(load, spec, tfds.check_options, functools.partial(tfds.class_names, name))


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
      name: one of `MODULES`, one of `pair_sets.SETS` (flow and stereo in local directories), or a
        TFDS name: `mnist`, `cifar10`, `c4/en`, with version if wanted; or `module:function` for a
        source of your own, opened by `function(split, data_dir=..., **options)`. `blank:NAME` is
        fake data with the fields of NAME, whose files need not be there (see `fake`).
      split: for digits `train` or `test`; for clips the name of a CSV file; for folder and table
        the name of a part; for texts a pattern of files; for mixture
        that of its parts; else a split of the set such as
        `train[10000:]`.
      data_dir: TFDS's directory, a `gs://` path included; '' is TFDS's default. For clips, texts,
        pairs, folder, table and wordnet the folder of the set.
      in_memory: decode everything once into arrays; needs images of one size, and memory.
      options: keyword arguments of the module's `load`.

    Raises:
      FileNotFoundError: the dataset is not there or not prepared; says how to get it.
      ValueError: an unknown name, split or option, or `in_memory` for images of many sizes.
    """
    options = dict(options or {})
    real = name.removeprefix(fake.PREFIX)
    dataset = find(name)
    if options and not dataset.takes_options:
        raise ValueError(f"the source {name!r} has no options, got {sorted(options)}")
    try:
        if name == real:
            source = dataset.load(split, data_dir=data_dir, **options)
            return into_memory(source) if in_memory else source
        if dataset.spec is None:
            raise ValueError(
                f"the source {real!r} reads no files: use it as it is, without {fake.PREFIX!r}"
            )
        return fake.Fake(f"{name}[{split}]", dataset.spec(**options))
    except tfds.UnknownName:
        remedy = f"tfds build {real} --file_format=array_record, and set config.data.data_dir"
        needed = "c4, wikipedia: only with apache-beam, or prepared"
        if real.startswith("glue/"):
            needed = f"glue: only with tensorflow, or prepared: {remedy}"
        near = difflib.get_close_matches(real, [*MODULES, *pair_sets.SETS], 1)
        raise ValueError(
            f"no dataset {real!r}{f' (did you mean {near[0]}?)' if near else ''}: it is neither in "
            f"registry.MODULES, pair_sets.SETS (docs/data.md) nor in TFDS ({needed})"
        ) from None


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Raises ValueError where an option is unknown or its value not allowed; opens nothing.

    Sources without options ignore them.
    """
    dataset = find(name)
    real = name.removeprefix(fake.PREFIX)
    needed = real in MODULES or _FUNCTION.fullmatch(real)  # some options have no default
    if dataset.takes_options and (options or needed):
        dataset.check_options(**options)


def stand_in(name: str) -> str:
    """The source to use without files: fake data, or `name` itself if it reads no files."""
    if name.startswith(fake.PREFIX) or find(name).spec is None:
        return name
    return fake.PREFIX + name
