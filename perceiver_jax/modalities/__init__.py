"""Adapters between the world and tokens, one file per modality.

An *input* module turns a prepared batch into `Tokens`: `module(batch, train=...)`. An *output*
module owns both ends of the decoder: `module.queries(tokens) -> Tokens | None` and
`module(decoded) -> prediction`. Each takes `dtype`, the compute dtype.
"""
