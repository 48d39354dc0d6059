"""A config to its `Task`: one file for each kind of experiment."""
