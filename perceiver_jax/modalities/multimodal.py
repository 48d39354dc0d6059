"""Several modalities together: encoded in one softmax, decoded by one decoder.

Learned padding channels bring every modality to one width. The long array of all tokens is never
built: the inputs are a dict of `Tokens` that attention merges. The queries are a dict too, and each
query is decoded by itself.

References: Perceiver IO (Jaegle et al. 2022) section 4.3 and app. B, I; the released autoencoder.
"""

from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict

from perceiver_jax.attention.folding import Head
from perceiver_jax.config_types import Channels, Fraction, Padding, Positive
from perceiver_jax.dropout import bernoulli
from perceiver_jax.layers import LinearWeights
from perceiver_jax.modalities.shared import plain_init
from perceiver_jax.tokens import Tokens


class Inputs(nn.Module):
    """Joins the inputs of several modalities.

    Attributes:
      modalities: an input module for each name.
      mask_rates: by name, the fraction of tokens that the modality's learned mask token replaces:
        1 always, anything less in training only (rng stream `dropout`).
      drop_rates: by name, the fraction of examples from which the whole modality is dropped: 1
        always, anything less in training only (Perceiver 2021, section 4.2).
      dropped: what is left of a dropped modality: zeros at their positions, as in that paper, or
        the mask token in place of every token.
      min_padding: padding channels of the widest modality.
      init_scale: parameter of the truncated normal of padding and mask tokens.
    """

    modalities: Mapping[str, nn.Module]
    mask_rates: Mapping[str, Fraction]
    drop_rates: Mapping[str, Fraction] = FrozenDict()
    dropped: Literal["mask_token", "zeros"] = "mask_token"
    min_padding: Padding = 4
    init_scale: Positive = 0.02
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, batch, *, train: bool) -> dict[str, Tokens]:
        """A batch -> `Tokens` of one width by name; partly masked ones also as `<name>:masked`."""
        for field, rates in (("mask_rates", self.mask_rates), ("drop_rates", self.drop_rates)):
            _require_known(field, rates, self.modalities)
        inputs = {n: self.modalities[n](batch, train=train) for n in sorted(self.modalities)}
        width = max(tokens.width for tokens in inputs.values()) + self.min_padding
        init = nn.initializers.truncated_normal(self.init_scale)
        result = {}
        for name, tokens in inputs.items():
            padding = self.param(f"padding_{name}", init, (width - tokens.width,))
            mask_token = self.param(f"mask_{name}", init, (width,))
            visible = tokens.replace(padding=padding)
            # The same channels for every token, so no array as wide as a token is made.
            empty = jnp.zeros((1, tokens.num_tokens, 0), self.dtype)
            masked = Tokens(content=empty, padding=mask_token)
            rate, drop_rate = self.mask_rates.get(name, 0.0), self.drop_rates.get(name, 0.0)
            if self.dropped == "zeros":
                visible, drop_rate = self._zero(visible, drop_rate, train), 0.0
            if 1 in (rate, drop_rate):
                result[name] = masked.replace(mask=tokens.mask)
            elif train and (rate > 0 or drop_rate > 0):
                shape = (tokens.content.shape[0], tokens.num_tokens)  # [B, M]
                chosen = bernoulli(self, rate, shape)
                if drop_rate > 0:
                    whole = (shape[0], 1)
                    chosen |= bernoulli(self, drop_rate, whole)
                present = jnp.ones(shape, bool) if tokens.mask is None else tokens.mask
                result[name] = visible.replace(mask=present & ~chosen)
                result[f"{name}:masked"] = masked.replace(mask=present & chosen)
            else:
                result[name] = visible
        return result

    def _zero(self, tokens: Tokens, rate: float, train: bool) -> Tokens:
        """Tokens whose content is zero in some examples, or in all where `rate` is 1."""
        content = tokens.content
        if rate == 1:
            content = jnp.zeros((1, *content.shape[1:]), content.dtype)
        elif train and rate > 0:
            shape = (content.shape[0], 1, 1)
            chosen = bernoulli(self, rate, shape)
            content = jnp.where(chosen, 0, content)
        return tokens.replace(content=content)


class Outputs(nn.Module):
    """Queries and predictions of several modalities.

    Attributes:
      modalities: an output module for each name.
      channels: width of one projection behind the decoder, before each modality's own head.
      min_padding: padding channels of the widest query.
      init_scale: parameter of the padding's truncated normal.
    """

    modalities: Mapping[str, nn.Module]
    channels: Channels = 512
    min_padding: Padding = 2
    init_scale: Positive = 0.02
    dtype: jax.typing.DTypeLike = jnp.float32

    def setup(self):
        widths = {n: self.modalities[n].queries(None).width for n in sorted(self.modalities)}
        width = max(widths.values()) + self.min_padding
        init = nn.initializers.truncated_normal(self.init_scale)
        self.paddings = {
            n: self.param(f"padding_{n}", init, (width - w,)) for n, w in widths.items()
        }
        self.project = LinearWeights(self.channels, plain_init)

    def queries(self, tokens, indices: Mapping | None = None) -> dict[str, Tokens]:
        """Queries of one width by name.

        Args:
          tokens: what `Inputs` returned, by name.
          indices: flat indices, `[n]` or `[B, n]`, by name; None for all of a modality's outputs;
            modalities without an entry are not decoded. None as a whole: everything.
        """
        result = {}
        for name, chosen in self._wanted(indices).items():
            queries = self.modalities[name].queries(tokens.get(name), **chosen)
            result[name] = queries.replace(padding=self.paddings[name])
        return result

    def head(self, width: int) -> dict[str, Head]:
        """By name, the projection and the modality's own head."""
        project = self.project(width)
        return {n: (project, *self.modalities[n].head(self.channels)) for n in self.modalities}

    def __call__(self, decoded: Mapping[str, jax.Array], indices: Mapping | None = None) -> dict:
        """`[B, n, F]` by name -> predictions by name."""
        return {
            name: self.modalities[name](decoded[name], **chosen)
            for name, chosen in self._wanted(indices).items()
        }

    def _wanted(self, indices: Mapping | None) -> dict[str, dict]:
        """By name, the keyword arguments of the modality's module."""
        if indices is None:
            indices = dict.fromkeys(sorted(self.modalities))
        _require_known("indices", indices, self.modalities)
        return {n: {} if i is None else {"indices": i} for n, i in indices.items()}


def _require_known(field: str, names: Mapping, modalities: Mapping) -> None:
    if unknown := sorted(set(names) - set(modalities)):
        raise ValueError(f"{field} names {unknown}, not among {sorted(modalities)}")
