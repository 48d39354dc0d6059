"""Attention at less cost than the formula in `softmax`, with the same numbers.

A layer asks for one of three: `encode` (few latents attend to many tokens), `decode` (many queries
attend to few latents), `self_attend` (latents attend to each other).
"""

from perceiver_jax.attention.cross import Decoding, decode, encode
from perceiver_jax.attention.self_attention import self_attend

__all__ = ["Decoding", "decode", "encode", "self_attend"]
