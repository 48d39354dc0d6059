"""Folders of point clouds and meshes in the formats that people have."""

import json

import numpy as np

TETRAHEDRON = ("1 1 1", "1 -1 -1", "-1 1 -1", "-1 -1 1")
FACES = ("3 0 1 2", "3 0 1 3", "3 0 2 3", "3 1 2 3")


def off_text(header: str = "OFF\n4 4 0\n", vertices=TETRAHEDRON, faces=FACES) -> str:
    """A tetrahedron as an OFF file."""
    return header + "\n".join([*vertices, *faces]) + "\n"


def write_princeton(folder, classes=("bathtub", "night_stand"), count=6):
    """`CLASS/{train,test}/CLASS_0001.off`; odd files have the header of ModelNet40's bad ones."""
    for name in classes:
        for split in ("train", "test"):
            (folder / name / split).mkdir(parents=True)
            for i in range(count):
                text = off_text("OFF4 4 0\n" if i % 2 else "OFF\n4 4 0\n")
                (folder / name / split / f"{name}_{i:04}.off").write_text(text)


def write_modelnet_hdf5(folder, sizes=None, num_points=64):
    """A folder as `modelnet40_ply_hdf5_2048`: arrays, dtypes and names are those of the archive."""
    import h5py

    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shape_names.txt").write_text("airplane\nbathtub\nnight_stand\n")
    for split, counts in (sizes or {"train": (4, 3), "test": (5,)}).items():
        lines = []
        for k, count in enumerate(counts):
            points = rng.uniform(-1, 1, (count, num_points, 3)).astype(np.float32)
            name = f"ply_data_{split}{k}.h5"
            with h5py.File(folder / name, "w") as file:
                file["data"] = points
                file["normal"] = points / np.linalg.norm(points, axis=2, keepdims=True)
                file["faceId"] = np.zeros((count, num_points), np.int32)
                file["label"] = (np.arange(count) % 3).astype(np.uint8)[:, None]
            lines.append(f"data/modelnet40_ply_hdf5_2048/{name}")
            listed = json.dumps([f"airplane/airplane_{i:04}" for i in range(count)])
            (folder / f"ply_data_{split}_{k}_id2file.json").write_text(listed)
        (folder / f"{split}_files.txt").write_text("\n".join(lines) + "\n")
