"""Checkpoints: saved in the background and verified when read; older ones replace a damaged one.

A checkpoint is the folder `<workdir>/checkpoints/<step>` with three Orbax items:

    weights    params, model_state and, where there is one, the parameters' average `ema`: all that
               fine-tuning, evaluation and plots need
    training   step, opt_state and the random key: with `weights`, the whole state
    meta       JSON: step, config, seed, timer, versions, and for each array of the two items its
               shape, dtype and checksum

Orbax notices a missing or truncated file, but not a flipped bit in array data, and it casts to the
requested dtype without notice. The list in `meta` finds both.

One file, because saving, reading and verifying share the items and their records.
"""

import contextlib
import importlib.metadata
import platform
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict

from perceiver_jax.config_types import Count, check
from perceiver_jax.train import distributed
from perceiver_jax.train.multipliers import average
from perceiver_jax.train.optimizer import path_name
from perceiver_jax.train.state import TrainState
from perceiver_jax.train.workdir import CHECKPOINTS, in_bucket

T = TypeVar("T")

WEIGHTS, TRAINING, META = "weights", "training", "meta"


class Mismatch(ValueError):
    """A readable checkpoint of another model or optimizer."""


class Unrestorable(RuntimeError):
    """No checkpoint can be read, although there are some."""


class NotSaved(RuntimeError):
    """A checkpoint could not be written; the earlier ones are whole."""


@contextlib.contextmanager
def open_manager(directory: epath.Path, keep: int) -> Iterator[ocp.CheckpointManager]:
    """Opens a folder for saving; keeps the `keep` newest checkpoints.

    Raises:
      ValueError: `keep` is below 1.
    """
    check(Count, keep, "config.checkpoints_kept")
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        enable_async_checkpointing=True,
        cleanup_tmp_directories=True,  # what a killed process left half written
    )
    manager = ocp.CheckpointManager(absolute(directory), options=options)
    try:
        yield manager
    except BaseException:
        with contextlib.suppress(Exception):  # the first error matters more
            manager.close()
        raise
    finish(manager)
    manager.close()


@contextlib.contextmanager
def raise_not_saved(manager: ocp.CheckpointManager) -> Iterator[None]:
    """Turns errors inside into NotSaved, except those of devices."""
    try:
        yield
    except jax.errors.JaxRuntimeError:
        raise
    except Exception as error:  # the system and the libraries that write raise many types
        with contextlib.suppress(Exception):  # the save before this one may still run
            manager.wait_until_finished()
        steps = checkpoints(manager.directory)
        kept = f"checkpoint {steps[0].name} is whole" if steps else "there is none yet"
        raise NotSaved(
            f"a checkpoint could not be written to {manager.directory} ({kept}). "
            f"{first_line(error)}\nMake room there, or set right what it says, and run the same "
            "command again to go on."
        ) from error


def finish(manager: ocp.CheckpointManager) -> None:
    """Waits for the save in the background.

    Raises:
      NotSaved: it failed.
    """
    with raise_not_saved(manager):
        manager.wait_until_finished()


def save(manager: ocp.CheckpointManager, state: TrainState, meta: dict[str, Any]) -> int:
    """Starts saving `state`; returns its step once the arrays have been copied.

    Args:
      manager: from `open_manager`.
      state: its step must not be in the folder yet.
      meta: JSON values to keep beside it; see `versions`.

    Raises:
      NotSaved: it cannot be saved, or the save before it failed in the background.
    """
    items = pack(state)
    step = int(jax.device_get(state.step))
    meta = {**meta, "step": step, "arrays": array_records(items)}
    with raise_not_saved(manager):
        manager.save(
            step,
            args=ocp.args.Composite(
                **{name: ocp.args.StandardSave(item) for name, item in items.items()},
                **{META: ocp.args.JsonSave(meta)},
            ),
        )
    return step


def restore_newest(
    directory: epath.Path,
    target: TrainState,
    *,
    warn: Callable[[str], None],
    set_aside: epath.Path | None = None,
) -> tuple[TrainState, dict[str, Any]] | None:
    """Restores the newest checkpoint that is whole.

    Args:
      directory: of numbered checkpoints; need not exist.
      target: a state of `jax.ShapeDtypeStruct` with shardings.
      warn: called with a line about each damaged checkpoint.
      set_aside: damaged checkpoints newer than the one restored are moved here, so that their
        steps can be saved again; None leaves them.

    Returns:
      State and meta, or None where there is no checkpoint at all.

    Raises:
      Mismatch: the newest readable one holds other arrays.
      Unrestorable: all are damaged (none is moved).
      ValueError: not all processes see the same checkpoints.
    """
    paths = agreed(checkpoints(directory))
    if not paths:
        return None
    restored, path = first_whole(paths, lambda path: restore(path, target), warn=warn)
    for bad in paths[: paths.index(path)] if set_aside else ():
        distributed.on_process_zero(lambda bad=bad: move_aside(bad, set_aside))
        warn(f"moved {bad} to {set_aside}; going on from {path}")
    return restored


