"""Compiled programs kept on disk from one start to the next, and how long a start compiles.

JAX's persistent cache finds a program again by its text, the compiler's version and flags, and the
kind of the devices. Process 0 writes and all processes read.
"""

import collections
import contextlib
import functools
import hashlib
import importlib
import os
import pathlib
import platform
import time
import zlib
from collections.abc import Iterator

import jax

from perceiver_jax.files.paths import user_path
from perceiver_jax.machine import processor
from perceiver_jax.train.log import duration
from perceiver_jax.train.workdir import in_bucket

FOLDER = ".jax_cache"
LOOKED = "looked"  # a file as old as the last look for damaged programs
NONE = "none"  # as a folder: keep nothing
MIN_SECONDS = 0.2  # reading a program that compiles faster saves nothing
ZSTD = bytes.fromhex("28b52ffd")  # JAX compresses with zstd where there is a package for it
COMPILED = "/jax/core/compile/backend_compile_duration"
READ = "/jax/compilation_cache/compile_time_saved_sec"


def keep_programs(folder: str | os.PathLike, given: str = "") -> None:
    """Keeps compiled programs in a folder. Call it before anything is compiled.

    Args:
      folder: where by default: not used where JAX has a folder already, of the variable
        JAX_COMPILATION_CACHE_DIR. May be in a bucket. Made when the first program is kept.
      given: by the user: a folder, which goes before both, or 'none'; '' gives none.
    """
    if given == NONE:
        jax.config.update("jax_enable_compilation_cache", False)
        return
    if jax.config.jax_compilation_cache_dir and not given:
        return
    place = user_path(given or folder) / machine()
    jax.config.update("jax_compilation_cache_dir", os.fspath(place))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_SECONDS)
    if in_bucket(place):
        # XLA writes its own files, of GPUs' autotuning, and knows local folders alone.
        jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    elif jax.process_index() == 0:
        remove_damaged(place)


def machine() -> str:
    """A name of this kind of CPU: programs for another may use instructions that it lacks."""
    features = processor("model name", "flags", "Features")
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"


def beside(workdir: str | os.PathLike) -> pathlib.Path:
    """The folder of the programs of this run and of its neighbours, by default."""
    workdir = user_path(workdir)
    whole = in_bucket(workdir) and len(workdir.parts) <= 3  # a bucket has nothing beside
    return (workdir if whole else workdir.parent) / FOLDER


def remove_damaged(place: pathlib.Path) -> None:
    """Removes programs cut short by a crash: JAX would pass them by, and never replace them.

    Looks at those that are newer than the last look.
    """
    with contextlib.suppress(OSError):  # nothing there, or not ours to change
        looked = place / LOOKED
        since = looked.stat().st_mtime if looked.exists() else 0.0
        now = time.time()
        for path in place.glob("*-cache"):
            if path.stat().st_mtime >= since and not is_whole(path.read_bytes()):
                path.unlink()
        if place.exists():
            looked.touch()
            os.utime(looked, (now, now))


def is_whole(entry: bytes) -> bool:
    """Whether a file of the cache can be decompressed here."""
    unpack = [zlib.decompress]
    if entry.startswith(ZSTD):
        unpack = []
        for name in ("compression.zstd", "zstandard"):
            with contextlib.suppress(ImportError):
                unpack.append(importlib.import_module(name).decompress)
    try:
        unpack[0](entry)
    except Exception:  # each package has an error of its own
        return False
    return True


class FirstStep:
    """Measures the first step of a run, from its beginning until the result is there."""

    def __init__(self):
        self._begin = time.monotonic()
        self._counted = collections.Counter()
        self._told = False

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """Around the call of the step: counts what is compiled or read inside."""
        before = collections.Counter(_totals())
        try:
            yield
        finally:
            if not self._told:
                self._counted += _totals() - before

    def report(self) -> str | None:
        """When the step has ended: what to print; None afterwards, or if nothing was compiled."""
        told, self._told = self._told, True
        counted, folder = self._counted, jax.config.jax_compilation_cache_dir
        if told or not counted["programs"]:
            return None
        after = f"first step after {duration(time.monotonic() - self._begin)}"
        if counted["read"] == counted["programs"]:
            return f"{after}: its program was kept in {folder}"
        compiled = f"{after}: its program compiled in {duration(counted['seconds'])}"
        if not (folder and jax.config.jax_enable_compilation_cache):
            return f"{compiled} and is not kept"
        return f"{compiled}, the next start may find it in {folder}"


@functools.cache
def _totals() -> collections.Counter:
    """Programs of this process, from now on: how many, how many were read, seconds for both."""
    totals = collections.Counter()

    def listen(event: str, seconds: float, **_) -> None:
        if event == COMPILED:
            totals["programs"] += 1
            totals["seconds"] += seconds
        elif event == READ:
            totals["read"] += 1

    jax.monitoring.register_event_duration_secs_listener(listen)
    return totals
