"""What is read: `load` opens a dataset's split by name."""

from perceiver_jax.datasets.registry import Arrays, load

__all__ = ["Arrays", "load"]
