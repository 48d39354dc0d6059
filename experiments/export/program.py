"""A run's model as a StableHLO program: preprocessed and scored in one function of arrays.

`model.stablehlo` is what `jax.export` serializes, a function of (variables by path, inputs by
field). The number of examples is symbolic, so one program answers batches of any size.

Our attention chooses its order of contractions and its chunks from the batch size, which is unknown
here. So the program is the map of one example's program over the batch (`jax.vmap`): the choices
are those of one example. What depends on parameters alone is computed once, as in any batch. The
memory that attention weights take grows with the batch.
"""

import json
import pathlib
import shutil
from collections.abc import Sequence

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import export
from ml_collections import ConfigDict

from experiments.export import answer
from experiments.tasks.ask import Scores
from perceiver_jax.config_types import ConfigError
from perceiver_jax.data import transforms

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def save(
    folder: pathlib.Path, config: ConfigDict, asked: Scores, variables, platforms: Sequence[str]
) -> list[str]:
    """Writes the program, its variables, what goes in and out, and a script that runs it.

    Returns:
      What the caller of the program must do.

    Raises:
      ValueError: an unknown platform.
    """
    if unknown := sorted(set(platforms) - set(PLATFORMS)):
        raise ValueError(f"--platforms: {unknown} are none of {list(PLATFORMS)}")
    flat = flatten_dict(jax.device_get(variables), sep="/")
    exported = trace(asked, flat, platforms)
    try:
        data = exported.serialize()
    except ImportError as error:
        raise ImportError("StableHLO needs flatbuffers: pip install -e '.[export]'") from error
    (folder / "model.stablehlo").write_bytes(data)
    np.savez(folder / "variables.npz", **flat)
    shutil.copy(answer.__file__, folder / "answer.py")
    about = interface(config, asked, exported)
    (folder / "interface.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return [f"{name}: {text}" for name, text in about["inputs"].items()] + [about["caller"]]


def check_scores(config: ConfigDict, asked: object) -> None:
    """Raises ConfigError unless the run scores classes or tags."""
    if not getattr(asked, "fixed_size", False):
        raise ConfigError(
            f"config.experiment={config.experiment!r} scores no classes of examples of one size, "
            "and only such runs have a StableHLO form: --to=safetensors takes every run"
        )


def trace(asked: Scores, flat, platforms: Sequence[str]) -> export.Exported:
    """The program of `answer`, for any number of examples."""

    def one(variables, inputs):
        batch = {name: x[None] for name, x in inputs.items()}
        logits = asked.logits(unflatten_dict(variables, sep="/"), batch)[0]
        return {"logits": logits, "probabilities": asked.activation(logits)}

    (size,) = export.symbolic_shape("batch")
    inputs = {n: jax.ShapeDtypeStruct((size, *x.shape), x.dtype) for n, x in asked.example.items()}
    shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in flat.items()}
    program = jax.jit(jax.vmap(one, in_axes=(None, 0)))
    return export.export(program, platforms=platforms)(shapes, inputs)


def interface(config: ConfigDict, asked: Scores, exported: export.Exported) -> dict:
    """What goes in and out, as plain values."""
    line = transforms.parse(config.data.eval)
    before = transforms.Pipeline(line.steps[:-1], line.functions[:-1])  # without keep(...)
    caller = f"The caller first does to each example on its own: {before}." if before.steps else ""
    (_, inputs), _ = jax.tree.unflatten(exported.in_tree, exported.in_avals)
    outputs = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    return {
        "inputs": {name: f"{x.dtype} {x.shape}" for name, x in inputs.items()},
        "outputs": {name: f"{x.dtype} {x.shape}" for name, x in outputs.items()},
        "caller": caller or "Examples go in as they are.",
        "evaluation_line": config.data.eval,
        "classes": asked.names,
        "parts": asked.parts,
        "platforms": list(exported.platforms),
        "jax": jax.__version__,
    }
