"""Adapters between the world and tokens, one file per modality.

An *input* module turns a prepared batch into `Tokens`: `module(batch, train=...)`. An *output*
module owns both ends of the decoder: `module.queries(tokens) -> Tokens | None` and
`module(decoded) -> prediction`. Both take `indices=` (flat) where answering some of the outputs
makes sense. Each module takes `dtype`, the compute dtype.
"""
