"""Prediction with the released models, from plain arrays: images, text, pairs of frames, clips.

    model, variables = pj.load("flow")
    flow = pj.inference.optical_flow(model, variables, first, second)

Each function takes its sizes from the model, so it works at any size. The compiled program is kept
for each model and shape: a second call does not compile.
`generate` writes with a Perceiver AR of one's own.
"""

from perceiver_jax.inference.clips import autoencode
from perceiver_jax.inference.flow import disparity, optical_flow
from perceiver_jax.inference.generation import Generated, generate
from perceiver_jax.inference.images import classify
from perceiver_jax.inference.programs import TopK, load_or_random, random_weights
from perceiver_jax.inference.sampling import Sampling
from perceiver_jax.inference.text import fill_masks

__all__ = [
    "Generated",
    "Sampling",
    "TopK",
    "autoencode",
    "classify",
    "disparity",
    "fill_masks",
    "generate",
    "load_or_random",
    "optical_flow",
    "random_weights",
]
