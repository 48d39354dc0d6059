"""Searches for settings with which a step fits, by compiling it."""

import math
from collections.abc import Callable, Iterator

from ml_collections import ConfigDict

from experiments.plan.program import OutOfMemory, Step, compile_step

SHARD_ABOVE = 2**16  # numbers; smaller parameters are not worth spreading


def remedies(config: ConfigDict, rows: int, excess: float) -> Iterator[dict[str, object]]:
    """Settings to try by the name of the field, the cheapest first.

    All keep the batch, and each keeps the settings before it. A step that needs `excess` times the
    available memory is tried with at least that many microbatches.

    Args:
      config: whose step does not fit.
      rows: of the batch on each device.
      excess: needed memory / available memory.
    """
    fields = {}
    # A baseline has no encoder, and keeps all its activations.
    if "encoder" in config.model and config.model.encoder.remat != "full":
        fields |= {"model.encoder.remat": "full"}
        yield dict(fields)
    parts = 2 ** max(math.ceil(math.log2(max(excess, 1.0))), 1)
    for factor in [n for n in range(parts, rows + 1) if rows % n == 0]:
        fields |= {"accumulate": config.accumulate * factor}
        yield dict(fields)
    if not config.parallel.shard_params_above:
        yield fields | {"parallel.shard_params_above": SHARD_ABOVE}


def what_fits(
    config: ConfigDict, devices: list, error: OutOfMemory, say: Callable[[str], None] = print
) -> tuple[dict[str, object], Step] | None:
    """Returns the first of `remedies` with which the step fits, and that step; else None."""
    rows = config.batch_size // (len(devices) // config.parallel.model) // config.accumulate
    excess = error.used / error.limit if error.limit else 1.0
    for fields in remedies(config, rows, excess):
        say(f"trying {flags_of(fields)}")
        changed = config.copy_and_resolve_references()
        changed.update_from_flattened_dict(fields)
        try:
            return fields, compile_step(changed, devices)
        except OutOfMemory as again:
            say(f"does not fit: {again}")
    return None


def flags_of(fields: dict[str, object]) -> str:
    """Settings as they are written on the command line."""
    return " ".join(f"--config.{name}={value}" for name, value in fields.items())
