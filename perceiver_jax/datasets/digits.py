"""Scikit-learn's 1,797 handwritten digits: nothing to download."""

import numpy as np

from perceiver_jax.datasets.arrays import Arrays


def load(split: str, *, data_dir: str = "") -> Arrays:
    """Opens `train` (1,437 examples) or `test` (360).

    Scikit-learn does not split the set. Our split is `train_test_split(range(1797), test_size=0.2,
    random_state=0, stratify=labels)`, sorted.

    Returns:
      Arrays of `image` uint8 [8, 8, 1], scaled from 0..16, and `label` int32.
    """
    from sklearn import datasets, model_selection

    del data_dir
    if split not in {"train", "test"}:
        raise ValueError(f"digits has the splits 'train' and 'test', not {split!r}")
    digits = datasets.load_digits()
    train, test = model_selection.train_test_split(
        np.arange(len(digits.target)), test_size=0.2, random_state=0, stratify=digits.target
    )
    rows = np.sort(train if split == "train" else test)
    image = np.round(digits.images[rows] * (255 / 16)).astype(np.uint8)[..., None]
    label = digits.target[rows].astype(np.int32)
    return Arrays({"image": image, "label": label}, name=f"digits[{split}]")
