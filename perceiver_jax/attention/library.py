"""Self-attention by the kernels of others: splash attention on TPUs, cuDNN's on GPUs.

Shapes: B examples, H heads, N latents, K channels of a query or key head, V of a value head.
"""

import math

import jax
import jax.numpy as jnp

from perceiver_jax import mesh
from perceiver_jax.attention.platforms import LANES, splash_block, splash_keys
from perceiver_jax.attention.softmax import scale

KEPT = "kept"  # the name of what the backward pass of a latent layer keeps in `stack`


def keeps_named(primitive, *_, **params) -> bool:
    """A policy of `jax.checkpoint`: keeps what is named `KEPT`, and what cuDNN's forward gives.

    JAX does not name the latter, of which the backward pass also needs the statistics.
    """
    if primitive.name == "name":
        return params["name"] == KEPT
    return primitive.name.startswith("dot_product_attention_fwd")


def attend_splash(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """JAX's kernel for TPUs, interpreted elsewhere: `[B, H, N, K]`, 2 x -> `[B, H, N, V]`.

    Latents are padded to whole vectors and told apart by segments. The result and the statistics
    are named `KEPT`.
    """
    # A slow import that few programs need.
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    heads, count = query.shape[1:3]
    width, dtype = max(query.shape[-1], value.shape[-1]), query.dtype
    block = choose_block(count, splash_block(width, dtype))
    padded = _multiple(count, block)
    arrays, segments = (query * scale(query), key, value), None
    if padded > count:
        arrays = [jnp.pad(x, ((0, 0), (0, 0), (0, padded - count), (0, 0))) for x in arrays]
        segment = (jnp.arange(padded) >= count).astype(jnp.int32)
        segments = splash.SegmentIds(segment, segment)
    parts = range(1, max(splash_keys(width, dtype) // block, 1) + 1)
    keys = block * max(n for n in parts if padded // block % n == 0)
    sizes = dict.fromkeys(("block_q", "block_kv_compute"), block)
    sizes |= dict.fromkeys(("block_q_dkv", "block_kv_dkv_compute"), block)
    sizes |= dict.fromkeys(("block_kv", "block_kv_dkv"), keys)
    attend = splash.make_splash_mha(
        masks.MultiHeadMask([masks.FullMask((padded, padded))] * heads),
        block_sizes=splash.BlockSizes(**sizes, use_fused_bwd_kernel=True),
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name=KEPT,
        interpret=mesh.platform() != "tpu",
    )
    result = jax.vmap(lambda *heads: attend(*heads, segment_ids=segments))(*arrays)
    return result[:, :, :count]


def choose_block(count: int, most: int) -> int:
    """Queries or keys in a block: all, or few to pad and as many as allowed.

    Blocks of 128 take four times the cycles of 512 on a v5e, so 512 is the least of several.
    """
    if count <= 512:
        return _multiple(count, LANES)
    return min(range(most, 511, -LANES), key=lambda block: _multiple(count, block))


def attend_cudnn(
    query: jax.Array, key: jax.Array, value: jax.Array, *, implementation: str = "cudnn"
) -> jax.Array:
    """`jax.nn.dot_product_attention` in our layout: `[B, H, N, K]`, 2 x -> `[B, H, N, V]`.

    cuDNN wants heads of one width that is a multiple of 8: zeros fill them up.
    """
    width, depth = query.shape[-1], value.shape[-1]
    full = _multiple(max(width, depth), 8)

    def fill(x):
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, full - x.shape[-1]))).swapaxes(1, 2)

    result = jax.nn.dot_product_attention(
        fill(query),
        fill(key),
        fill(value),
        scale=1 / math.sqrt(width),
        implementation=implementation,
    )
    return result.swapaxes(1, 2)[..., :depth]


def _multiple(number: int, of: int) -> int:
    """The least multiple that is no less than `number`."""
    return -(-number // of) * of
