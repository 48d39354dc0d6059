"""Every test sees 8 devices, simulated on the CPU, and implicit rank promotion is an error.

Nearly all the time of the tests is compilation, of tiny programs that run once. So they are
compiled without optimisation, also in processes that tests start, and each program once a session,
in a cache that all of them share. Set JAX_COMPILATION_CACHE_DIR to keep the cache between sessions.
"""

import gc
import os
import pathlib
from importlib.metadata import version

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        # Halves what is left; XLA refuses flags that it does not have, and later ones have not.
        "--xla_cpu_use_fusion_emitters=false" * version("jaxlib").startswith("0.10."),
    ]
)

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


HERE = pathlib.Path(__file__).parent

# `pytest -m quick`: under a minute, some of every room. A folder, a file or one test.
QUICK = (
    "attention/test_self_attention.py",
    "data/test_augmentation.py",
    "data/test_pair_transforms.py",
    "data/test_point_transforms.py",
    "data/test_sequence_transforms.py",
    "data/test_sound_transforms.py",
    "data/test_transforms.py",
    "datasets/test_bounce.py",
    "datasets/test_fake.py",
    "datasets/test_pairs.py",
    "datasets/test_points.py",
    "datasets/test_folder.py",
    "datasets/test_mixture.py",
    "datasets/test_registry.py",
    "datasets/test_table.py",
    "datasets/test_texts.py",
    "datasets/test_wordnet.py",
    "files/",
    "inference/test_fill_masks.py",
    "inference/test_tiles.py",
    "lab/test_lab_claims.py",
    "modalities/test_text.py",
    "pretrained/test_download.py",
    "pretrained/test_labels.py",
    "pretrained/test_refusals.py",
    "train/test_checkpoint.py::test_restores_the_newest",
    "train/test_log.py",
    "train/test_loop.py::test_batch_size_must_divide",
    "test_experiments.py::test_unknown_variants_are_named",
    "test_launch.py",
    "test_metrics.py::test_mean_average_precision_by_hand",
    "test_metrics.py::test_top_accuracy",
    "test_packaging.py",
    "test_perceiver.py::test_bad_fields_are_named",
    "test_perceiver.py::test_published_sizes",
    "test_position.py",
)


def pytest_collection_modifyitems(items):
    """Marks the tests of `QUICK`."""
    for item in items:
        if item.nodeid.removeprefix("tests/").startswith(QUICK):
            item.add_marker("quick")


def pytest_ignore_collect(collection_path, config):
    """`pytest -m quick` does not even import the files that have no quick test."""
    if config.option.markexpr == "quick" and collection_path.suffix == ".py":
        name = collection_path.relative_to(HERE).as_posix()
        return not any(name.startswith(q) or q.startswith(f"{name}::") for q in QUICK) or None
    return None


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """The folder of this session's compiled programs, shared by its worker processes."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR") or base / "compiled"
    settings = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)
    return folder


@pytest.fixture(scope="module", autouse=True)
def room_for_programs():
    """Forgets the compiled programs of a process before the next one would crash it.

    Each is mapped into memory several times, and Linux allows 65,530 mappings.
    """
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 30_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def one_device(monkeypatch):
    """Trainings see one device: on several, the checkpoint library compiles a program per array."""
    from perceiver_jax.train import sharding

    make_mesh = sharding.make_mesh

    def first_device(parallel, devices=None):
        return make_mesh(parallel, jax.devices()[:1])

    monkeypatch.setattr(sharding, "make_mesh", first_device)
