"""What has to change in a model when its input changes, counted by program.

Two models are compared, before and after: the shapes of their parameters, and the classes of which
their modules are. Parameters of the modules `input` and `output` are not counted: these are what a
change of the input is meant to change. A baseline has no input module, so its first layer counts.
"""

import math
from collections.abc import Mapping

import jax
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from perceiver_jax.build import build
from perceiver_jax.data import transforms
from perceiver_jax.datasets import registry

OUTSIDE = ("input", "output")


def columns(before: ConfigDict, after: ConfigDict) -> Mapping[str, float]:
    """The columns of a row; two configs, which need no data.

    - `surgery_share`: share of the parameters of `after`, outside of input and output, whose path
      is new or whose shape has changed;
    - `surgery_modules`: how many classes of modules are new, wherever they are.
    """
    (old, old_classes), (new, new_classes) = map(inside, (before, after))
    kept = {path: shape for path, shape in new.items() if not path.startswith(OUTSIDE)}
    changed = sum(math.prod(s) for path, s in kept.items() if old.get(path) != s)
    return {
        "surgery_share": changed / sum(map(math.prod, kept.values())),
        "surgery_modules": len(new_classes - old_classes),
    }


def inside(config: ConfigDict) -> tuple[Mapping[str, tuple[int, ...]], set[str]]:
    """The shapes of a model's parameters by path, and the names of its modules' classes."""
    model, batch, classes = build(config.model.to_dict()), example(config), set()

    def note(call, args, kwargs, context):
        classes.add(type(context.module).__name__)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        variables = jax.eval_shape(
            lambda key, batch: model.init(key, batch, train=False), jax.random.key(0), batch
        )
    leaves = jax.tree_util.tree_leaves_with_path(variables["params"])
    return {"/".join(str(k.key) for k in path): x.shape for path, x in leaves}, classes


def example(config: ConfigDict) -> Mapping[str, np.ndarray]:
    """A batch of one as the evaluation has it, of a stand-in for files."""
    data = config.data
    options = data.source_options.to_dict()
    source = registry.load(registry.stand_in(data.source), data.eval_split, options=options)
    found = transforms.parse(data.eval)(source[0], np.random.default_rng(0))
    return {name: np.asarray(value, np.float32)[None] for name, value in found.items()}
