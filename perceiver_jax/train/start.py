"""How a run begins: the compiled program, and the state it goes on from."""

import functools
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
from etils import epath
from ml_collections import ConfigDict

from perceiver_jax import pretrained
from perceiver_jax.config_types import ConfigError, Regex
from perceiver_jax.mesh import Layout
from perceiver_jax.train import checkpoint, sharding, transfer
from perceiver_jax.train.log import say, warn
from perceiver_jax.train.multipliers import begin_average, merge
from perceiver_jax.train.optimizer import check_patterns, make_optimizer
from perceiver_jax.train.state import TrainState, create, prepared_example
from perceiver_jax.train.step import make_eval_step, make_train_step
from perceiver_jax.train.task import Batch, Task
from perceiver_jax.train.workdir import CHECKPOINTS, CONFIG, load_config, read_exported


class Start(TypedDict):
    """The fields of `config.start`: where a new run begins; '' is none."""

    run: str  # another workdir: its whole state
    weights: str  # weights alone: see `restore_weights`
    conv_kernel: Literal["", "OIWH", "OIHW"]  # see `pretrained.load`
    fresh: tuple[Annotated[str, Regex()], ...]  # what matches is not taken from the weights
    resize_positions: bool  # interpolate learned positions of another image size


class Program(NamedTuple):
    """A task and a config, compiled for a layout of devices."""

    layout: Layout
    batch: Batch  # of jax.ShapeDtypeStruct: a prepared example
    init: Callable[[int], TrainState]  # of the seed, an argument: one program for all seeds
    target: TrainState  # of jax.ShapeDtypeStruct with shardings
    train_step: Callable
    eval_step: Callable


def build(task: Task, config: ConfigDict, devices: list[jax.Device] | None = None) -> Program:
    """Checks the sizes and compiles (lazily) what the loop calls.

    Args:
      task: what to train or evaluate.
      config: its `parallel` section says how the work is spread.
      devices: to spread it over, all by default; nothing is put on them here, so they may be
        described ones, of a machine that is not there.
    """
    layout = sharding.make_layout(config.parallel, devices)
    sharding.check_batch_size(config.batch_size, layout, accumulate=config.accumulate)
    optimizer, schedule = make_optimizer(config)
    trained = {"multipliers": config.optimizer.multipliers, "ema": config.optimizer.ema}
    init = functools.partial(create, task, optimizer, **trained)
    target = sharding.place(jax.eval_shape(init, config.seed), layout)
    check_patterns(config, target.params)
    train_step = make_train_step(task, optimizer, schedule, accumulate=config.accumulate, **trained)
    return Program(
        layout=layout,
        batch=jax.eval_shape(functools.partial(prepared_example, task)),
        init=jax.jit(init, out_shardings=jax.tree.map(lambda x: x.sharding, target)),
        target=target,
        train_step=sharding.compile_train_step(train_step, layout, target),
        eval_step=sharding.compile_eval_step(make_eval_step(task), layout, target),
    )


def start(
    config: ConfigDict, workdir: epath.Path, program: Program, *, set_aside: epath.Path | None
) -> tuple[TrainState, dict[str, Any]]:
    """Returns the state to go on from and the meta saved with it, from the first that applies."""
    run, weights = config.start.run, config.start.weights
    for field in ("conv_kernel", "fresh", "resize_positions"):
        if config.start[field] and not weights:
            raise ConfigError(f"config.start.{field} is about config.start.weights, which is empty")
    if run and weights:
        raise ValueError(
            f"set one of config.start.run={run!r} and config.start.weights={weights!r}"
        )

    # 1. This run, started before.
    directory = workdir / CHECKPOINTS
    own = checkpoint.restore_newest(directory, program.target, warn=warn, set_aside=set_aside)
    if own:
        say(f"start: going on from step {own[1]['step']} of {workdir}")
        return own

    # 2. Another run, continued with its whole state.
    if run:
        directory = epath.Path(run).expanduser() / CHECKPOINTS
        given = checkpoint.restore_newest(directory, program.target, warn=warn)
        if not given:
            raise FileNotFoundError(f"config.start.run={run!r}: no checkpoint in {directory}")
        say(f"start: continuing the run {run} from its step {given[1]['step']}")
        return given

    state = program.init(config.seed)
    meta = {"timer": {}}

    # 3. Weights only: a fresh optimizer, step 0.
    if weights:
        items, origin = restore_weights(weights, config, program)
        say(f"start: weights from {origin}, fresh optimizer")
        state = state.replace(**{name: merge(getattr(state, name), items[name]) for name in items})
        if state.ema is not None:
            state = state.replace(ema=begin_average(state.params, config.optimizer.multipliers))
        return state, meta

    # 4. Nothing.
    say(f"start: from scratch, seed {config.seed}")
    return state, meta


