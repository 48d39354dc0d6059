"""Datasets: `load` opens a split by name."""

from perceiver_jax.datasets.arrays import Arrays
from perceiver_jax.datasets.registry import load

__all__ = ["Arrays", "load"]
