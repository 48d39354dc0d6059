"""Writes what follows a prompt with a Perceiver AR, id by id.

A plain cache of keys and values, of which the oldest leave, is not what the model computes: the
latents that are left were made with those that are gone. Two ways compute what it does:

- exact: N latents for each new id, as in an evaluation. What a token gives the cross-attend, and
  what a latent has read, depend on no other latent: they are kept. The layers run anew.
- fast: a new id is one latent, behind those whose keys and values each layer keeps. When all N
  slots are full, N / 2 latents are computed anew. So an id is predicted by N / 2 + 1 to N latents:
  the same as the model's with so many of them.

An input that is full loses its first quarter, whose place the others take.

Reference: Perceiver AR (Hawthorne et al. 2022), and its released code for the fast way.
"""

import functools
import time
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from perceiver_jax.ar import KeysValues, PerceiverAR, latent_places
from perceiver_jax.attention.softmax import Places
from perceiver_jax.inference.programs import Progress, silent
from perceiver_jax.inference.sampling import Sampling, check_sampling, draw

CHUNK = 32  # ids between two looks at the progress and at the ends of sequences
MIN_WINDOW = 64
DEFAULT = Sampling()


class Generated(NamedTuple):
    """The new `ids` of each prompt, without the end; ids of all prompts in a second."""

    ids: list[np.ndarray]
    ids_per_second: float


class Memory(NamedTuple):
    """What is kept from one id to the next.

    Attributes:
      inputs: keys and values of the cross-attend, `[B, M, H, K]`.
      latents: exact: what the last N latents have read, `[B, N, D]`; fast: keys and values of each
        layer, `[layers, B, N, H, K]`, of which the first slots are filled.
    """

    inputs: KeysValues
    latents: Any


class Ends(NamedTuple):
    """The last id of each sequence `[B]`, its place in the window and in all, and if it ended."""

    id: jax.Array
    place: jax.Array
    number: jax.Array
    ended: jax.Array


