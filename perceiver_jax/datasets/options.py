"""The options of sources that read files: keyword arguments of the class that reads them."""

from perceiver_jax.config_types import check_fields

GIVEN = ("self", "source", "split", "data_dir", "lists")  # arguments that are not options


def check_reader(reader: type, /, **options) -> None:
    """Raises ConfigError where an option is unknown or its value not allowed; opens nothing."""
    check_fields(reader.__init__, options, "config.data.source_options", given=GIVEN)
