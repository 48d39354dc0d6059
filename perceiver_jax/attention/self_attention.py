"""The three functions of a latent layer, with gradients written by hand: `product`, `layer_norm`
and `attend_itself`. Their values are those of the formulas; so are their gradients, up to rounding.

Nearly all of a Perceiver's arithmetic is in its latent layers, and what automatic differentiation
makes of them is slow on a CPU, for three reasons that the backward functions here avoid:

- x^T dy has its left factor transposed, which the fast matrix routine does not take.
- The sum of a product over the last axis runs far below memory speed in jax 0.10.
- P^T dY needs a transposed copy of the largest array; (dY^T P)^T of a small one.

They also keep little: a norm its input, attention its query, key and value, never N x N numbers.
Shapes: B examples, H heads, N latents, K channels of a query or key head, V of a value head.
Like everything with a hand-written gradient, they have no forward-mode derivative.
"""

import math

import jax
import jax.numpy as jnp

from perceiver_jax import mesh

EPSILON = 1e-5  # of the layer norm, as in the released code

# Bytes of float32 attention weights that a device has at a time: on a CPU what its cache holds, on
# a TPU what leaves room in its vector memory.
CHUNK_BYTES = {"cpu": 2**22, "gpu": 2**27, "tpu": 2**24}


def chunk_bytes() -> int:
    """Bytes of weights that may exist at a time, on the devices that are traced for."""
    return CHUNK_BYTES.get(mesh.platform(), 2**27)


def divisor(number: int, least: float) -> int:
    """The smallest divisor of `number` that is no less than `least`; if none is, `number`."""
    return next(n for n in range(1, number + 1) if number % n == 0 and (n >= least or n == number))


def _dot(equation: str, *arrays: jax.Array) -> jax.Array:
    """A product with float32 sums."""
    return jnp.einsum(equation, *arrays, preferred_element_type=jnp.float32)


def _sum_of_product(a: jax.Array, b: jax.Array) -> jax.Array:
    """float32 sum of a * b over the last axis, which it keeps."""
    total = jnp.einsum("...d,...d->...", a, b, precision=jax.lax.Precision.HIGHEST)
    return total[..., None]


@jax.custom_vjp
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x @ kernel: `[..., C]`, `[C, D]` -> `[..., D]`."""
    return jnp.dot(x, kernel)


def _product_backward(kept, dy):
    x, kernel = kept
    dx = jnp.einsum("...d,cd->...c", dy, kernel)
    columns = x.reshape(-1, x.shape[-1]).T
    # The barrier makes the CPU transpose x before the product. Other platforms do it on the way.
    columns = jax.lax.platform_dependent(
        columns, cpu=jax.lax.optimization_barrier, default=lambda c: c
    )
    return dx, columns @ dy.reshape(-1, dy.shape[-1])


# The product is spelled out again, so that rematerialisation sees what it may keep.
product.defvjp(lambda x, kernel: (jnp.dot(x, kernel), (x, kernel)), _product_backward)


def _normalise(x):
    """x in float32 with mean 0 and variance 1 over the last axis, and the inverse deviation."""
    x = x.astype(jnp.float32)
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    inverse = jax.lax.rsqrt(variance + EPSILON)
    return centred * inverse, inverse


def _over_rows(vector, x):
    """A vector of channels, shaped to multiply x."""
    return vector.reshape((1,) * (x.ndim - 1) + (-1,))


@jax.custom_vjp
def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Layer norm over the last axis, two-pass variance: `[..., C]` -> `[..., C]`, float32."""
    return _normalise(x)[0] * _over_rows(scale, x) + _over_rows(bias, x)


def _layer_norm_backward(kept, dy):
    x, scale = kept
    normed, inverse = _normalise(x)
    rows = tuple(range(x.ndim - 1))
    dnormed = dy * _over_rows(scale, x)
    along = _sum_of_product(dnormed, normed) / x.shape[-1]
    dx = inverse * (dnormed - jnp.mean(dnormed, axis=-1, keepdims=True) - along * normed)
    return dx.astype(x.dtype), jnp.sum(dy * normed, axis=rows), jnp.sum(dy, axis=rows)


layer_norm.defvjp(
    lambda x, scale, bias: (layer_norm(x, scale, bias), (x, scale)), _layer_norm_backward
)


def _weights(query, key):
    """exp(q k / sqrt(K) - row maximum) `[B, H, N, N]` and its inverse row sums, float32."""
    logits = _dot("bhnk,bhmk->bhnm", query * _scale(query), key)
    weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    return weights, 1 / jnp.sum(weights, axis=-1, keepdims=True)


def _scale(query):
    return jnp.asarray(1 / math.sqrt(query.shape[-1]), query.dtype)


