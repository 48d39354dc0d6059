"""Text as UTF-8 bytes, in and out, without a learned vocabulary.

A batch holds `text`: int32 ids `[B, M]`, and `text_mask`: bool `[B, M]`, False where it is padding.
Id 6 + b is byte b; the first six ids are reserved. Input and output share one table, the section
`embedding` of a config: it embeds the ids and, transposed, gives their logits.

References: Perceiver IO (Jaegle et al. 2022) section 4.1 and app. C; the released language model.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from perceiver_jax.attention.folding import Head, Linear
from perceiver_jax.config_types import Channels, Count, Positive, Size, Whole
from perceiver_jax.position import Table
from perceiver_jax.tokens import Tokens

PAD, BOS, EOS, MASK, CLS, SEP = range(6)
NUM_RESERVED = 6
NUM_IDS = NUM_RESERVED + 256


def encode(text: str) -> np.ndarray:
    """The ids of the text's bytes, int32 `[number of bytes]`; no reserved id is added."""
    return np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int32) + NUM_RESERVED


def decode(ids) -> str:
    """The text of ids `[n]`: reserved ids are dropped, invalid UTF-8 becomes U+FFFD."""
    ids = np.asarray(ids)
    data = (ids[ids >= NUM_RESERVED] - NUM_RESERVED).astype(np.uint8)
    return data.tobytes().decode("utf-8", errors="replace")


def pad(ids, length: int) -> tuple[np.ndarray, np.ndarray]:
    """`ids` `[n]` -> ids `[length]`, filled with PAD, and the mask `[length]`, False there."""
    ids = np.asarray(ids, np.int32)
    if ids.size > length:
        raise ValueError(f"{ids.size} ids do not fit into length={length}: cut the text")
    return np.pad(ids, (0, length - ids.size), constant_values=PAD), np.arange(length) < ids.size


class Embedding(nn.Module):
    """One vector per id, which embeds it and gives its logit.

    Attributes:
      num_ids: rows of the table.
      channels: width of the vectors.
      init_scale: parameter of their truncated normal.
    """

    num_ids: Count = NUM_IDS
    channels: Channels = 768
    init_scale: Positive = 1.0
    dtype: jax.typing.DTypeLike = jnp.float32

    def setup(self):
        init = nn.initializers.truncated_normal(self.init_scale)
        self.table = self.param("table", init, (self.num_ids, self.channels))

    def __call__(self, ids: jax.Array) -> jax.Array:
        """`[...]` -> `[..., channels]`."""
        return self.table.astype(self.dtype)[ids]


class Bytes(nn.Module):
    """Every id is a token: its embedding *plus* a learned position.

    Attributes:
      max_length: rows of the position table; shorter texts need no padding.
      position_init_scale: parameter of its truncated normal.
      window: ids that a convolution joins in each token, added to its embedding; 0 has none. Text
        has local statistics too, which a short training does not find by attention.
      num_tasks: with more than none, a learned vector of the example's task, which `task` `[B]`
        counts, takes the place of the first id's (Perceiver IO, Table 2: task-specific tokens).
    """

    embedding: Embedding
    max_length: Size = 2048
    position_init_scale: Positive = 0.02
    window: Whole = 0
    num_tasks: Whole = 0
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, batch, *, train: bool) -> Tokens:
        """`text [B, M]`, `text_mask [B, M]` -> M tokens as wide as the embedding."""
        ids = batch["text"]
        length = ids.shape[1]
        if length > self.max_length:
            raise ValueError(f"text of {length} ids is longer than max_length={self.max_length}")
        init = nn.initializers.truncated_normal(self.position_init_scale)
        positions = self.param("positions", init, (self.max_length, self.embedding.channels))
        mask = batch["text_mask"].astype(bool)
        content = self.embedding(ids)
        if self.window:
            norm = nn.LayerNorm(dtype=self.dtype, name="window_norm")
            seen = jnp.where(mask[..., None], norm(content), 0)
            width = (self.window,)
            conv = nn.Conv(content.shape[-1], width, dtype=self.dtype, name="window")
            content = content + nn.relu(conv(seen))
        if self.num_tasks:
            channels = self.embedding.channels
            init = nn.initializers.truncated_normal(self.embedding.init_scale)
            tasks = self.param("tasks", init, (self.num_tasks, channels)).astype(self.dtype)
            content = content.at[:, 0].set(tasks[batch["task"]])
        content = content + positions[None, :length].astype(self.dtype)
        return Tokens(content=content, mask=mask)


class TiedLogits(nn.Module):
    """Logits of the id at every place: a learned query each, scored by the input's embedding.

    Attributes:
      max_length: number of queries; a shorter input uses the first ones.
      query_channels: their width, the embedding's.
      query_init_scale: parameter of their truncated normal.
    """

    embedding: Embedding
    max_length: Size = 2048
    query_channels: Channels = 768
    query_init_scale: Positive = 0.02
    dtype: jax.typing.DTypeLike = jnp.float32

    def setup(self):
        init = nn.initializers.truncated_normal(self.query_init_scale)
        self.query = self.param("query", init, (self.max_length, self.query_channels))
        self.bias = self.param("bias", nn.initializers.zeros, (self.embedding.num_ids,))

    def queries(self, tokens: Tokens, indices: jax.Array | None = None) -> Tokens:
        """One query per input token, or at `indices [n]`; queries of padding are masked."""
        queries = Tokens(position=Table(self.query[: tokens.num_tokens]), mask=tokens.mask)
        return queries if indices is None else queries.take(indices)

    def head(self, width: int) -> Head:
        """From the embedding's width to the ids: a product with the vector of each."""
        return (Linear(self.embedding.table.T, self.bias),)

    def __call__(self, decoded: jax.Array, indices: jax.Array | None = None) -> jax.Array:
        """`[B, M, num_ids]` -> float32 logits `[B, M, num_ids]`."""
        return decoded.astype(jnp.float32)
