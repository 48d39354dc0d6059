"""The optimizers and learning-rate schedules of the Perceiver papers, from `config.optimizer`.

LAMB (You et al. 2020, arXiv:1904.00962) as in the Perceiver IO ImageNet recipe (Jaegle et al. 2021,
arXiv:2107.14795, appendix): clip the global norm, Adam, add the decayed weights, scale by the
trust ratio of each layer, then the schedule.
"""

import collections
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypedDict

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from perceiver_jax.config_types import (
    ConfigError,
    Fraction,
    NonNegative,
    Positive,
    Rate,
    Regex,
    Whole,
    check_fields,
)
from perceiver_jax.train import multipliers

# Scanned layers keep their parameters stacked along axis 0, below a path `layers/`. The papers'
# trust ratio is per layer, so there axis 0 counts layers and is not part of the tensor.
STACKED = r"(^|/)layers/"


class Optimizer(TypedDict):
    """The fields of `config.optimizer`; see `make_optimizer`."""

    name: Literal["lamb", "adamw"]
    learning_rate: NonNegative
    reference_batch_size: Whole
    b1: Rate
    b2: Rate
    eps: Positive
    weight_decay: NonNegative
    no_decay: tuple[Annotated[str, Regex()], ...]
    clip_norm: NonNegative
    multipliers: tuple[tuple[Annotated[str, Regex()], NonNegative], ...]  # see `multipliers`
    ema: Rate  # of the parameters' average, which is evaluated; 0 is none
    schedule: Mapping[str, Any]  # of the function in `SCHEDULES`


