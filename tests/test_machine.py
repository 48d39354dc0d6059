"""The machine in words, as results have it."""

import os
import pathlib

import jax

from perceiver_jax import machine

CPUINFO = "model name\t: Made Up 9\nflags\t\t: a b\n\nprocessor\t: 1\nmodel name\t: Other\n"


def test_hardware_names_the_processor_or_the_device(monkeypatch):
    cores = f"{machine.cores()} of {os.cpu_count()} cores"
    monkeypatch.setattr(pathlib.Path, "read_text", lambda *_, **__: CPUINFO)
    assert machine.hardware("NVIDIA H200", 2) == f"2 x NVIDIA H200, {cores}"
    assert machine.hardware("cpu") == f"1 x Made Up 9, {cores}"
    assert machine.hardware() == f"{jax.device_count()} x Made Up 9, {cores}"
    assert machine.processor("model name", "flags") == "Made Up 9 a b"


def test_a_system_that_does_not_tell(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(pathlib.Path, "read_text", missing)
    assert machine.processor("model name")
