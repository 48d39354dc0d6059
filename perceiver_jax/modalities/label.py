"""Class labels: one prediction for the whole input, or one token among other modalities.

`Answers` predicts for one of several tasks, classes or a number.

References: Perceiver IO (Jaegle et al. 2022) section 3.2; Perceiver (2021) section 3.1 (mean-pool).
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from perceiver_jax.attention.folding import Head
from perceiver_jax.config_types import Channels, Positive, Size
from perceiver_jax.layers import LinearWeights, linear
from perceiver_jax.modalities.shared import plain_init
from perceiver_jax.position import Table
from perceiver_jax.tokens import Tokens

NEVER = -1e9  # the logit of a class that a task does not have


class OneHot(nn.Module):
    """The label is one token without a place; a negative label (unknown) is all zeros."""

    num_classes: Size
    dtype: jax.typing.DTypeLike = jnp.float32

    def __call__(self, batch, *, train: bool) -> Tokens:
        """`label [B]` integers -> one token of `num_classes` channels."""
        return Tokens(
            content=jax.nn.one_hot(batch["label"], self.num_classes, dtype=self.dtype)[:, None]
        )


class Classification(nn.Module):
    """Logits from one learned query.

    Attributes:
      num_classes: number of logits.
      query_channels: width of the query.
      query_init_scale: parameter of its truncated normal.
    """

    num_classes: Size
    query_channels: Channels = 1024
    query_init_scale: Positive = 0.02
    dtype: jax.typing.DTypeLike = jnp.float32

    def setup(self):
        init = nn.initializers.truncated_normal(self.query_init_scale)
        self.query = self.param("query", init, (1, self.query_channels))
        self.logits = LinearWeights(self.num_classes, plain_init)

    def queries(self, tokens: Tokens) -> Tokens:
        """One query, whatever the input."""
        return Tokens(position=Table(self.query))

    def head(self, width: int) -> Head:
        """From the decoder's width to the classes."""
        return (self.logits(width),)

    def __call__(self, decoded: jax.Array) -> jax.Array:
        """`[B, 1, num_classes]` -> float32 logits `[B, num_classes]`."""
        return decoded[:, 0].astype(jnp.float32)


class PooledClassification(nn.Module):
    """Logits from the mean latent (with `MeanPool`): the 2021 head, its weights start at zero."""

    num_classes: Size
    dtype: jax.typing.DTypeLike = jnp.float32

    def queries(self, tokens: Tokens) -> None:
        """None: `MeanPool` needs no query."""
        return None

    @nn.compact
    def head(self, width: int) -> Head:
        """From the mean latent to the classes."""
        return (LinearWeights(self.num_classes, nn.initializers.zeros, name="logits")(width),)

    def __call__(self, decoded: jax.Array) -> jax.Array:
        """`[B, 1, num_classes]` -> float32 logits `[B, num_classes]`."""
        return decoded[:, 0].astype(jnp.float32)


class Answers(nn.Module):
    """Answers to tasks, each with a learned query and a 2-layer tanh MLP of its own.

    An example is answered by the query and the MLP of its own task, so a batch of many tasks costs
    as much as one of a single task. Perceiver IO (2022), app. F.4 and Table 2: multitask queries.

    Attributes:
      tasks: number of classes by task; 1 is a task that asks for a number. Tasks are counted in
        alphabetical order.
      query_channels: width of the queries and of the MLPs' hidden layer.
      query_init_scale: parameter of the queries' truncated normal.
      shared_query: one query for all tasks, which a token of the input tells apart, or nothing.
    """

    tasks: Mapping[str, Size]
    query_channels: Channels = 768
    query_init_scale: Positive = 0.02
    shared_query: bool = False
    dtype: jax.typing.DTypeLike = jnp.float32

    def setup(self):
        if not self.tasks:
            raise ValueError("tasks={}: name at least one task")
        init = nn.initializers.truncated_normal(self.query_init_scale)
        rows = 1 if self.shared_query else len(self.tasks)
        self.query = self.param("query", init, (rows, self.query_channels))
        self.hidden = {task: LinearWeights(self.query_channels) for task in sorted(self.tasks)}
        self.logits = {task: LinearWeights(self.tasks[task]) for task in sorted(self.tasks)}

    def queries(self, tokens: Tokens, indices: jax.Array | None = None) -> Tokens:
        """The queries of the tasks `indices` `[B, n]`; without them that of the only task."""
        queries = Tokens(position=Table(self.query))
        self._check(indices)
        return queries if indices is None or self.shared_query else queries.take(indices)

    def head(self, width: int) -> Head:
        """None: which MLP follows differs between examples."""
        return ()

    def __call__(self, decoded: jax.Array, indices: jax.Array | None = None) -> jax.Array:
        """`[B, n, C]` -> float32 `[B, n, K]`: logits, `NEVER` of classes that a task has not.

        K is the largest number of classes. A number is the first of the K.
        """
        self._check(indices)
        if indices is None:
            indices = jnp.zeros((decoded.shape[0], 1), jnp.int32)
        # All MLPs answer all examples: they are small beside the encoder.
        answers = jnp.stack([self._answer(task, decoded) for task in sorted(self.tasks)], axis=2)
        return jnp.take_along_axis(answers, indices[..., None, None], axis=2)[:, :, 0]

    def _answer(self, task: str, x: jax.Array) -> jax.Array:
        x = jnp.tanh(linear(x, self.hidden[task](x.shape[-1]), self.dtype))
        x = linear(x, self.logits[task](x.shape[-1]), self.dtype).astype(jnp.float32)
        missing = max(self.tasks.values()) - x.shape[-1]
        return jnp.pad(x, ((0, 0), (0, 0), (0, missing)), constant_values=NEVER)

    def _check(self, indices: jax.Array | None) -> None:
        if indices is None and len(self.tasks) > 1:
            raise ValueError(
                f"say which of the tasks {sorted(self.tasks)} is asked: indices [B, n]"
            )
