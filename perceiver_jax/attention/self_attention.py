"""A latent layer's `product`, `layer_norm` and `self_attend`, with gradients written by hand.

Values and gradients are those of the formulas, up to rounding. Nearly all of a Perceiver's
arithmetic is in its latent layers. Their automatic gradient is slow on a CPU for three reasons,
which the backward functions here avoid:

- In x^T dy the left factor is transposed, which the fast matrix routine does not support.
- The sum of a product over the last axis runs far below memory speed in jax 0.10.
- P^T dY copies the largest array to transpose it; (dY^T P)^T copies a small one.

A norm keeps its input for the backward pass, attention its query, key and value, never the N x N
weights.
Shapes: B examples, H heads, N latents, K channels of a query or key head, V of a value head.
Like everything with a hand-written gradient, they have no forward-mode derivative.
"""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from perceiver_jax import mesh
from perceiver_jax.attention import library, platforms, sharded
from perceiver_jax.attention.blockwise import chunk_bytes, divisor
from perceiver_jax.attention.folding import dot
from perceiver_jax.attention.softmax import scale

EPSILON = 1e-5  # of the layer norm, as in the released code


def _sum_of_product(a: jax.Array, b: jax.Array) -> jax.Array:
    """float32 sum of a * b over the last axis, which it keeps."""
    total = jnp.einsum("...d,...d->...", a, b, precision=jax.lax.Precision.HIGHEST)
    return total[..., None]


@jax.custom_vjp
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x @ kernel: `[..., C]`, `[C, D]` -> `[..., D]`."""
    return jnp.dot(x, kernel)


def _product_backward(residuals, dy):
    x, kernel = residuals
    dx = jnp.einsum("...d,cd->...c", dy, kernel)
    columns = x.reshape(-1, x.shape[-1]).T
    # The barrier makes the CPU transpose x before the product; other platforms transpose inside it.
    columns = jax.lax.platform_dependent(
        columns, cpu=jax.lax.optimization_barrier, default=lambda c: c
    )
    return dx, columns @ dy.reshape(-1, dy.shape[-1])


# The forward rule repeats the product, so that rematerialisation policies see it and may keep it.
product.defvjp(lambda x, kernel: (jnp.dot(x, kernel), (x, kernel)), _product_backward)


def _standardize(x):
    """x in float32 with mean 0 and variance 1 over the last axis, and the inverse deviation."""
    x = x.astype(jnp.float32)
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    inverse = jax.lax.rsqrt(variance + EPSILON)
    return centred * inverse, inverse


def _channelwise(vector, x):
    """A vector of channels, shaped to multiply x."""
    return vector.reshape((1,) * (x.ndim - 1) + (-1,))


@jax.custom_vjp
def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Layer norm over the last axis, two-pass variance: `[..., C]` -> `[..., C]`, float32."""
    return _standardize(x)[0] * _channelwise(scale, x) + _channelwise(bias, x)


def _layer_norm_backward(residuals, dy):
    x, scale = residuals
    normed, inverse = _standardize(x)
    rows = tuple(range(x.ndim - 1))
    dnormed = dy * _channelwise(scale, x)
    along = _sum_of_product(dnormed, normed) / x.shape[-1]
    dx = inverse * (dnormed - jnp.mean(dnormed, axis=-1, keepdims=True) - along * normed)
    return dx.astype(x.dtype), jnp.sum(dy * normed, axis=rows), jnp.sum(dy, axis=rows)


layer_norm.defvjp(
    lambda x, scale, bias: (layer_norm(x, scale, bias), (x, scale)), _layer_norm_backward
)


def _weights(query, key):
    """exp(q k / sqrt(K) - row maximum) `[B, H, N, N]` and its inverse row sums, float32."""
    logits = dot("bhnk,bhmk->bhnm", query * scale(query), key)
    weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    return weights, 1 / jnp.sum(weights, axis=-1, keepdims=True)


def _num_blocks(query, key) -> tuple[int, int]:
    """How many groups of heads, and blocks of queries, keep the weights of one in the budget.

    Heads are divided first, because they share no keys, values or gradients. On a CPU a block of
    queries may be twice the budget, because each block reads all keys again; on a TPU it must fit
    into vector memory.
    """
    batch, heads, count = query.shape[:3]
    weights = mesh.local_batch_size(batch) * heads * count * key.shape[2]
    least = 4 * weights / chunk_bytes()
    if least <= 4:  # a loop would cost more than it saves
        return 1, 1
    groups = divisor(heads, least)
    return groups, divisor(count, least / groups / (2 if mesh.platform() == "cpu" else 1))