def first_whole(
    paths: list[epath.Path], restore: Callable[[epath.Path], T], *, warn: Callable[[str], None]
) -> tuple[T, epath.Path]:
    """Returns `restore(path)` of the first checkpoint that is not damaged, and its path.

    Raises:
      Mismatch: as `restore` does.
      Unrestorable: all are damaged.
    """
    damaged = []
    for path in paths:
        try:
            return restore(path), path
        except Mismatch:
            raise
        except Exception as error:  # Orbax and TensorStore raise many types, `Exception` included
            damaged.append(f"{path.name}: {first_line(error)}")
            more = ", trying the one before" if path != paths[-1] else ""
            warn(f"checkpoint {path} is damaged{more}. {first_line(error)}")
    raise Unrestorable(
        f"no checkpoint in {paths[0].parent} can be read (nothing was moved):\n  "
        + "\n  ".join(damaged)
        + "\nPut one back from a copy, or choose another workdir to start again."
    )


def restore(path: epath.Path, target: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """Restores the whole state of one checkpoint, and its meta.

    Raises:
      Mismatch: other names, shapes or dtypes than `target`; all of them are listed.
      Exception: the checkpoint is damaged.
    """
    items, meta = read(path, jax.eval_shape(pack, target), target)
    key = jax.random.wrap_key_data(items[TRAINING].pop("key"))
    return TrainState(**items[WEIGHTS], **items[TRAINING], key=key), meta


def restore_weights(
    source: epath.Path, target: TrainState | None, *, warn: Callable[[str], None]
) -> tuple[dict[str, Any], epath.Path]:
    """Restores parameters, of which the average where there is one, and model state only.

    Args:
      source: a workdir (its newest whole checkpoint is taken) or one checkpoint's folder.
      target: as for `restore_newest`; None restores all that the checkpoint holds, on one device.
      warn: called with a line about each damaged checkpoint.

    Returns:
      `{'params': ..., 'model_state': ...}` and the checkpoint they came from.

    Raises:
      FileNotFoundError: no checkpoint there.
      Mismatch, Unrestorable: as above.
    """
    own = (source / WEIGHTS).is_dir()
    paths = agreed([source] if own else checkpoints(source / CHECKPOINTS))
    if not paths:
        raise FileNotFoundError(
            f"no weights in {source}: it is neither a workdir with checkpoints nor a checkpoint "
            f"(a folder with {WEIGHTS!r} in it)"
        )

    def restore_from(path):
        saved = saved_weights(path)
        wanted = target or saved
        if saved.ema is not None:
            places = flatten_dict(wanted.params)
            ema = {name: places.get(name, x) for name, x in flatten_dict(saved.ema).items()}
            wanted = wanted.replace(ema=unflatten_dict(ema))
        else:
            wanted = wanted.replace(ema=None)
        items, _ = read(path, {WEIGHTS: weights_of(wanted)}, wanted)
        params = average(items[WEIGHTS]["params"], items[WEIGHTS].get("ema"))
        return {"params": params, "model_state": items[WEIGHTS]["model_state"]}

    return first_whole(paths, restore_from, warn=warn)


def saved_weights(path: epath.Path) -> TrainState:
    """Returns the shapes of a checkpoint's parameters and model state, on one device."""
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
        args = ocp.args.Composite(**{META: ocp.args.JsonRestore()})
        arrays = reader.restore(absolute(path), args=args)[META]["arrays"]
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=place)
        for name, (shape, dtype, _) in arrays.items()
    }
    weights = {"model_state": {}} | unflatten_dict(shapes, sep="/")[WEIGHTS]
    return TrainState(step=None, opt_state=None, key=None, **weights)


def checkpoints(directory: epath.Path) -> list[epath.Path]:
    """Returns the folders of finished checkpoints, newest first."""
    directory = epath.Path(directory)
    if not directory.is_dir():
        return []
    numbered = [path for path in directory.iterdir() if path.name.isdigit()]
    # Folders cannot be renamed into place in a bucket: there a file in them says that it is whole.
    whole = [path for path in numbered if ocp.utils.is_checkpoint_finalized(path)]
    return sorted(whole, key=lambda path: -int(path.name))


