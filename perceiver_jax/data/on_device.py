"""Device-side preparation, inside the compiled step: uint8 to float, targets, mixing of examples.

Pure functions of arrays. They are elementwise over the batch, apart from one roll by a row, so the
batch keeps its sharding.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from perceiver_jax import mesh

# Of ImageNet's training images, per RGB channel, on the scale 0..255.
IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
IMAGENET_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)


def normalize(
    image: jax.Array,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> jax.Array:
    """(image - mean) / std.

    Args:
      image: [..., C], uint8.
      mean: one value per channel, on the image's scale 0..255.
      std: likewise.

    Returns:
      float32 [..., C].
    """
    if not len(mean) == len(std) == image.shape[-1]:
        raise ValueError(
            f"normalize: {image.shape[-1]} channels, but {len(mean)} means and {len(std)} stds"
        )
    axes = (1,) * (image.ndim - 1)
    mean, std = (jnp.asarray(x, jnp.float32).reshape(*axes, -1) for x in (mean, std))
    return (image.astype(jnp.float32) - mean) / std


def smooth_targets(label: jax.Array, num_classes: int, smoothing: float = 0.0) -> jax.Array:
    """(1 - smoothing) * one_hot + smoothing / num_classes.

    The official ImageNet recipe has smoothing 0.1, which the paper does not mention.

    Args:
      label: [B], int32.
      num_classes: K.
      smoothing: the part of each target that is spread over all classes.

    Returns:
      float32 [B, K]; rows sum to 1.
    """
    return (1.0 - smoothing) * jax.nn.one_hot(label, num_classes) + smoothing / num_classes


def several_targets(label_ids: jax.Array, num_classes: int, smoothing: float = 0.0) -> jax.Array:
    """As `smooth_targets` of several labels, which share the weight of an example alike.

    Perceiver IO's pretraining (app. A.2) has a softmax over several labels; it does not say how
    they are weighted. Rows add up to 1, so that images of few labels count as much as others.

    Args:
      label_ids: [B, L], int32, -1 where there is none.
      num_classes: K.
      smoothing: the part of each target that is spread over all classes.

    Returns:
      float32 [B, K]; a row without any label is `smoothing / num_classes`.
    """
    hot = jax.nn.one_hot(label_ids, num_classes).sum(axis=1)  # a -1 is all zeros
    count = jnp.maximum(hot.sum(axis=1, keepdims=True), 1.0)
    return (1.0 - smoothing) * hot / count + smoothing / num_classes


def mix(
    image: jax.Array,
    target: jax.Array,
    key: jax.Array,
    alpha: float = 0.2,
    partner: tuple[jax.Array, jax.Array] | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Mixup for the first half of the batch, CutMix for the second (Perceiver IO, App. A.1).

    Mixup, arXiv 1710.09412: w image + (1 - w) partner, w ~ Beta(alpha, alpha) for each example.
    CutMix, arXiv 1905.04899: image inside a random box, partner outside; w is the box's part of
    the area. As in the official code the box's side is sqrt(1 - u) of the image's, u uniform,
    before the part that sticks out is cut off. Targets are mixed with the same w.

    Args:
      image: [B, H, W, C].
      target: [B, K].
      key: a PRNG key; the result is a function of it.
      alpha: of the Beta distribution, > 0.
      partner: image and target of other examples, shaped alike: the official code reads twice the
        images and uses each once. None takes the next example of the batch.

    Returns:
      image float32 [B, H, W, C] and target float32 [B, K].
    """
    batch, height, width, _ = image.shape
    weight_key, box_key = jax.random.split(key)
    weight = jax.random.beta(weight_key, alpha, alpha, (batch, 1, 1, 1), jnp.float32)
    weight = mesh.replicate(weight)
    box = _boxes(box_key, batch, height, width)  # [B, H, W, 1]
    by_mixup = (jnp.arange(batch) < batch // 2).reshape(batch, 1, 1, 1)
    weight = jnp.where(by_mixup, weight, box)  # [B, H, W, 1], per pixel
    share = weight.mean(axis=(1, 2, 3)).reshape(batch, 1)
    if partner is None:
        partner = jnp.roll(image, -1, axis=0), jnp.roll(target, -1, axis=0)
    return _interpolate(image, partner[0], weight), _interpolate(target, partner[1], share)


def _interpolate(first: jax.Array, second: jax.Array, weight: jax.Array) -> jax.Array:
    first, second = first.astype(jnp.float32), second.astype(jnp.float32)
    return weight * first + (1.0 - weight) * second


def _boxes(key: jax.Array, batch: int, height: int, width: int) -> jax.Array:
    """CutMix masks, float32 [B, H, W, 1]: 1 inside a random box, 0 outside."""
    area_key, y_key, x_key = jax.random.split(key, 3)
    side = jnp.sqrt(1.0 - jax.random.uniform(area_key, (batch, 1)))
    rows = _interval(y_key, side, height).reshape(batch, height, 1, 1)
    columns = _interval(x_key, side, width).reshape(batch, 1, width, 1)
    return (rows & columns).astype(jnp.float32)


def _interval(key: jax.Array, side: jax.Array, extent: int) -> jax.Array:
    """Which of `extent` pixels lie within side / 2 of a uniform one, [B, extent]."""
    centre = jax.random.randint(key, side.shape, 0, extent)
    half = (side * extent).astype(jnp.int32) // 2
    pixel = jnp.arange(extent).reshape(1, extent)
    return (centre - half <= pixel) & (pixel < centre + half)