def _split(x, parts, axis):
    """Splits `[B, H, N, K]` along an axis: `[parts, B, H or H / parts, N or N / parts, K]`.

    Group g has the heads g, g + parts, ...: where heads are spread over devices in runs, every
    device then has its part of each group.
    """
    size = x.shape[axis] // parts
    inner = (size, parts) if axis == 1 else (parts, size)
    x = x.reshape(*x.shape[:axis], *inner, *x.shape[axis + 1 :])
    return jnp.moveaxis(x, axis + (axis == 1), 0)


def _join(x, axis):
    """The inverse of `_split`."""
    x = jnp.moveaxis(x, 0, axis + (axis == 1))
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])


def _map_head_groups(function, groups, *arrays):
    """Applies `function` to arrays `[B, H, ...]`, one group of heads after another."""
    if groups == 1:
        return function(*arrays)
    results = jax.lax.map(lambda xs: function(*xs), tuple(_split(x, groups, 1) for x in arrays))
    return jax.tree.map(lambda x: _join(x, 1), results)


def _attend(query, key, value):
    weights, inverse = _weights(query, key)
    weighted = dot("bhnm,bhmv->bhnv", weights.astype(value.dtype), value)
    return (weighted * inverse).astype(value.dtype)


@jax.custom_vjp
def _self_attend(query, key, value):
    groups, blocks = _num_blocks(query, key)

    def attend(query, key, value):
        if blocks == 1:
            return _attend(query, key, value)
        return _join(jax.lax.map(lambda q: _attend(q, key, value), _split(query, blocks, 2)), 2)

    return _map_head_groups(attend, groups, query, key, value)


def _attend_backward(query, key, value, dy):
    """Gradients of the query, and of key and value transposed, float32."""
    weights, inverse = _weights(query, key)
    weights = weights * inverse
    dweights = dot("bhnv,bhmv->bhnm", dy, value)
    dlogits = weights * (dweights - _sum_of_product(weights, dweights))
    dlogits, weights = dlogits.astype(query.dtype), weights.astype(value.dtype)
    dquery = dot("bhnm,bhmk->bhnk", dlogits, key).astype(query.dtype) * scale(query)
    dkey = dot("bhnm,bhnk->bhkm", dlogits, query * scale(query))
    return dquery, dkey, dot("bhnm,bhnv->bhvm", weights, dy)


def _self_attend_backward(residuals, dy):
    groups, blocks = _num_blocks(*residuals[:2])

    def backward(query, key, value, dy):
        if blocks == 1:
            return _attend_backward(query, key, value, dy)

        def body(sums, block):
            dquery, *more = _attend_backward(block[0], key, value, block[1])
            return [a + b for a, b in zip(sums, more, strict=True)], dquery

        zeros = [jnp.zeros_like(x.swapaxes(2, 3), jnp.float32) for x in (key, value)]
        cut = _split(query, blocks, 2), _split(dy, blocks, 2)
        (dkey, dvalue), dquery = jax.lax.scan(body, zeros, cut)
        return _join(dquery, 2), dkey, dvalue

    def typed(*arrays):
        dquery, dkey, dvalue = backward(*arrays)
        _, key, value, _ = arrays
        return (
            dquery,
            dkey.swapaxes(2, 3).astype(key.dtype),
            dvalue.swapaxes(2, 3).astype(value.dtype),
        )

    return _map_head_groups(typed, groups, *residuals, dy)


_self_attend.defvjp(
    lambda query, key, value: (_self_attend(query, key, value), (query, key, value)),
    _self_attend_backward,
)


def self_attend(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """softmax(q k / sqrt(K)) v without masks or dropout, the softmax in float32.

    `platforms.attends_by` says who computes it.

    Args:
      query, key: `[B, H, N, K]`.
      value: `[B, H, N, V]`.

    Returns:
      `[B, H, N, V]` in the value's dtype.
    """
    by = platforms.attends_by(query, value)
    if by == "splash":
        return sharded.map_heads(library.attend_splash, query, key, value)
    if by == "cudnn":
        return library.attend_cudnn(query, key, value)
    return checkpoint_name(_self_attend(query, key, value), library.KEPT)