def agreed(paths: list[epath.Path]) -> list[epath.Path]:
    """Returns `paths` after checking that all processes see the same ones.

    Raises:
      ValueError: they are not the same in all processes.
    """
    names = [path.name for path in paths]
    if not distributed.same(" ".join(names)):
        raise ValueError(
            f"process {jax.process_index()} sees the checkpoints {names}, and another process sees "
            "others: all need the same folder. A network file system may take a minute to show "
            "what is new; then run all processes again"
        )
    return paths


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the libraries that a checkpoint depends on."""
    found = {"python": platform.python_version()}
    for name in ("perceiver_jax", "jax", "flax", "optax", "orbax-checkpoint"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""  # run from a checkout that is not installed
    return found


def pack(state: TrainState, key_data: Callable = jax.random.key_data) -> dict[str, Any]:
    """Returns the items that are saved of a state; a typed key becomes its uint32 data."""
    return {
        WEIGHTS: weights_of(state),
        TRAINING: {
            "step": state.step,
            "opt_state": state.opt_state,
            "key": key_data(state.key),
        },
    }


def weights_of(state: TrainState) -> dict[str, Any]:
    """Returns the item `weights`."""
    ema = {} if state.ema is None else {"ema": state.ema}
    return {"params": state.params, "model_state": state.model_state, **ema}


def read(
    path: epath.Path, shapes: dict[str, Any], target: TrainState
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads the items named in `shapes` and checks every array; returns them and the meta."""
    places = pack(jax.tree.map(lambda x: x.sharding, target), key_data=lambda place: place)
    wanted = jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        shapes,
        {name: places[name] for name in shapes},
    )
    # A process that fails to read its part would leave the others waiting in Orbax. So each process
    # reads alone, and they agree afterwards.
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process_{me}"
    )
    with ocp.Checkpointer(
        ocp.CompositeCheckpointHandler(), multiprocessing_options=alone
    ) as reader:

        def load(**args):
            args = ocp.args.Composite(**args)
            return distributed.all_or_raise(lambda: reader.restore(absolute(path), args=args))

        meta = load(**{META: ocp.args.JsonRestore()})[META]
        saved = {n: v for n, v in meta["arrays"].items() if n.split("/", 1)[0] in shapes}
        check_arrays(path, saved, wanted)
        items = load(**{name: ocp.args.StandardRestore(item) for name, item in wanted.items()})
    items = {name: items[name] for name in shapes}
    sums = {name: checksum for name, (_, _, checksum) in array_records(items).items()}
    wrong = [name for name, checksum in sums.items() if checksum != saved[name][2]]
    if wrong:
        raise OSError(f"the data of {len(wrong)} arrays has changed since it was saved: {wrong}")
    return items, meta


def check_arrays(path: epath.Path, saved: dict[str, Any], wanted: Any) -> None:
    """Raises Mismatch with every array that is missing, unexpected or of another shape or dtype."""
    expected = {n: [list(x.shape), x.dtype.name] for n, x in named_leaves(wanted)}
    lines = [f"missing: {name} {expected[name]}" for name in expected.keys() - saved.keys()]
    lines += [f"unexpected: {name} {saved[name][:2]}" for name in saved.keys() - expected.keys()]
    lines += [
        f"differs: {name} is {saved[name][:2]}, the model has {expected[name]}"
        for name in expected.keys() & saved.keys()
        if saved[name][:2] != expected[name]
    ]
    if lines:
        raise Mismatch(
            f"checkpoint {path} is not of this model and optimizer:\n  "
            + "\n  ".join(sorted(lines))
            + "\nUse the config it was made with, or start from its weights alone "
            "(config.start.weights) without what differs, as config.start.fresh=('output',)."
        )


def array_records(items: Any) -> dict[str, list]:
    """Returns `{path: [shape, dtype, checksum]}` of every array."""
    names, leaves = zip(*named_leaves(items), strict=True)
    sums = jax.device_get(checksums(list(leaves)))
    return {
        name: [list(leaf.shape), leaf.dtype.name, int(checksum)]
        for name, leaf, checksum in zip(names, leaves, sums, strict=True)
    }


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
    """Returns (path, leaf) pairs."""
    return [(path_name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


@jax.jit
def checksums(arrays: list[jax.Array]) -> list[jax.Array]:
    """Returns a uint32 per array: the sum of its words, each times its own odd number, mod 2^32.

    Odd factors make any single changed word change the sum. Sums of integers do not depend on how
    an array is spread over devices, and each device sums its own part.
    """

    def checksum(x):
        x = x.astype(jnp.uint8) if x.dtype == jnp.bool_ else x
        word = np.dtype(f"uint{8 * min(x.dtype.itemsize, 4)}")
        words = jax.lax.bitcast_convert_type(x, word).astype(jnp.uint32).reshape(-1)
        factors = 2 * jnp.arange(words.size, dtype=jnp.uint32) + 1
        return jnp.sum(words * factors, dtype=jnp.uint32)

    return [checksum(x) for x in arrays]


def absolute(path: epath.Path) -> epath.Path:
    """Returns the path as Orbax needs it: absolute."""
    return path if in_bucket(path) else epath.Path(path).absolute()


def first_line(error: Exception) -> str:
    """Returns the type of an error and the first line of its message."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def move_aside(path: epath.Path, folder: epath.Path) -> epath.Path:
    """Moves a checkpoint into `folder`, under a name not taken; returns where it is now."""
    folder.mkdir(parents=True, exist_ok=True)
    attempt = 0
    while (goal := folder / (f"{path.name}-{attempt}" if attempt else path.name)).exists():
        attempt += 1
    return path.rename(goal)
