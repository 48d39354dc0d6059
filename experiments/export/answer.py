"""Answers with an exported model. Needs this folder, jax and flatbuffers.

    python answer.py answers.npz image=images.npy     # a field and its array, see interface.json

or in a program: `answer = load(); answer(image=images)["probabilities"]`.
"""

import pathlib
import sys

import jax
import numpy as np
from jax import export

HERE = pathlib.Path(__file__).parent


def load(folder=HERE):
    """The model as a function of arrays by field; it returns arrays by name."""
    program = export.deserialize((folder / "model.stablehlo").read_bytes())
    with np.load(folder / "variables.npz") as file:
        variables = jax.device_put(dict(file))
    run = jax.jit(program.call)
    return lambda **inputs: run(variables, inputs)


if __name__ == "__main__":
    output, *arguments = sys.argv[1:]
    fields = (argument.split("=", 1) for argument in arguments)
    np.savez(output, **load()(**{name: np.load(path) for name, path in fields}))