def restore_weights(
    weights: str, config: ConfigDict, program: Program
) -> tuple[dict[str, Any], epath.Path | str]:
    """Reads the parameters and model state of another run, or released ones of the same model.

    Args:
      weights: a workdir, a checkpoint, a run exported as safetensors, or anything that
        `pretrained.load` accepts.
      config: `model` and `start` are used.
      program: built for the model.

    Returns:
      `{'params': ..., 'model_state': ...}`, without what `config.start.fresh` leaves out, and where
      they came from.

    Raises:
      FileNotFoundError: there are none.
      ValueError: another model or size (every tensor is named), an unsafe file, or values that are
        not finite.
    """
    path = epath.Path(weights).expanduser()
    exported, section = read_exported(path), config.start
    released = exported is None and pretrained.holds_weights(weights)
    if not (released or path.is_dir()):
        raise FileNotFoundError(
            f"no weights in config.start.weights={weights!r}: it is neither a workdir, nor an "
            "exported run, a checkpoint, a file, a folder, an address or one of "
            f"{sorted(pretrained.URLS)}"
        )
    if section.conv_kernel and not released:
        raise ConfigError(
            f"config.start.conv_kernel={section.conv_kernel!r} is about released weights, and "
            f"config.start.weights={weights!r} is a run of this library: leave it empty"
        )
    if exported is not None or section.fresh or section.resize_positions:
        if exported is not None:
            saved = exported
        elif released:
            saved = pretrained.load_by_path(weights, conv_kernel=section.conv_kernel or None)
        else:
            items, weights = checkpoint.restore_weights(path, None, warn=warn)
            variables = {"params": items["params"], **items["model_state"]}
            saved = dict(checkpoint.named_leaves(jax.device_get(variables)))
        items = transfer.take(saved, program.target, program.batch, section, origin=str(weights))
    elif released:
        model = pretrained.described(config.model.to_dict(), program.batch)
        conv_kernel = section.conv_kernel or None
        _, variables = pretrained.load(weights, model=model, conv_kernel=conv_kernel)
        items = {"params": variables.pop("params"), "model_state": variables}
        where = {name: getattr(program.target, name) for name in items}
        items = jax.device_put(items, jax.tree.map(lambda x: x.sharding, where))
    else:
        items, weights = checkpoint.restore_weights(path, program.target, warn=warn)
    check_finite(items, weights)
    warn_of_bands(config, program.batch)
    return items, weights


def warn_of_bands(config: ConfigDict, batch: Batch) -> None:
    """Warns where weights were trained with other Fourier positions than the model now has."""
    if "input" not in config.get("model", {}):  # a model or a task that is made of other sections
        return
    weights, ours = config.start.weights, transfer.bands(config.model.input, batch)
    path = epath.Path(weights).expanduser()
    if name := pretrained.official_name(weights):
        released = pretrained.released(name)
        theirs = transfer.bands(released.spec["input"], released.batch)
    elif (path / CHECKPOINTS).is_dir() and (path / CONFIG).exists():
        saved = load_config(path).to_dict()
        theirs = saved.get("model", {}).get("input", {}).get("max_resolution")
    else:
        return
    if ours and theirs and tuple(theirs) != ours:
        warn(
            f"{weights} was trained with the Fourier positions of config.model.input."
            f"max_resolution={tuple(theirs)}; here they are those of {ours}, which the weights do "
            "not know"
        )


def check_finite(items: dict[str, Any], origin: epath.Path | str) -> None:
    """Raises ValueError, naming the arrays, if weights hold values that are not finite."""
    finite = jax.jit(lambda tree: jax.tree.map(lambda x: jnp.isfinite(x).all(), tree))(items)
    named = checkpoint.named_leaves(jax.device_get(finite))
    bad = [name for name, good in named if not good]
    if bad:
        raise ValueError(
            f"the weights of {origin} hold NaN or infinity in {len(bad)} arrays, {bad[:8]}: take "
            "another checkpoint"
        )