def _parts(query, key) -> tuple[int, int]:
    """Into how many groups of heads, and of queries, attention is cut so that one's weights fit.

    Heads first: what they read and their gradients are apart. On a CPU a block of queries may be
    twice as large, because each goes through all keys again; a TPU's must stay where it is made.
    """
    batch, heads, count = query.shape[:3]
    weights = mesh.local_batch_size(batch) * heads * count * key.shape[2]
    least = 4 * weights / chunk_bytes()
    if least <= 4:  # a loop would cost more than it saves
        return 1, 1
    groups = divisor(heads, least)
    return groups, divisor(count, least / groups / (2 if mesh.platform() == "cpu" else 1))


def _cut(x, parts, axis):
    """Cuts `[B, H, N, K]` along an axis: `[parts, B, H or H / parts, N or N / parts, K]`.

    Heads are dealt out in turn, so that heads spread over devices in runs are cut within each.
    """
    size = x.shape[axis] // parts
    inner = (size, parts) if axis == 1 else (parts, size)
    x = x.reshape(*x.shape[:axis], *inner, *x.shape[axis + 1 :])
    return jnp.moveaxis(x, axis + (axis == 1), 0)


def _join(x, axis):
    """What `_cut` cut."""
    x = jnp.moveaxis(x, 0, axis + (axis == 1))
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])


def _by_heads(function, groups, *arrays):
    """`function` of arrays `[B, H, ...]`, to such arrays, one group of heads after another."""
    if groups == 1:
        return function(*arrays)
    results = jax.lax.map(lambda xs: function(*xs), tuple(_cut(x, groups, 1) for x in arrays))
    return jax.tree.map(lambda x: _join(x, 1), results)


def _read(query, key, value):
    weights, inverse = _weights(query, key)
    weighted = _dot("bhnm,bhmv->bhnv", weights.astype(value.dtype), value)
    return (weighted * inverse).astype(value.dtype)


@jax.custom_vjp
def _attend_itself(query, key, value):
    groups, blocks = _parts(query, key)

    def read(query, key, value):
        if blocks == 1:
            return _read(query, key, value)
        return _join(jax.lax.map(lambda q: _read(q, key, value), _cut(query, blocks, 2)), 2)

    return _by_heads(read, groups, query, key, value)


def _read_backward(query, key, value, dy):
    """Gradients of the query, and of key and value transposed, float32."""
    weights, inverse = _weights(query, key)
    weights = weights * inverse
    dweights = _dot("bhnv,bhmv->bhnm", dy, value)
    dlogits = weights * (dweights - _sum_of_product(weights, dweights))
    dlogits, weights = dlogits.astype(query.dtype), weights.astype(value.dtype)
    dquery = _dot("bhnm,bhmk->bhnk", dlogits, key).astype(query.dtype) * _scale(query)
    dkey = _dot("bhnm,bhnk->bhkm", dlogits, query * _scale(query))
    return dquery, dkey, _dot("bhnm,bhnv->bhvm", weights, dy)


def _attend_itself_backward(kept, dy):
    groups, blocks = _parts(*kept[:2])

    def backward(query, key, value, dy):
        if blocks == 1:
            return _read_backward(query, key, value, dy)

        def body(sums, block):
            dquery, *more = _read_backward(block[0], key, value, block[1])
            return [a + b for a, b in zip(sums, more, strict=True)], dquery

        zeros = [jnp.zeros_like(x.swapaxes(2, 3), jnp.float32) for x in (key, value)]
        cut = _cut(query, blocks, 2), _cut(dy, blocks, 2)
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

    return _by_heads(typed, groups, *kept, dy)


_attend_itself.defvjp(
    lambda query, key, value: (_attend_itself(query, key, value), (query, key, value)),
    _attend_itself_backward,
)


def attend_itself(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """softmax(q k / sqrt(K)) v without masks or dropout, the softmax in float32.

    On a GPU in half precision it is the vendor's fused attention, where that takes the head widths.

    Args:
      query, key: `[B, H, N, K]`.
      value: `[B, H, N, V]`.

    Returns:
      `[B, H, N, V]` in the value's dtype.
    """
    if mesh.platform() == "gpu" and is_fusable(query, value):
        return attend_library(query, key, value, implementation="cudnn")
    return _attend_itself(query, key, value)


def is_fusable(query: jax.Array, value: jax.Array) -> bool:
    """Whether vendor attention takes these heads: half precision, equal widths of 8 n <= 128."""
    width = query.shape[-1]
    half = query.dtype in (jnp.bfloat16, jnp.float16)
    return half and width == value.shape[-1] and width % 8 == 0 and width <= 128


def attend_library(query, key, value, *, implementation: str) -> jax.Array:
    """`jax.nn.dot_product_attention` in our layout, heads before tokens."""
    query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))
    return jax.nn.dot_product_attention(query, key, value, implementation=implementation).swapaxes(
        1, 2
    )
