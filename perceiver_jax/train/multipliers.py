"""Which parameters are trained, and how fast: `config.optimizer.multipliers`.

A pair (pattern, factor) multiplies the updates of the parameters in whose path the pattern is
found, as for `no_decay`. Of several the longest match decides, of equal ones the last. What has the
factor 0 is frozen: it has no gradient, no state of the optimizer, and a module all of whose
parameters are frozen runs as in evaluation, without dropout and with its running statistics.
"""

import contextlib
import re
from collections.abc import Sequence
from typing import Any

import jax
import optax
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from perceiver_jax.config_types import ConfigError

Multipliers = Sequence[tuple[str, float]]

# What modules are told in evaluation.
IN_EVALUATION = {"train": False, "use_running_average": True, "deterministic": True}


def deciding(name: str, multipliers: Multipliers) -> int | None:
    """Returns the index of the pair that decides for the parameter 'block/dense/kernel', if any."""
    found = [
        (len(match.group()), index)
        for index, (pattern, _) in enumerate(multipliers)
        if (match := re.search(pattern, name))
    ]
    return max(found)[1] if found else None


def factors(params: Any, multipliers: Multipliers) -> dict[str, float]:
    """Returns the factor of each parameter by its path."""
    names = flatten_dict(params, sep="/")
    indices = {name: deciding(name, multipliers) for name in names}
    return {name: 1.0 if i is None else multipliers[i][1] for name, i in indices.items()}


def split(params: Any, multipliers: Multipliers) -> tuple[Any, Any]:
    """Returns what is trained and what is frozen, each a nested dict without the other."""
    if not multipliers:
        return params, {}
    flat, factor = flatten_dict(params, sep="/"), factors(params, multipliers)
    trained = {name: x for name, x in flat.items() if factor[name]}
    frozen = {name: x for name, x in flat.items() if not factor[name]}
    return unflatten_dict(trained, sep="/"), unflatten_dict(frozen, sep="/")


def merge(base: Any, over: Any) -> Any:
    """Returns the nested dict `base` with the arrays of `over` in place of its own or added."""
    return unflatten_dict(flatten_dict(base) | flatten_dict(over))


def check_multipliers(params: Any, multipliers: Multipliers) -> None:
    """Raises ConfigError where a pair decides for no parameter, or where all are frozen."""
    names = flatten_dict(params, sep="/")
    used = {deciding(name, multipliers) for name in names}
    for index, (pattern, factor) in enumerate(multipliers):
        if index not in used:
            found = any(re.search(pattern, name) for name in names)
            why = "others have a longer match wherever it is found" if found else "found in none"
            parts = sorted({name.partition("/")[0] for name in names})
            raise ConfigError(
                f"config.optimizer.multipliers: ({pattern!r}, {factor}) decides for no parameter: "
                f"{why}; the model's parts are {parts}"
            )
    if names and not any(factors(params, multipliers).values()):
        raise ConfigError(
            f"config.optimizer.multipliers={tuple(multipliers)} freezes all parameters: nothing "
            "would be trained. To evaluate, write config.steps=0 or --mode=eval"
        )


def describe(params: Any, multipliers: Multipliers) -> list[str]:
    """Returns a line on each pair, and on what none decides for; none where there is no pair."""
    if not multipliers:
        return []
    groups: dict[int | None, list[int]] = {}
    for name, x in flatten_dict(params, sep="/").items():
        groups.setdefault(deciding(name, multipliers), []).append(x.size)
    lines = []
    for index, sizes in sorted(groups.items(), key=lambda item: -1 if item[0] is None else item[0]):
        pattern, factor = ("all other", 1.0) if index is None else multipliers[index]
        name = pattern if index is None else repr(pattern)
        how = f"trained, updates x {factor:g}" if factor else "frozen"
        lines.append(f"{name}: {sum(sizes):,} parameters in {len(sizes)} arrays {how}")
    return lines


def scale_updates(multipliers: Multipliers) -> optax.GradientTransformation:
    """Multiplies each update by its factor; the trees hold what is trained alone."""
    if {factor for _, factor in multipliers} <= {0, 1}:
        return optax.identity()

    def labels(params):
        factor = factors(params, multipliers)
        return unflatten_dict({name: str(factor[name]) for name in factor}, sep="/")

    values = {1.0, *(float(factor) for _, factor in multipliers)}
    return optax.partition({str(value): optax.scale(value) for value in values}, labels)


@contextlib.contextmanager
def frozen_in_evaluation(params: Any, multipliers: Multipliers):
    """Modules that are called in here run as in evaluation if all their parameters are frozen."""
    trained, frozen = (flatten_dict(part) for part in split(params, multipliers))
    above = {path[:n] for path in trained for n in range(len(path))}
    whole = {path[:n] for path in frozen for n in range(1, len(path))} - above

    def call(next_function, args, kwargs, context):
        if context.module.path in whole:
            told = {name: value for name, value in IN_EVALUATION.items() if name in kwargs}
            kwargs = {**kwargs, **told}
        return next_function(*args, **kwargs)

    with nn.intercept_methods(call) if whole else contextlib.nullcontext():
        yield


def average(params: Any, ema: Any) -> Any:
    """Returns the parameters to evaluate: the average of those that have one."""
    return params if ema is None else merge(params, ema)


def begin_average(params: Any, multipliers: Multipliers) -> Any:
    """Returns the average before the first step: copies of what is trained."""
    return jax.tree.map(lambda x: x.copy(), split(params, multipliers)[0])
