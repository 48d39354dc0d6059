"""Attention at less cost than the formula in `softmax`, with the same numbers.

A layer asks for one of four: `encode` (few latents attend to many tokens), `decode` (many queries
attend to few latents), `self_attend` (latents attend to each other), `attend_causal` (none of them
looks ahead).
"""

from perceiver_jax.attention.causal import attend_causal
from perceiver_jax.attention.cross import Decoding, decode, encode
from perceiver_jax.attention.self_attention import self_attend

__all__ = ["Decoding", "attend_causal", "decode", "encode", "self_attend"]
