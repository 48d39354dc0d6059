"""Counting FLOPs, multiply and add apart, as both papers do.

`textbook` counts the *model* from its fields: the dense formula, with all keys, values and
products. It does not depend on the contraction order that runs. `executed` counts what a function
computes. Both leave out norms, softmax and activations, as the papers do, and reproduce their 404
and 707 GFLOP.
"""

import functools
import math
from collections.abc import Callable, Mapping

import jax
from flax import linen as nn

from perceiver_jax.perceiver import Decoder, Encoder, Perceiver
from perceiver_jax.tokens import token_sets


def linear(rows: int, inputs: int, outputs: int) -> float:
    """The product of `rows` vectors with a matrix."""
    return 2.0 * rows * inputs * outputs


def attention(n: int, m: int, q_width: int, kv_width: int, qk: int | None, v: int | None) -> float:
    """Attention of N queries of `q_width` to M tokens of `kv_width`, for any number of heads."""
    qk = qk or kv_width
    v = v or qk
    projections = linear(n, q_width, qk) + linear(m, kv_width, qk) + linear(m, kv_width, v)
    return projections + linear(n, m, qk) + linear(n, m, v) + linear(n, v, q_width)


def mlp(n: int, width: int, widening: int) -> float:
    """The two layers of an MLP on N vectors."""
    return 2 * linear(n, width, widening * width)


def encoder(e: Encoder, num_tokens: int, width: int) -> float:
    """One example of `num_tokens` tokens of `width` channels through an encoder."""
    n, d = e.num_latents, e.latent_channels
    qk, v = e.cross_attend_qk_channels, e.cross_attend_v_channels
    read = attention(n, num_tokens, d, width, qk, v) + mlp(n, d, e.cross_attend_widening)
    qk, v = e.self_attend_qk_channels or d, e.self_attend_v_channels or d
    layer = attention(n, n, d, d, qk, v) + mlp(n, d, e.self_attend_widening)
    return e.num_cross_attends * read + e.num_blocks * e.num_self_attends_per_block * layer


def decoder(d: Decoder, e: Encoder, num_queries: int, width: int) -> float:
    """`num_queries` queries of `width` channels decoded from the latents of one example."""
    read = attention(
        num_queries, e.num_latents, width, e.latent_channels, d.qk_channels, d.v_channels
    )
    return read + mlp(num_queries, width, d.widening)


def textbook(model: Perceiver, batch: Mapping[str, jax.Array]) -> float:
    """Forward FLOPs of one example: encoder, decoder, and the matrix products of both ends.

    Args:
      model: any `Perceiver`.
      batch: a prepared batch, arrays or `jax.ShapeDtypeStruct`s, of one example. With `indices`
        only the outputs at these are decoded.
    """
    if any(x.shape[0] != 1 for x in jax.tree.leaves(batch)):
        raise ValueError("textbook FLOPs are those of one example: pass a batch of size 1")

    def ends(model, batch):
        tokens = model.input(batch, train=False)
        chosen = {"indices": batch["indices"]} if "indices" in batch else {}
        queries = model.output.queries(tokens, **chosen)
        return tokens, queries, model.head(queries)

    def run(batch):
        return model.init_with_output(jax.random.key(0), batch, method=ends)[0]

    tokens, queries, heads = jax.eval_shape(run, batch)
    num_tokens, width = _size(tokens)
    total = executed(run, batch) + encoder(model.encoder, num_tokens, width)
    if isinstance(model.decoder, Decoder):
        total += decoder(model.decoder, model.encoder, *_size(queries))
    if not isinstance(queries, dict):
        queries, heads = {"": queries}, {"": heads}
    for name, asked in queries.items():
        rows = 1 if asked is None else asked.num_tokens
        total += sum(linear(rows, *weights.kernel.shape) for weights in heads[name])
    return total


def forward(model: nn.Module, batch: Mapping[str, jax.Array]) -> float:
    """Forward FLOPs of one example: `textbook` of a `Perceiver`, `executed` of another model.

    Args:
      model: called as a `Perceiver` is.
      batch: a prepared batch, arrays or `jax.ShapeDtypeStruct`s, of one example.
    """
    if isinstance(model, Perceiver):
        return textbook(model, batch)
    variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), batch)
    return executed(functools.partial(model.apply, train=False), variables, batch)


def _size(tokens) -> tuple[int, int]:
    """How many tokens there are in all sets, and their width."""
    sets = token_sets(tokens)
    return sum(part.num_tokens for part in sets), sets[0].width


def executed(function: Callable, *args) -> float:
    """FLOPs of the matrix products and convolutions that `function(*args)` runs, loops unrolled.

    On all devices together.
    """
    anew = functools.partial(function)  # avoids an earlier trace, see `cost.forced`
    return _count(jax.make_jaxpr(anew)(*args).jaxpr)


def _count(jaxpr) -> float:
    total = 0.0
    for eqn in jaxpr.eqns:
        size = math.prod(eqn.outvars[0].aval.shape) if eqn.outvars else 0
        if eqn.primitive.name == "dot_general":
            contracted = eqn.params["dimension_numbers"][0][0]
            depth = math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)
            total += 2.0 * size * depth
        elif eqn.primitive.name == "conv_general_dilated":
            kernel = eqn.invars[1].aval.shape
            outputs = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
            total += 2.0 * size * math.prod(kernel) / outputs
        repeats = 1
        if eqn.primitive.name == "scan":
            repeats = eqn.params["length"]
        elif eqn.primitive.name == "pallas_call":
            repeats = math.prod(eqn.params["grid_mapping"].grid)
        elif eqn.primitive.name == "shard_map":  # its shapes are one device's, of all in the mesh
            repeats = eqn.params["mesh"].size
        for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(value):
                total += repeats * _count(getattr(value, "jaxpr", value))
    return total


def _is_jaxpr(value) -> bool:
    return hasattr(value, "eqns")
