"""Point clouds on disk, in the exact formats, and generated solids."""

import numpy as np
import pytest
from point_files import off_text, write_modelnet_hdf5, write_princeton

from perceiver_jax.datasets import registry
from perceiver_jax.datasets.generated.shapes import SOLIDS, TUBE


def test_hdf5_files_of_modelnet40(tmp_path):
    h5py = pytest.importorskip("h5py")
    write_modelnet_hdf5(tmp_path / "set")
    options = {"normals": True}
    train = registry.load("points", "train", data_dir=f"{tmp_path}/set", options=options)
    assert (len(train), repr(train)) == (7, "points[set/train]")
    assert train.classes == ["airplane", "bathtub", "night_stand"]
    example = train[5]  # of the second file
    assert example["points"].shape == (64, 3) and example["points"].dtype == np.float32
    assert example["label"] == 1 and example["label"].dtype == np.int32
    with h5py.File(tmp_path / "set/ply_data_train1.h5") as file:
        np.testing.assert_array_equal(example["points"], file["data"][1])
        np.testing.assert_array_equal(example["normal"], file["normal"][1])
    test = registry.load("points", "test", data_dir=f"{tmp_path}/set")
    assert len(test) == 5 and set(test[0]) == {"points", "label"}


def test_damaged_hdf5_files_are_named(tmp_path):
    h5py = pytest.importorskip("h5py")
    write_modelnet_hdf5(tmp_path)

    def refused(error, message, **options):
        with pytest.raises(error, match=message):
            registry.load("points", "test", data_dir=str(tmp_path), options=options)

    file = tmp_path / "ply_data_test0.h5"

    def write(**arrays):
        with h5py.File(file, "w") as f:
            for name, value in arrays.items():
                f[name] = value

    points = np.zeros((2, 8, 3), np.float32)
    write(data=points, label=np.array([[0], [3]], np.uint8))
    refused(ValueError, r"test0\.h5: a label is 3, but shape_names\.txt names 3 classes")
    write(data=points, label=np.zeros((2, 1), np.uint8))
    refused(ValueError, r"test0\.h5 has no array 'normal', but \['data', 'label'\]", normals=True)
    write(data=points[:1], label=np.zeros((2, 1), np.uint8))
    refused(ValueError, r"'data' is \[1, 8, 3\], not \[2, points, 3\]")
    write(data=points + np.nan, label=np.zeros((2, 1), np.uint8))
    refused(ValueError, "not finite")
    file.write_bytes(b"not HDF5")
    refused(ValueError, r"test0\.h5 is damaged, or no HDF5 file")
    file.unlink()
    refused(FileNotFoundError, r"test0\.h5 is missing")
    (tmp_path / "test_files.txt").write_text("\n")
    refused(ValueError, "is empty")


def test_princeton_folders_of_off_files(tmp_path):
    write_princeton(tmp_path)
    options = {"num_points": 50, "normals": True}
    source = registry.load("points", "test", data_dir=str(tmp_path), options=options)
    assert source.classes == ["bathtub", "night_stand"]
    assert [int(source[i]["label"]) for i in range(len(source))] == [0] * 6 + [1] * 6
    first, again, other = source[0], source[0], source[1]
    np.testing.assert_array_equal(first["points"], again["points"])  # a batch can come again
    assert not np.array_equal(first["points"], other["points"])
    # Each face of this tetrahedron is 1 / sqrt(3) away from its centre.
    offsets = (first["points"] * first["normal"]).sum(1)
    np.testing.assert_allclose(np.abs(offsets), 1 / np.sqrt(3), rtol=1e-5)
    seeded = registry.load("points", "test", data_dir=str(tmp_path), options=options | {"seed": 1})
    assert not np.array_equal(seeded[0]["points"], first["points"])


def test_what_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither train_files\.txt.*CLASS/train"):
        registry.load("points", "train", data_dir=str(tmp_path))
    write_princeton(tmp_path, count=1)
    (tmp_path / "bathtub/train/bathtub_0000.off").write_text(off_text(vertices=["0 0 0"] * 4))
    source = registry.load("points", "train", data_dir=str(tmp_path))
    with pytest.raises(ValueError, match=r"bathtub_0000\.off: the surface has no area"):
        source[0]
    with pytest.raises(ValueError, match=r"config\.data\.source_options has no field 'normal'"):
        registry.check_options("points", {"normal": True})


@pytest.mark.parametrize("name", SOLIDS)
def test_solids_are_drawn_uniformly_on_their_surfaces(name):
    """Where the points are, and how many on a part of known area."""
    x, y, z = SOLIDS[name](np.random.default_rng(0), 20_000).T
    radius = np.hypot(x, y)
    surface, part, share = {
        "sphere": (np.hypot(radius, z) - 1, z > 0.5, 1 / 4),
        "cube": (np.maximum(np.maximum(abs(x), abs(y)), abs(z)) - 1, z == 1, 1 / 6),
        "cylinder": (np.maximum(radius, abs(z)) - 1, abs(z) == 1, 1 / 3),
        "cone": (
            np.maximum(-1 - z, radius - (1 - z) / 2),
            (z > -1) & (z < 0),
            0.75 * 5**0.5 / (1 + 5**0.5),
        ),
        "torus": (np.hypot(radius - 1, z) - TUBE, radius > 1, 1 / 2 + TUBE / np.pi),
        "tetrahedron": (
            np.max([x + y - z, x - y + z, y + z - x, -x - y - z], axis=0) - 1,
            np.isclose(x + y - z, 1),
            1 / 4,
        ),
    }[name]
    np.testing.assert_allclose(surface, 0, atol=1e-9)
    assert abs(part.mean() - share) < 0.015


def test_shapes_follow_their_options():
    options = {"num_points": (5, 9), "turn": "all"}
    source = registry.load("shapes", "test[:60]", options=options)
    assert source.classes == tuple(SOLIDS)
    sizes = {len(source[i]["points"]) for i in range(60)}
    assert sizes == {5, 6, 7, 8, 9}
    assert {int(source[i]["label"]) for i in range(60)} == set(range(6))
    np.testing.assert_array_equal(source[7]["points"], source[7]["points"])
    exact = {"stretch": 1.0, "noise": 0.0, "turn": "all", "num_points": (99, 99)}
    source = registry.load("shapes", "test[:60]", options=exact)
    lengths = [np.linalg.norm(e["points"], axis=1) for e in map(source.__getitem__, range(60))]
    labels = [int(source[i]["label"]) for i in range(60)]
    spheres = [x for x, k in zip(lengths, labels, strict=True) if not k]
    np.testing.assert_allclose(spheres, 1, rtol=1e-5)  # a turn keeps lengths
    with pytest.raises(ValueError, match=r"source_options\.stretch=0\.5"):
        registry.check_options("shapes", {"stretch": 0.5})
