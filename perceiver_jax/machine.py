"""This machine in words, and the cores that this process may use."""

import contextlib
import os
import pathlib
import platform

import jax


def cores() -> int:
    """Cores that this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor(*fields: str) -> str:
    """These fields of /proc/cpuinfo, such as 'model name', of the first core; or Python's name."""
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        facts = dict(line.replace("\t", "").split(":", 1) for line in lines[::-1] if ":" in line)
        if found := "".join(facts.get(name, "") for name in fields).strip():
            return found
    return platform.processor() or platform.machine()


def hardware(device: str = "", number: int = 1) -> str:
    """Devices and cores, such as "8 x TPU v5e, 112 of 224 cores" or "1 x AMD EPYC, 2 of 2 cores".

    Args:
      device: its kind, 'cpu' for the processor; '' asks JAX, also for the number.
      number: of devices.
    """
    if not device:
        number, device = jax.device_count(), jax.devices()[0].device_kind
    kind = processor("model name") if device == "cpu" else device
    return f"{number} x {kind}, {cores()} of {os.cpu_count()} cores"
