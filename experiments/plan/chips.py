"""TPUs and GPUs: what a chip has, which slices there are, and the least time that work takes.

Peaks are published ones, for bfloat16: v3, v4, v5e, v5p and v6e by Google Cloud's "System
architecture" pages (cloud.google.com/tpu/docs), v2 and the links of v2 and v3 by Jouppi et al. 2020
("A domain-specific supercomputer for training deep neural networks", Table 3), those of v4 by
Jouppi et al. 2023 (arXiv:2304.01433, Table 4). Clocks follow from the peaks: 2, 4, 8, 4 and 8
units of 128x128 multipliers for v2 to v5p, 4 of 256x256 for v6e. H100: NVIDIA's data sheet of the
SXM model, without sparsity; 900 GB/s of NVLink are 450 each way.
"""

import dataclasses
import importlib.util
import os
import re
from typing import Any

from jax.experimental import topologies

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One generation.

    Attributes:
      flops: per second.
      hbm_bytes: of main memory; a program may use a little less.
      hbm_rate: bytes per second.
      link_rate: bytes per second that the chip can send, over all its links together.
      devices: JAX devices on a chip: of v2 and v3, each core is one.
      slices: examples of topologies.
      clock: cycles per second.
      tells_cycles: whether the compiler does, for each instruction.
      options: for `topologies.get_topology_desc`.
    """

    flops: float
    hbm_bytes: float
    hbm_rate: float
    link_rate: float
    devices: int
    slices: tuple[str, ...]
    clock: float
    options: tuple[tuple[str, Any], ...] = ()
    tells_cycles: bool = True


FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "16x16")
CHIPS = {
    "v2": Chip(46e12, 16 * GIB, 700e9, 248e9, 2, ("2x2", "4x4", "8x8", "16x16"), 0.7e9),
    "v3": Chip(123e12, 32 * GIB, 900e9, 328e9, 2, ("2x2", "4x4", "8x8", "16x16"), 0.94e9),
    "v4": Chip(
        275e12,
        32 * GIB,
        1200e9,
        300e9,
        1,
        ("2x2x1", "2x2x2", "2x2x4", "4x4x4"),
        1.05e9,
        (("chip_config_name", "megacore"),),
    ),
    "v5e": Chip(197e12, 16 * GIB, 819e9, 200e9, 1, FLAT, 1.5e9),
    "v5p": Chip(459e12, 95 * GIB, 2765e9, 600e9, 1, ("2x2x1", "2x2x2", "2x2x4", "4x4x4"), 1.75e9),
    "v6e": Chip(918e12, 32e9, 1638e9, 400e9, 1, FLAT, 1.75e9),
    "h100": Chip(989e12, 84942979072, 3352e9, 450e9, 1, ("1", "8"), 1.83e9, tells_cycles=False),
}

# An H100 SXM as XLA describes the GPU that it compiles for (NVIDIA's data sheet; the limits of
# compute capability 9.0 are those of the CUDA C++ programming guide, "Compute Capabilities").
H100 = """
platform_name: "CUDA"
device_description_str: "NVIDIA H100 80GB HBM3"
dnn_version_info { major: 9 minor: 12 patch: 0 }
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  memory_bandwidth: 3352000000000
  device_memory_size: 84942979072
  l2_cache_size: 52428800
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  shared_memory_per_core: 233472
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}
"""

# Keeps libtpu from looking for a TPU, and lets several processes load it.
LIBTPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
NO_CUDA = (
    "compiling for a GPU takes JAX's CUDA plugin, which is not installed here (the GPU itself is "
    "not needed). Run\n  pip install -e '.[plan_gpu]'"
)
NO_LIBTPU = (
    "compiling for a TPU takes its compiler, libtpu, which is not installed here (the TPU itself "
    "is not needed). Run\n  pip install -e '.[tpu]'"
)


class NoCompiler(RuntimeError):
    """The compiler for these chips is not installed."""


def examples() -> str:
    """All generations with slices of each, for messages."""
    return "; ".join(f"{name}:" + ", ".join(chip.slices) for name, chip in CHIPS.items())


def read_topology(name: str) -> tuple[Chip, tuple[int, ...]]:
    """`"v5e:8x8"` -> the chip and the slice's sides, in chips.

    Raises:
      ValueError: no such generation, or no sizes.
    """
    generation, _, sides = name.partition(":")
    form = r"[1-8]" if generation == "h100" else r"[1-9]\d*(x[1-9]\d*){1,2}"
    if generation not in CHIPS or not re.fullmatch(form, sides):
        raise ValueError(
            f"--topology={name!r} is no slice of TPUs or host of GPUs. There are, for example: "
            f"{examples()}"
        )
    return CHIPS[generation], tuple(map(int, sides.split("x")))


def slice_devices(name: str) -> list[Any]:
    """Described devices of a slice: programs can be compiled for them, but not run.

    Raises:
      ValueError: the compiler does not know such a slice.
      NoCompiler: libtpu is not installed.
    """
    chip, sides = read_topology(name)
    if name.startswith("h100"):
        return gpu_devices(*sides)
    for variable, value in LIBTPU.items():
        os.environ.setdefault(variable, value)
    options = dict(chip.options)
    if set(sides) == {1}:  # else a host's four chips are expected
        options["chips_per_host_bounds"] = (1,) * 3
    try:
        return list(
            topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices
        )
    except Exception as error:
        if "not installed" in str(error):
            raise NoCompiler(NO_LIBTPU) from error
        raise ValueError(
            f"--topology={name!r}: the compiler knows no such slice "
            f"({str(error).splitlines()[0]}). Some that it knows: {examples()}"
        ) from error


def has_cuda() -> bool:
    """Whether JAX's plugin for GPUs is installed."""
    find = importlib.util.find_spec
    return bool(find("jax_plugins") and find("jax_plugins.xla_cuda13"))


def answer_for_the_gpu() -> None:
    """Tells JAX the version and capability that it asks a GPU for before a call of cuDNN.

    There is none to ask, and no public way to answer.
    """
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    cudnn.check_cudnn_version = lambda: 91200
    cudnn.check_compute_capability = lambda *_: True
    cudnn.is_cuda_compute_capability_equal = lambda *_: False


def gpu_devices(count: int) -> list[Any]:
    """Described H100s of one host.

    Raises:
      NoCompiler: the plugin is not installed.
    """
    if not has_cuda():
        raise NoCompiler(NO_CUDA)
    answer_for_the_gpu()
    return list(
        topologies.get_topology_desc(
            platform="cuda",
            topology_name="h100",
            topology=f"1x1x{count}",  # hosts of a slice, slices, GPUs of a host
            target_config=H100,
        ).devices
    )


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds that each resource of a device is busy, at the published peak."""

    compute: float
    memory: float
    links: float

    @property
    def seconds(self) -> float:
        """The longest: no step is faster."""
        return max(self.compute, self.memory, self.links)

    @property
    def bound(self) -> str:
        """The resource that takes the longest."""
        return max(("compute", "memory", "links"), key=lambda name: getattr(self, name))


def roofline(chip: Chip, *, flops: float, memory_bytes: float, sent_bytes: float) -> Roofline:
    """The least time of work given per *device*, which has a share of its chip."""
    share = chip.devices
    return Roofline(
        compute=flops * share / chip.flops,
        memory=memory_bytes * share / chip.hbm_rate,
        links=sent_bytes * share / chip.link_rate,
    )
