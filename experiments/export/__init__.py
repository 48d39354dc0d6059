"""Hands a run on: `python -m experiments.export`, see `__main__`."""