def generate(
    model: PerceiverAR,
    variables: Any,
    prompts: Sequence[np.ndarray],
    *,
    length: int,
    sampling: Sampling = DEFAULT,
    seed: int = 0,
    exact: bool = True,
    allowed: np.ndarray | None = None,
    end: int | None = None,
    progress: Progress = silent,
) -> Generated:
    """Writes the ids that follow each prompt.

    Args:
      model: whose `max_length` is M.
      variables: its parameters.
      prompts: ids of each, at least one. Of more than M the last M are read.
      length: how many new ids.
      sampling: how they are drawn.
      seed: prompt i is continued with the random numbers of `seed + i`, whatever the others are.
      exact: whether an id is predicted by N latents; else by N / 2 + 1 to N, which is faster. How
        many then depends on the other prompts too: all latents are refilled together.
      allowed: bool `[num_ids]`, False for ids that are never drawn; or `[C, num_ids]`, of which row
        t % C is for place t of a sequence, such as the channels of an image's values.
      end: the id behind which a sequence has nothing; None if it has no end.
      progress: called with (ids done, of how many).

    Raises:
      ValueError: an empty prompt, an id that the model has not, or a setting out of its range.
    """
    allowed = check_arguments(model, prompts, length, sampling, allowed)
    exact |= model.num_latents == 1
    longest, most = max(map(len, prompts)), model.max_length
    if longest > most:
        warnings.warn(f"of {longest} ids of a prompt the last {most} are read", stacklevel=2)
    # Few programs are compiled where windows are powers of two.
    window = min(most, max(1 << (longest + length - 2).bit_length(), MIN_WINDOW))
    sequences = np.stack([np.pad(x, (0, longest + length - len(x))) for x in prompts])
    sequences = sequences.astype(np.int32)
    total = np.array([len(prompt) for prompt in prompts], np.int32)
    dropped = np.maximum(total - most, 0)
    keys = jax.vmap(jax.random.key)(seed + jnp.arange(len(prompts)))
    settings = sampling, allowed, jnp.int32(-1 if end is None else end)
    ended = np.zeros(len(prompts), bool)
    rows, written, memory, slot, start = np.arange(len(prompts)), 0, None, 0, None
    while written < length and not ended.all():
        full = total - dropped > window
        if memory is None or full.any():
            kept = max(window - window // 4, 1)
            dropped = np.where(full, total - kept, dropped).astype(np.int32)
            memory = Memory(read_inputs(model, variables, cut(sequences, dropped, window)), None)
        ends = Ends(sequences[rows, total - 1], total - dropped - 1, total - 1, ended)
        if memory.latents is None or (not exact and slot == model.num_latents):
            ids = cut(sequences, dropped, window)
            memory = refill(model, exact, variables, memory.inputs, ids, ends.place)
            slot = model.num_latents // 2
        room = min(CHUNK, length - written, int((window + 1 - total + dropped).min()))
        room = room if exact else min(room, model.num_latents - slot)
        call = functools.partial(write, model, exact, variables, settings, keys)
        if start is None:
            memory, _ = call(memory, ends, slot, 0)  # compiles
            progress(0, length)
            start = time.monotonic()
        memory, new = call(memory, ends, slot, room)
        new = np.asarray(new)[:, :room]
        sequences[rows[:, None], total[:, None] + np.arange(room)] = new
        ended |= (new == end).any(axis=1) if end is not None else False
        written, slot, total = written + room, slot + room, total + np.int32(room)
        progress(length if ended.all() else written, length)
    seconds = time.monotonic() - start
    both = zip(sequences, prompts, strict=True)
    new = [row[len(prompt) : len(prompt) + written] for row, prompt in both]
    new = [ids[: before(ids, end)] for ids in new]
    return Generated(new, sum(map(len, new)) / max(seconds, 1e-9))


def before(ids: np.ndarray, end: int | None) -> int:
    """How many ids are before the end."""
    found = np.flatnonzero(ids == end)
    return int(found[0]) if found.size else len(ids)


def cut(sequences: np.ndarray, dropped: np.ndarray, window: int) -> np.ndarray:
    """The ids `[B, window]` behind those that are dropped."""
    places = np.minimum(dropped[:, None] + np.arange(window), sequences.shape[1] - 1)
    return np.take_along_axis(sequences, places, axis=1)


def check_arguments(model, prompts, length, sampling: Sampling, allowed) -> jax.Array:
    """Raises ValueError, see `generate`; returns which ids are allowed, `[C, num_ids]`."""
    if not isinstance(model, PerceiverAR):
        raise ValueError(f"generate needs a PerceiverAR, not {type(model).__name__}")
    if not len(prompts):
        raise ValueError("there is no prompt: give at least one")
    for number, prompt in enumerate(prompts):
        ids = np.asarray(prompt)
        if not ids.size:
            raise ValueError(f"prompt {number} is empty: give at least the id of a start")
        if ids.min() < 0 or ids.max() >= model.num_ids:
            bad = ids[(ids < 0) | (ids >= model.num_ids)][0]
            raise ValueError(f"prompt {number} holds {bad}; ids go from 0 to {model.num_ids - 1}")
    if length < 1:
        raise ValueError(f"length={length} is below 1 new id")
    check_sampling(sampling)
    allowed = np.ones(model.num_ids, bool) if allowed is None else np.asarray(allowed, bool)
    allowed = np.atleast_2d(allowed)
    if allowed.shape[1] != model.num_ids or not allowed.any(axis=1).all():
        raise ValueError(
            f"allowed {list(allowed.shape)} must be [C, {model.num_ids}], with an id in each row"
        )
    return jnp.asarray(allowed)


@functools.partial(jax.jit, static_argnums=0)
def read_inputs(model: PerceiverAR, variables: Any, ids: jax.Array) -> KeysValues:
    """Keys and values of the cross-attend for a window `[B, M]`."""
    return model.apply(variables, ids, method="keys_values")


@functools.partial(jax.jit, static_argnums=(0, 1))
def refill(
    model: PerceiverAR,
    exact: bool,
    variables: Any,
    inputs: KeysValues,
    ids: jax.Array,
    place: jax.Array,
) -> Memory:
    """Computes the latents before those of the last ids: N of them, or N / 2 where not exact.

    Args:
      model, exact, variables: as in `generate`.
      inputs: of the window.
      ids: the window, `[B, M]`.
      place: of the last ids, `[B]`.
    """
    slots = model.num_latents
    places = latent_places(place, slots if exact else slots // 2)
    own = jnp.take_along_axis(ids, jnp.maximum(places, 0), axis=1)
    among = Places(places, jnp.arange(ids.shape[1], dtype=jnp.int32)[None])
    z = model.apply(variables, own, among, inputs, method="read")
    if exact:
        return Memory(inputs, z)
    width = model.channels // model.num_self_attend_heads
    shape = model.num_layers, len(ids), slots, model.num_self_attend_heads, width
    cache = {name: jnp.zeros(shape, z.dtype) for name in ("key", "value")}
    of_slots = places[:, :1] + jnp.arange(slots)[None]
    apply = functools.partial(model.apply, variables, method="extend")
    return Memory(inputs, apply(z, Places(places, of_slots), cache, 0)[1])


def advance(
    model: PerceiverAR,
    exact: bool,
    variables: Any,
    memory: Memory,
    ids: jax.Array,
    place: jax.Array,
    slot: jax.Array,
) -> tuple[Memory, jax.Array]:
    """Adds the latents of the ids `[B]` at `place` `[B]`: the new memory, and logits `[B, V]`."""
    apply = functools.partial(model.apply, variables)
    new = apply(ids[:, None], place[:, None], method="keys_values")

    @jax.vmap
    def put(all_inputs, new, place):
        return jax.lax.dynamic_update_slice_in_dim(all_inputs, new, place, 0)

    inputs = {name: put(x, new[name], place) for name, x in memory.inputs.items()}
    among = jnp.arange(inputs["key"].shape[1], dtype=jnp.int32)[None]
    z = apply(ids[:, None], Places(place[:, None], among), inputs, method="read")
    if exact:
        latents = jnp.concatenate([memory.latents[:, 1:], z], axis=1)
        logits = apply(latents, latent_places(place + 1, model.num_latents), method="finish")
    else:
        of_slots = (place - slot)[:, None] + jnp.arange(model.num_latents)[None]
        places = Places(place[:, None], of_slots)
        logits, latents = apply(z, places, memory.latents, slot, method="extend")
    return Memory(inputs, latents), logits[:, -1]


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=5)
def write(
    model: PerceiverAR,
    exact: bool,
    variables: Any,
    settings: tuple[Sampling, jax.Array, jax.Array],
    keys: jax.Array,
    memory: Memory,
    ends: Ends,
    slot: jax.Array,
    count: jax.Array,
) -> tuple[Memory, jax.Array]:
    """Writes `count` ids, or until all sequences have ended: the new memory, and ids `[B, CHUNK]`.

    Args:
      model, exact, variables: as in `generate`.
      settings: how ids are drawn; which are allowed, `[C, V]`; the end.
      keys: random keys `[B]`.
      memory: of all before the last ids.
      ends: the last ids.
      slot: of a layer's cache, where the next latent goes.
      count: at most `CHUNK`.
    """
    sampling, allowed, end = settings
    start = 0, memory, ends, jnp.zeros((len(ends.id), CHUNK), jnp.int32)

    def go_on(carry):
        step, _, ends, _ = carry
        return (step < count) & ~jnp.all(ends.ended)

    def one(carry):
        step, memory, ends, written = carry
        memory, logits = advance(model, exact, variables, memory, ends.id, ends.place, slot + step)
        number = ends.number + 1
        logits = jnp.where(allowed[number % len(allowed)], logits, -jnp.inf)
        new = draw(logits, sampling, jax.vmap(jax.random.fold_in)(keys, number))
        new = jnp.where(ends.ended, 0, new)
        written = jax.lax.dynamic_update_slice_in_dim(written, new[:, None], step, 1)
        ends = Ends(new, ends.place + 1, number, ends.ended | (new == end))
        return step + 1, memory, ends, written

    _, memory, _, written = jax.lax.while_loop(go_on, one, start)
    return memory, written