def make_optimizer(config: ConfigDict) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Builds the optimizer and its schedule.

    Args:
      config: `batch_size`, `steps` and the section `optimizer`: `name` ('lamb' or 'adamw'),
        `learning_rate` (multiplied by `batch_size / reference_batch_size`, or as it is where that
        is 0), `b1`, `b2`, `eps`, `weight_decay`, `no_decay` (regular expressions searched in
        'block/dense/kernel'; what matches is not decayed), `clip_norm` (a global
        norm of all gradients that there are; 0 is no clipping), `multipliers` (see `multipliers`)
        and `schedule` (see `make_schedule`). `ema` is for `make_train_step`.

    Returns:
      The gradient transformation, of trees that hold what is trained alone, and the schedule, step
      to learning rate.

    Raises:
      ValueError: an unknown name or field.
    """
    section = config.optimizer
    if section.name not in ("lamb", "adamw"):
        raise ValueError(f"config.optimizer.name is {section.name!r}; write 'lamb' or 'adamw'")
    peak = section.learning_rate
    if section.reference_batch_size:
        peak *= config.batch_size / section.reference_batch_size
    schedule = make_schedule(peak, config.steps, **section.schedule)
    no_decay = tuple(section.no_decay)
    transforms = [
        optax.clip_by_global_norm(section.clip_norm) if section.clip_norm else optax.identity(),
        optax.scale_by_adam(b1=section.b1, b2=section.b2, eps=section.eps),
        optax.add_decayed_weights(
            section.weight_decay, mask=lambda params: decay_mask(params, no_decay)
        ),
        scale_by_layer_trust_ratio() if section.name == "lamb" else optax.identity(),
        optax.scale_by_learning_rate(schedule),
    ]
    if section.multipliers:
        transforms.append(multipliers.scale_updates(section.multipliers))
    return optax.chain(*transforms), schedule


def check_patterns(config: ConfigDict, params: Any) -> None:
    """Raises ValueError where patterns of `config.optimizer` match no parameter of the model."""
    decay_mask(params, config.optimizer.no_decay, check=True)
    multipliers.check_multipliers(params, config.optimizer.multipliers)


def path_name(path: Sequence[Any]) -> str:
    """Returns a pytree path as 'block/dense/kernel'."""
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def decay_mask(params: Any, no_decay: Sequence[str], *, check: bool = False) -> Any:
    """Returns a tree of bools: True where no pattern of `no_decay` is found in the path.

    A single pattern may match nothing (one recipe serves models with and without batch norm), but
    a list without any match in all the parameters of a model is a mistake, which `check` finds.

    Raises:
      ValueError: `check`, patterns are given and no parameter matches any of them.
    """
    patterns = [re.compile(pattern) for pattern in no_decay]
    mask = jax.tree_util.tree_map_with_path(
        lambda path, _: not any(pattern.search(path_name(path)) for pattern in patterns), params
    )
    if check and patterns and all(jax.tree.leaves(mask)):
        names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        raise ValueError(
            f"config.optimizer.no_decay={tuple(no_decay)} matches none of the parameters; "
            "write () to decay them all, or a pattern found in one of:\n  " + "\n  ".join(names)
        )
    return mask


def scale_by_layer_trust_ratio(stacked: str = STACKED) -> optax.GradientTransformation:
    """Scales each update by |parameter| / |update|, layer by layer (LAMB's equation 1).

    As `optax.scale_by_trust_ratio`, which treats a leaf as one tensor, except that leaves whose
    path matches `stacked` hold one tensor for each index of axis 0. A zero norm gives a ratio of 1.
    """

    def norm(x: jax.Array, layers: bool) -> jax.Array:
        axes = tuple(range(int(layers), x.ndim))
        squares = jnp.square(x.astype(jnp.float32))
        return jnp.sqrt(jnp.sum(squares, axis=axes, keepdims=True))

    def scale(path, update, param):
        layers = bool(re.search(stacked, path_name(path)))
        size, change = norm(param, layers), norm(update, layers)
        zero = (size == 0) | (change == 0)
        ratio = jnp.where(zero, 1.0, size / jnp.where(zero, 1.0, change))
        return update * ratio.astype(update.dtype)

    def update_fn(updates, state, params=None):
        if params is None:
            raise ValueError("the trust ratio needs the parameters: update(updates, state, params)")
        return jax.tree_util.tree_map_with_path(scale, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update_fn)


def make_schedule(peak: float, steps: int, *, name: str, **fields: Any) -> optax.Schedule:
    """Returns `step -> learning rate` for one of the schedules below, after a linear warm-up.

    Args:
      peak: the highest learning rate.
      steps: the length of the run.
      name: 'constant', 'cosine', 'constant_cosine' or 'steps'.
      **fields: exactly the keyword arguments of that schedule.

    Raises:
      ValueError: the name is unknown; a field is missing or unexpected.
    """
    if name not in SCHEDULES:
        raise ValueError(f"config.optimizer.schedule.name is {name!r}; choose from {[*SCHEDULES]}")
    make = SCHEDULES[name]
    takes = set(inspect.signature(make).parameters) - {"steps"}
    if takes != set(fields):
        raise ValueError(
            f"config.optimizer.schedule: {name!r} takes the fields {sorted(takes)}; "
            f"missing {sorted(takes - set(fields))}, unexpected {sorted(set(fields) - takes)}"
        )
    check_fields(make, fields, "config.optimizer.schedule", given=("steps",))
    warmup_steps = fields["warmup_steps"]
    if warmup_steps > max(steps, 0):
        raise ConfigError(
            f"config.optimizer.schedule.warmup_steps={warmup_steps} is not allowed: write a whole "
            f"number from 0 to config.steps={steps}"
        )
    schedule = make(steps, **fields)
    if not warmup_steps:
        return lambda step: peak * schedule(step)
    warm_up = optax.linear_schedule(0.0, 1.0, warmup_steps)
    return lambda step: peak * warm_up(step) * schedule(step)


def constant(steps: int, *, warmup_steps: Whole) -> optax.Schedule:
    """1 throughout."""
    del steps, warmup_steps
    return optax.constant_schedule(1.0)


def constant_cosine(
    steps: int, *, warmup_steps: Whole, constant_fraction: Fraction, end_value: NonNegative
) -> optax.Schedule:
    """1 for `constant_fraction` of the run, then half a cosine to `end_value` (of the peak).

    Perceiver IO trains ImageNet with 0.5, 0.0 and no warm-up (arXiv:2107.14795, appendix).
    """
    begin = max(constant_fraction * steps, warmup_steps)
    decay = optax.cosine_decay_schedule(1.0, max(steps - begin, 1), alpha=end_value)
    return optax.join_schedules([optax.constant_schedule(1.0), decay], [begin])


def cosine(steps: int, *, warmup_steps: Whole, end_value: NonNegative) -> optax.Schedule:
    """Half a cosine from 1, at the end of the warm-up, to `end_value` (of the peak)."""
    return constant_cosine(
        steps, warmup_steps=warmup_steps, constant_fraction=0.0, end_value=end_value
    )


def piecewise(
    steps: int, *, warmup_steps: Whole, boundaries: tuple[Fraction, ...], factor: NonNegative
) -> optax.Schedule:
    """1, multiplied by `factor` at each of `boundaries` (fractions of the run).

    Perceiver (arXiv:2103.03206, section 4.1): 120 epochs, 0.1 at epochs 84, 102 and 114, which is
    (0.7, 0.85, 0.95).
    """
    del warmup_steps
    knots = collections.Counter(round(boundary * steps) for boundary in boundaries)
    return optax.piecewise_constant_schedule(1.0, {k: factor**n for k, n in knots.items()})


SCHEDULES = {
    "constant": constant,
    "cosine": cosine,
    "constant_cosine": constant_cosine,
    "steps": piecewise,
}
