"""The page of a run, which `experiments.plot` writes; see `run_page`."""
