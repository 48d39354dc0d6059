"""Figures from arrays, by what they show. Nothing here reads files or runs a model."""

from perceiver_jax.plots.clips import Clip, comparison, reconstructions
from perceiver_jax.plots.curves import (
    cost_curves,
    psychometric_curve,
    running_mean,
    training_curves,
)
from perceiver_jax.plots.fields import disparity_colours, field_grid, flow_colours
from perceiver_jax.plots.images import (
    RIGHT,
    WRONG,
    attention_maps,
    attention_mass,
    label_probabilities,
    prediction_grid,
    show_image,
)
from perceiver_jax.plots.points import (
    cloud_attention,
    cloud_image,
    confusion,
    entity_attention,
    named_entities,
)
from perceiver_jax.plots.sequences import (
    completions,
    reading_matrix,
    reading_pixels,
    reading_text,
    symbol,
)

__all__ = [
    "RIGHT",
    "WRONG",
    "Clip",
    "attention_maps",
    "attention_mass",
    "cloud_attention",
    "cloud_image",
    "comparison",
    "completions",
    "confusion",
    "cost_curves",
    "disparity_colours",
    "entity_attention",
    "field_grid",
    "flow_colours",
    "label_probabilities",
    "named_entities",
    "prediction_grid",
    "psychometric_curve",
    "reading_matrix",
    "reading_pixels",
    "reading_text",
    "reconstructions",
    "running_mean",
    "show_image",
    "symbol",
    "training_curves",
]
