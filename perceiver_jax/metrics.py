"""Metrics: `metric(prediction, batch) -> (sum, count)` over the examples that `mask` keeps.

The last ones, such as mean average precision and Matthews' correlation, are no means over examples:
they are computed from a whole evaluation at once.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax

from perceiver_jax.losses import mean_squared_error


def masked_sum(values: jax.Array, batch) -> tuple[jax.Array, jax.Array]:
    """Sum and count of per-example `values` `[B]` where `batch["mask"]` is True."""
    return _sum(values, batch["mask"])


def _sum(values: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.sum(jnp.where(mask, values, 0), dtype=jnp.float32), jnp.sum(mask, dtype=jnp.float32)


def top_accuracy(k: int) -> Callable:
    """Share of examples whose `label` has one of the k largest logits `[B, K]`.

    Of several labels, `label_ids` `[B, L]`, one of them must. Ties count as wrong, and so do labels
    outside 0..K-1 and logits that are NaN.
    """

    def metric(logits, batch):
        label = batch["label_ids"] if "label_ids" in batch else batch["label"][:, None]  # [B, L]
        known = (label >= 0) & (label < logits.shape[1])
        own = jnp.take_along_axis(logits, jnp.where(known, label, 0), axis=1)
        own = jnp.max(jnp.where(known, own, -jnp.inf), axis=1, keepdims=True)  # [B, 1]
        # Comparisons with NaN are false, so counting smaller logits never favours NaN.
        smaller = jnp.sum(logits < own, axis=1)
        right = known.any(axis=1) & (smaller >= logits.shape[1] - k) & ~jnp.isnan(own[:, 0])
        return masked_sum(right.astype(jnp.float32), batch)

    return metric


def psnr(prediction: jax.Array, batch, *, peak: float = 1.0) -> tuple[jax.Array, jax.Array]:
    """Peak signal-to-noise ratio in dB, 10 log10(peak^2 / mean squared error), of each example.

    At most 100 + 20 log10(peak), so that a perfect reconstruction stays finite.

    Args:
      prediction: `[B, ...]`.
      batch: `target`, of the same shape.
      peak: the largest possible value.
    """
    error = jnp.maximum(mean_squared_error(prediction, batch), 1e-10)
    return masked_sum(10 * jnp.log10(peak**2 / error), batch)


# --- Bytes: logits [B, M, K] against the ids `batch["target"]` [B, M] ---------------------------
#
# The mean is over all masked bytes (`batch["hidden"]`) of all examples together.


def hidden_accuracy(logits: jax.Array, batch) -> tuple[jax.Array, jax.Array]:
    """Share of the masked bytes whose logit is the largest; NaN counts as wrong."""
    right = jnp.argmax(logits, axis=-1) == batch["target"]
    right &= ~jnp.isnan(jnp.max(logits, axis=-1))  # argmax treats NaN as the largest
    return _sum(right.astype(jnp.float32), batch["hidden"] & batch["mask"][:, None])


def bits_per_byte(logits: jax.Array, batch) -> tuple[jax.Array, jax.Array]:
    """Mean cross-entropy of the masked bytes, in bits."""
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, batch["target"])
    return _sum(nats / jnp.log(2.0), batch["hidden"] & batch["mask"][:, None])


# --- Entities: logits [B, M, K] against `batch["named"]` [B, M], -1 at unused slots --------------


def entity_accuracy(logits: jax.Array, batch) -> tuple[jax.Array, jax.Array]:
    """Share of the entities of all sets whose `named` logit is the largest; NaN counts as wrong."""
    right = jnp.argmax(logits, axis=-1) == batch["named"]
    right &= ~jnp.isnan(jnp.max(logits, axis=-1))
    return _sum(right.astype(jnp.float32), (batch["named"] >= 0) & batch["mask"][:, None])


# --- Fields: a flow [B, ..., 2] or a disparity [B, ..., 1] against `batch["field"]` ------------
#
# The mean is over all pixels of all examples together where `valid` is True; with `visible` only
# over those that are not `occluded`.


def end_point_error(*, visible: bool = False, valid_only: bool = False) -> Callable:
    """EPE: the mean length of the error in pixels (Otte and Nagel 1994), also of a disparity.

    Papers count all pixels of MPI-Sintel; `valid_only` leaves out those marked as invalid.
    """

    def metric(prediction, batch):
        counted = _counted(batch, visible)
        return _sum(_error(prediction, batch), counted & batch["valid"] if valid_only else counted)

    return metric


def image_end_point_error(*, visible: bool = False) -> Callable:
    """The mean over images of each image's mean EPE, as RAFT reports KITTI (Teed and Deng 2020)."""

    def metric(prediction, batch):
        counted = _counted(batch, visible)
        axes = tuple(range(1, counted.ndim))
        total = jnp.sum(jnp.where(counted, _error(prediction, batch), 0.0), axis=axes)
        count = jnp.sum(counted, axis=axes, dtype=jnp.float32)
        return _sum(total / jnp.maximum(count, 1.0), count > 0)

    return metric


def bad_pixels(threshold: float, *, visible: bool = False) -> Callable:
    """Share of pixels whose error is above `threshold` pixels (Scharstein and Szeliski 2002)."""

    def metric(prediction, batch):
        bad = ~(_error(prediction, batch) <= threshold)  # NaN too
        return _sum(bad.astype(jnp.float32), _counted(batch, visible))

    return metric


