"""Tensors by their Haiku or Hugging Face names <-> our variables, bit by bit.

A tensor of ours has, by its `kind` in `names`, these shapes in the other two formats:

| kind     | ours           | Haiku          | Hugging Face                      |
|----------|----------------|----------------|-----------------------------------|
| `same`   | any            | the same       | the same                          |
| `linear` | `[in, out]`    | `[in, out]`    | `[out, in]`                       |
| `conv`   | `[H, W, I, O]` | `[H, W, I, O]` | `[O, I, H, W]`, or `[O, I, W, H]` |
| `norm`   | `[C]`          | `[1, 1, 1, C]` | `[C]`                             |
| `row`    | `[C]`          | `[1, C]`       | `[1, C]`                          |

The order of a convolution's axes depends on the file; its shape does not tell. PyTorch's order is
`[O, I, H, W]`. The Hugging Face checkpoints hold `[O, I, W, H]`, each filter transposed, because
the script that converted the official files reversed all axes.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from perceiver_jax.pretrained.models import Released
from perceiver_jax.pretrained.names import Name, identify, names, num_layers

CONV_KERNELS = ("OIHW", "OIWH")


def to_variables(
    tensors: Mapping[str, np.ndarray],
    released: Released,
    format: str,
    *,
    source: str = "tensors",
    conv_kernel: str = "OIHW",
    hint: str = "",
) -> Any:
    """Converts tensors by name to the model's variables, as NumPy arrays.

    Args:
      tensors: one flat mapping.
      released: the model at its size.
      format: "haiku" (module and parameter joined by `/`) or "huggingface".
      source: what errors name as the origin.
      conv_kernel: axes of a Hugging Face convolution, one of `CONV_KERNELS`.
      hint: last line of an error.

    Raises:
      ValueError: naming every tensor that is missing, not expected, or has the wrong shape.
    """
    shapes = _flat(released.shapes)
    table, unnamed = _table(released, shapes)
    known = {getattr(n, format) for n in table} - {""}
    problems = [f"missing: {path} {shapes[path].shape}, in no released model" for path in unnamed]
    problems += [
        f"missing: {getattr(n, format)} {_their_shape(n, shapes, format)}"
        for n in table
        if n.path and getattr(n, format) not in tensors
    ]
    problems += [f"unexpected: {k} {np.shape(tensors[k])}" for k in tensors if k not in known]
    for n in table:
        key = getattr(n, format)
        if not n.path or key not in tensors:
            continue
        shape, wanted = np.shape(tensors[key]), _their_shape(n, shapes, format)
        if shape != wanted:
            problems.append(f"wrong shape: {key} is {shape}, must be {wanted}")
        elif not jnp.issubdtype(tensors[key].dtype, jnp.floating):
            problems.append(f"wrong type: {key} is {tensors[key].dtype}, must be floating")
    if problems:
        found = identify(tensors)
        other = (
            f" Its names are those of {found[1]!r}." if found and found[1] != released.name else ""
        )
        lines = "\n  ".join(sorted(problems))
        raise ValueError(f"{source} is not {released.name!r} at this size.{other}\n  {lines}{hint}")

    flat = _assemble(tensors, table, format, conv_kernel)
    return jax.tree.unflatten(jax.tree.structure(released.shapes), [flat[path] for path in shapes])


def by_path(
    tensors: Mapping[str, np.ndarray],
    name: str,
    format: str,
    *,
    source: str = "tensors",
    conv_kernel: str = "OIHW",
) -> dict[str, np.ndarray]:
    """Tensors of the released model `name` -> its variables by path, at the sizes that they have.

    Arguments as above. What the model has and the tensors lack is absent from the result.

    Raises:
      ValueError: tensors that the model does not have, or layers that do not stack.
    """
    table = names(name, num_layers(tensors))
    known = {getattr(n, format) for n in table}
    if unexpected := sorted(set(tensors) - known):
        raise ValueError(
            f"{source} is not {name!r}: it also holds {len(unexpected)} other tensors, "
            f"{unexpected[:8]}"
        )
    there = [n for n in table if n.path and getattr(n, format) in tensors]
    try:
        return _assemble(tensors, there, format, conv_kernel)
    except (IndexError, ValueError) as error:
        raise ValueError(f"{source} is not {name!r}: {error}") from error


def _assemble(tensors, table, format, conv_kernel) -> dict[str, np.ndarray]:
    """Arrays by path, float32; the layers of a stack are rows of one array."""
    rows: dict[str, list] = {}
    for n in table:
        if n.path:
            x = np.asarray(tensors[getattr(n, format)], np.float32)
            rows.setdefault(n.path, []).append(_to_ours(x, n, format, conv_kernel))
    stacked = {n.path for n in table if n.layer is not None}
    return {path: np.stack(r) if path in stacked else r[0] for path, r in rows.items()}


def foreign(tensors: Mapping[str, Any], released: Released, format: str) -> list[str]:
    """Returns the names that the released model does not have."""
    table = names(released.name, released.spec["encoder"]["num_self_attends_per_block"])
    known = {getattr(n, format) for n in table}
    layer = re.compile(r"(self_attends\.\d+|self_attention(_\d+)?)(?=[./])")  # of any number
    known |= {layer.sub("LAYER", name) for name in known}
    return sorted(name for name in tensors if not {name, layer.sub("LAYER", name)} & known)


def to_tensors(variables: Any, released: Released, format: str) -> dict[str, np.ndarray]:
    """Our variables -> float32 tensors by their Haiku or Hugging Face name (axes `OIHW`).

    The counters of running statistics are left out; our variables have none.

    Raises:
      ValueError: naming every variable that the model does not have in that shape, or misses.
    """
    shapes = _flat(released.shapes)
    have = {path: np.asarray(x, np.float32) for path, x in _flat(variables).items()}
    problems = [f"missing: {p} {x.shape}" for p, x in shapes.items() if p not in have]
    problems += [f"unexpected: {p} {x.shape}" for p, x in have.items() if p not in shapes]
    problems += [
        f"wrong shape: {p} is {have[p].shape}, must be {x.shape}"
        for p, x in shapes.items()
        if p in have and have[p].shape != x.shape
    ]
    if problems:
        lines = "\n  ".join(sorted(problems))
        raise ValueError(f"variables are not those of {released.name!r} at this size.\n  {lines}")
    result = {}
    table, unnamed = _table(released, shapes)
    if unnamed:
        raise ValueError(f"{released.name!r} has no names for {unnamed}")
    for n in table:
        if n.path and getattr(n, format):
            x = have[n.path] if n.layer is None else have[n.path][n.layer]
            result[getattr(n, format)] = _to_theirs(x, n, format)
    return result


def _table(released: Released, shapes: Mapping[str, Any]) -> tuple[list[Name], list[str]]:
    """(names of the model's variables, paths of those that no released model has)."""
    table = names(released.name, released.spec["encoder"]["num_self_attends_per_block"])
    unnamed = shapes.keys() - {n.path for n in table}
    return [n for n in table if not n.path or n.path in shapes], sorted(unnamed)


def _flat(variables: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}


def _their_shape(n: Name, shapes: Mapping[str, Any], format: str) -> tuple[int, ...]:
    shape = shapes[n.path].shape if n.layer is None else shapes[n.path].shape[1:]
    return _to_theirs(np.broadcast_to(np.float32(0), shape), n, format).shape


def _to_theirs(x: np.ndarray, n: Name, format: str) -> np.ndarray:
    if n.kind == "row":
        return x[None]
    if format == "haiku":
        return x[None, None, None] if n.kind == "norm" else x
    if n.kind == "linear":
        return x.T
    return x.transpose(3, 2, 0, 1) if n.kind == "conv" else x


def _to_ours(x: np.ndarray, n: Name, format: str, conv_kernel: str) -> np.ndarray:
    if n.kind == "row":
        return x[0]
    if format == "haiku":
        return x[0, 0, 0] if n.kind == "norm" else x
    if n.kind == "linear":
        return x.T
    if n.kind == "conv":
        return x.transpose([conv_kernel.index(axis) for axis in "HWIO"])
    return x
