"""Compiled programs on disk: which folder, what a crash leaves, and what the first step tells."""

import jax
import jax.numpy as jnp
import pytest
from calling import call
from jax.experimental.compilation_cache import compilation_cache

from experiments import run
from perceiver_jax.train import compilation
from perceiver_jax.train.compilation import FirstStep, keep_programs

NAMES = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_enable_xla_caches",
)


@pytest.fixture
def no_cache(monkeypatch):
    """JAX as it is started without a cache; afterwards that of the other tests again."""
    before = {name: getattr(jax.config, name) for name in NAMES}
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def first_step():
    """Forgets what is compiled in this process, takes a step, and returns what is told."""
    jax.clear_caches()
    x, first = jnp.ones(3), FirstStep()
    with first.compiling():
        jax.jit(lambda x: jnp.sin(x) @ x)(x).block_until_ready()
    with first.compiling():
        jax.jit(lambda x: jnp.cos(x) @ x)(x)  # of a later step: not counted
    told = first.report()
    assert first.report() is None
    return told


def test_a_program_is_compiled_once_and_a_damaged_one_again(no_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(compilation, "MIN_SECONDS", 0.0)
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)
    assert first_step().endswith("and is not kept")
    keep_programs(tmp_path / "kept")
    assert not (tmp_path / "kept").exists(), "made when the first program is kept"
    cold, warm = first_step(), first_step()
    folder = tmp_path / "kept" / compilation.machine()
    assert "its program compiled in" in cold and cold.endswith(f"may find it in {folder}")
    assert warm.endswith(f"its program was kept in {folder}")
    for path in folder.glob("*-cache"):  # a crash while it was written
        path.write_bytes(path.read_bytes()[:-5])
    with pytest.warns(UserWarning, match="Error reading persistent compilation cache"):
        assert "compiled in" in first_step(), "half of an entry is not used"
    keep_programs("", given=str(tmp_path / "kept"))
    assert not list(folder.glob("*-cache"))
    first_step()
    assert list(folder.glob("*-cache")) and "was kept" in first_step()


def test_which_folder(no_cache, tmp_path, monkeypatch):
    keep_programs("", given="~/programs")
    assert jax.config.jax_compilation_cache_dir.startswith(f"{compilation.pathlib.Path.home()}/")
    keep_programs(tmp_path)  # not the first: as where the environment names one
    assert str(tmp_path) not in jax.config.jax_compilation_cache_dir
    assert jax.config.jax_persistent_cache_enable_xla_caches != "none"
    keep_programs("", given="gs://bucket/programs")
    assert jax.config.jax_compilation_cache_dir == f"gs://bucket/programs/{compilation.machine()}"
    assert jax.config.jax_persistent_cache_enable_xla_caches == "none"
    keep_programs(tmp_path, given="none")
    assert not jax.config.jax_enable_compilation_cache


@pytest.mark.parametrize(
    ("workdir", "folder"),
    [
        ("runs/digits", "runs/.jax_cache"),
        ("/data/digits/", "/data/.jax_cache"),
        ("gs://bucket/runs/a", "gs://bucket/runs/.jax_cache"),
        ("gs://bucket/a", "gs://bucket/.jax_cache"),
        ("gs://bucket", "gs://bucket/.jax_cache"),
    ],
)
def test_beside_the_workdir(workdir, folder):
    assert str(compilation.beside(workdir)) == folder


def test_programs_for_another_cpu_are_apart(monkeypatch):
    here, read = compilation.machine(), compilation.pathlib.Path.read_text
    assert compilation.machine() == here

    def other(path, **how):
        return read(path, **how).replace("avx2", "").replace("asimd", "")

    monkeypatch.setattr(compilation.pathlib.Path, "read_text", other)
    assert compilation.machine() != here


@pytest.mark.parametrize(("flag", "given"), [([], ""), (["--compilation_cache=none"], "none")])
def test_the_command_keeps_programs(flag, given, tmp_path, monkeypatch, capsys):
    kept = []
    monkeypatch.setattr(compilation, "keep_programs", lambda *of: kept.append(of))
    monkeypatch.setattr(run.loop, "train", lambda *_, **__: None)
    config = f"{run.__file__.removesuffix('experiments/run.py')}configs/digits.py:tiny"
    given_flags = [f"--config={config}", f"--workdir={tmp_path}/a", *flag]
    code, _, said = call("experiments.run", *given_flags, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0, said
    assert kept == [(tmp_path / ".jax_cache", given)]