def outliers(*, visible: bool = False) -> Callable:
    """Share of pixels wrong by more than 3 pixels *and* more than 5 % of the true length.

    KITTI 2015 (Menze and Geiger 2015): Fl-all for a flow, D1-all for a disparity.
    """

    def metric(prediction, batch):
        error, length = _error(prediction, batch), jnp.linalg.norm(batch["field"], axis=-1)
        bad = ~((error <= 3.0) | (error <= 0.05 * length))  # NaN too
        return _sum(bad.astype(jnp.float32), _counted(batch, visible))

    return metric


def _error(prediction, batch) -> jax.Array:
    return jnp.linalg.norm(prediction - batch["field"], axis=-1)  # [B, ...]


def _counted(batch, visible: bool) -> jax.Array:
    """The pixels with a truth: `known` of sets that have it besides `valid`."""
    known, mask = batch.get("known", batch["valid"]), batch["mask"]
    known = known & mask.reshape(-1, *[1] * (known.ndim - 1))
    return known & ~batch["occluded"] if visible else known


# --- Whole evaluation: `metric(collected) -> float` of numpy arrays `[N, ...]`, see `Task` ------


def mean_average_precision(collected: Mapping[str, np.ndarray]) -> float:
    """mAP: the mean over labels of the area under each label's precision by recall (AudioSet's).

    The scores of a file's clips are averaged first (Perceiver 2021, section 4.2: 16 of each). A
    label without a file does not count; without any label the result is nan.

    Args:
      collected: `score` `[N, K]`; `target` bool `[N, K]`; `file` `[N]`, the file of each
        clip.
    """
    from sklearn.metrics import average_precision_score  # slow to import

    _, first, file = np.unique(collected["file"], return_index=True, return_inverse=True)
    score = np.zeros((len(first), collected["score"].shape[1]))
    np.add.at(score, file, collected["score"])
    score /= np.bincount(file)[:, None]
    target = collected["target"][first]
    # One label at a time: transposed matrices would be accepted and give a wrong number.
    precisions = [
        average_precision_score(target[:, k], score[:, k]) for k in np.flatnonzero(target.any(0))
    ]
    return float(np.mean(precisions)) if precisions else float("nan")


# Answers to questions about texts: `label` `[N]` and `prediction` `[N]`, the class or the number.


def accuracy(collected: Mapping[str, np.ndarray]) -> float:
    """Share of the examples whose predicted class is the label."""
    return float(np.mean(collected["prediction"] == collected["label"]))


def mean_class_accuracy(collected: Mapping[str, np.ndarray]) -> float:
    """The mean over classes of the accuracy within each; `prediction` and `label` `[N]`."""
    right, label = collected["prediction"] == collected["label"], collected["label"]
    return float(np.mean([right[label == k].mean() for k in np.unique(label)]))


def f1(collected: Mapping[str, np.ndarray]) -> float:
    """F1 of class 1: 2 TP / (2 TP + FP + FN); 0 where nothing is of that class."""
    from sklearn.metrics import f1_score  # slow to import

    label, prediction = collected["label"], collected["prediction"]
    return float(f1_score(label, prediction, labels=[1], average="macro", zero_division=0))


def matthews(collected: Mapping[str, np.ndarray]) -> float:
    """Matthews' correlation of classes, from -1 to 1; 0 where all are predicted alike."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(collected["label"], collected["prediction"]))


def pearson(collected: Mapping[str, np.ndarray]) -> float:
    """Pearson's correlation of numbers; nan where the labels or the predictions are all equal."""
    from scipy.stats import pearsonr

    return _correlation(pearsonr, collected)


def spearman(collected: Mapping[str, np.ndarray]) -> float:
    """Pearson's correlation of ranks, ties at their mean rank; nan as `pearson`."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, collected)


def _correlation(function: Callable, collected: Mapping[str, np.ndarray]) -> float:
    pair = [np.asarray(collected[name], np.float64) for name in ("label", "prediction")]
    if min(np.ptp(x) for x in pair) == 0 or not np.isfinite(pair).all():
        return float("nan")
    return float(function(*pair).statistic)


# The parts of GLUE whose scores the paper averages, and the metric of each; not WNLI.
GLUE = {
    "cola": "matthews",
    "mnli_matched": "accuracy",
    "mnli_mismatched": "accuracy",
    "mrpc": "accuracy",
    "qnli": "accuracy",
    "qqp": "accuracy",
    "rte": "accuracy",
    "sst2": "accuracy",
    "stsb": "pearson",
}


def glue_average(scores: Mapping[str, float]) -> float:
    """The paper's average over eight tasks (app. F.4): both parts of MNLI count as one.

    Args:
      scores: one for each part of `GLUE`, all in percent or all as fractions.

    Raises:
      ValueError: a part has no score.
    """
    if missing := sorted(GLUE.keys() - scores.keys()):
        raise ValueError(f"the average of GLUE needs scores of {missing} too")
    weights = {part: 0.5 if part.startswith("mnli") else 1.0 for part in GLUE}
    total = sum(weight * scores[part] for part, weight in weights.items())
    return total / sum(weights.values())
