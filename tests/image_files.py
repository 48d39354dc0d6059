"""Writes small images into folders of classes, and tables that list them."""

import cv2
import numpy as np


def write_image(path, seed=0, size=(12, 16)):
    """A random image, the same for the same seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())


def write_folder(folder, *, parts=("train", "val"), classes=("cat", "dog", "eel"), count=5):
    """`count` images of each class in each part; without parts the classes lie in the folder."""
    seed = 0
    for part in parts:
        for name in classes:
            for number in range(count):
                seed += 1
                write_image(folder / part / name / f"{number}.png", seed, (12 + number, 16))


def write_tables(folder, *, count=6):
    """train.csv and val.csv with the columns `path` and `label`, and their images."""
    for seed, part in enumerate(("train", "val")):
        rows = ["path,label"]
        for number in range(count):
            path = f"pictures/{part}{number}.png"
            write_image(folder / path, 100 * seed + number)
            rows.append(f"{path},{('cup', 'cup;plate', 'plate')[number % 3]}")
        (folder / f"{part}.csv").write_text("\n".join(rows) + "\n")
