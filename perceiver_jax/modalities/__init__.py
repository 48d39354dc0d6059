"""Adapters between data and tokens, one file per modality.

An *input* module turns a prepared batch into `Tokens`: `module(batch, train=...)`. An *output*
module makes the decoder's queries, owns the linear layers after it, and turns what the decoder
returns into a prediction: `module.queries(tokens)`, `module.head(width)` and `module(decoded)`.
Outputs that can be decoded in parts take flat `indices=` in `queries` and in the call. Every module
has the field `dtype`, the compute dtype.
"""
