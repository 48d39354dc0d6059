"""The options of sources: keyword arguments of the class or function that reads them."""

import inspect
from collections.abc import Callable

from perceiver_jax.config_types import check_fields

GIVEN = ("self", "source", "split", "data_dir", "lists")  # arguments that are not options


def check_reader(reader: type, /, **options) -> None:
    """Raises ConfigError where an option is unknown or its value not allowed; opens nothing."""
    check_fields(reader.__init__, options, "config.data.source_options", given=GIVEN)


def check_function(load: Callable, /, **options) -> None:
    """As `check_reader`, for the parameters of a source of your own; `**options` allow any."""
    parameters = inspect.signature(load).parameters.values()
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        check_fields(load, options, "config.data.source_options", given=GIVEN)
