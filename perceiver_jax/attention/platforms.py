"""What each platform gets, and why. The one place that tells platforms and generations apart.

- The latents' attention: `attends_by`; of splash attention `splash_block` and `splash_keys`.
- The stack of latent layers: `is_one_loop`.
- The kernel of cross-attention: `has_pallas`, and memory for it, `kernel_bytes`; `has_gpu_kernel`.
- Memory for chunks of weights where there is none: `chunk_bytes`.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from perceiver_jax import mesh

# Bytes of float32 attention weights that a device holds at a time. On a CPU they fit into its
# cache; on a TPU they leave room in its vector memory.
CHUNK_BYTES = {"cpu": 2**22, "gpu": 2**27, "tpu": 2**24}

# Bytes of a TPU core's vector memory by `device_kind` (from v2 to v4 16 MiB, as in Pallas' table of
# jax 0.10), and the part of it that the kernel may fill: XLA keeps some for itself.
VMEM_BYTES = {
    "TPU v5 lite": 2**27,
    "TPU v5": 2**26,
    "TPU v5p": 2**26,
    "TPU v6 lite": 2**27,
    "TPU7x": 2**26,
}
VMEM_PART = 0.75

# Pallas has no bfloat16 products for their matrix units (libtpu 0.0.42).
NO_PALLAS = ("TPU v2", "TPU v3")

LANES = 128  # of a TPU's vectors; splash attention takes that many queries or keys at least

# Whose compilers have room for blocks of 1,024 latents in bfloat16 with heads of 128 channels: a
# tenth fewer cycles than blocks of 512, and less to pad.
WIDE_BLOCKS = ("TPU v5 lite", "TPU v6 lite")

# cuDNN takes heads of 128 channels at most, from Hopper on of 256 (as JAX checks it).
WIDE_HEADS = ("NVIDIA H", "NVIDIA GH", "NVIDIA B", "NVIDIA GB")

# The GPUs for which the kernel of cross-attention was compiled; how many multiprocessors they have.
HOPPER, GPU_PROCESSORS = ("NVIDIA H100", "NVIDIA H200", "NVIDIA GH200"), 132


def chunk_bytes() -> int:
    """Bytes of attention weights that may exist at a time."""
    return CHUNK_BYTES.get(mesh.platform(), 2**27)


def has_pallas() -> bool:
    """Whether kernels are written for this TPU: that of cross-attention, splash attention."""
    return mesh.platform() == "tpu" and not mesh.device_kind().startswith(NO_PALLAS)


def has_gpu_kernel() -> bool:
    """Whether the kernel of cross-attention is written for this GPU."""
    return mesh.platform() == "gpu" and mesh.device_kind().startswith(HOPPER)


def kernel_bytes() -> int:
    """Bytes of vector memory for the kernel of cross-attention."""
    return int(VMEM_PART * VMEM_BYTES.get(mesh.device_kind(), 2**24))


def is_one_loop() -> bool:
    """Whether `stack` applies latent layers: one loop over repeats and layers, prepared weights.

    On TPUs and GPUs: loops of loops copy what the backward pass needs once for each loop, which
    takes as long as the products. A CPU has less to gain, and `layers` takes less memory there.
    """
    return mesh.platform() != "cpu"


def projects_to_heads(width: int) -> bool:
    """Whether `stack` projects to heads before latents, `[B, H, N, width]`, without a transpose.

    On TPUs with heads of whole vectors. Narrower heads would be filled up wherever they are kept,
    and cuDNN takes latents before heads.
    """
    return mesh.platform() == "tpu" and width % LANES == 0


def splash_block(width: int, dtype: jax.typing.DTypeLike) -> int:
    """Latents in a block of splash attention, at most, for heads of `width` channels."""
    wide = mesh.device_kind().startswith(WIDE_BLOCKS) and dtype == jnp.bfloat16 and width <= LANES
    return 1024 if wide else 512


def splash_keys(width: int, dtype: jax.typing.DTypeLike) -> int:
    """Keys of splash attention in vector memory, at most: of several parts, gradients are summed.

    All chips' compilers have room for these: 2,048, or 512 KiB of wider heads.
    """
    return 2048 if width <= LANES else 2**19 // (width * jnp.dtype(dtype).itemsize)


def attends_by(query: jax.Array, value: jax.Array) -> Literal["blocks", "splash", "cudnn"]:
    """Who computes self-attention of heads `[B, H, N, K]` and `[B, H, N, V]` in one dtype.

    - 'splash' on TPUs from v4 on: JAX's kernel, which keeps the weights in vector memory.
    - 'cudnn' on GPUs: NVIDIA's, in half precision, for all heads that are not too wide.
    - 'blocks' elsewhere: `self_attention`, groups of heads and blocks of queries at a time.
    """
    platform, dtype = mesh.platform(), query.dtype
    layout = mesh.current_layout()
    split = bool(jax.sharding.get_abstract_mesh().manual_axes)  # by a caller, who did not say so
    if has_pallas() and dtype in (jnp.float32, jnp.bfloat16) and query.shape[2] >= LANES:
        return "blocks" if split and layout and not layout.local else "splash"
    widest = 256 if mesh.device_kind().startswith(WIDE_HEADS) else 128
    if platform == "gpu" and dtype in (jnp.float16, jnp.bfloat16):
        return "cudnn" if max(query.shape[-1], value.shape[-1]) <= widest else "blocks"
    return "blocks"
