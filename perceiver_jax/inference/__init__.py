"""Using the released models: arrays as people have them in, answers as people read them out.

    model, variables = pretrained.load("flow")
    field = inference.optical_flow(model, variables, first, second)

Each function takes its sizes from the model, so it works for any size of it. A compiled program is
kept for each model and shape; a second call does not compile.
"""

from perceiver_jax.inference.clips import autoencode
from perceiver_jax.inference.flow import optical_flow
from perceiver_jax.inference.images import classify
from perceiver_jax.inference.programs import TopK, random_weights
from perceiver_jax.inference.text import fill_masks

__all__ = [
    "TopK",
    "autoencode",
    "classify",
    "fill_masks",
    "optical_flow",
    "random_weights",
]
