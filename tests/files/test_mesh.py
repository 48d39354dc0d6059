"""Meshes: files as they are met, and points drawn by area."""

import numpy as np
import pytest
from point_files import FACES, TETRAHEDRON, off_text

from perceiver_jax import files

CORNERS = np.array([[float(x) for x in line.split()] for line in TETRAHEDRON])


def read(tmp_path, text, name="mesh.off"):
    (tmp_path / name).write_text(text)
    return files.read_mesh(tmp_path / name)


@pytest.mark.parametrize(
    "header",
    [
        "OFF\n4 4 0\n",
        "OFF4 4 0\n",  # hundreds of ModelNet40's files
        "OFF 4 4 0\n",
        "# made by hand\n\noff\n# counts\n4 4 6\n\n",
        "OFF\r\n4 4 0\r\n",
    ],
)
def test_headers_of_off_files(tmp_path, header):
    mesh = read(tmp_path, off_text(header))
    np.testing.assert_array_equal(mesh.vertices, CORNERS)
    np.testing.assert_array_equal(mesh.faces, [[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]])


def test_polygons_become_fans_and_colours_are_left_out(tmp_path):
    vertices = ("0 0 0 255 0 0", "2 0 0", "3 1 0", "2 2 0", "0 2 0")
    faces = ("5 0 1 2 3 4 255 0 0", "3 0 1 2", "4 0 1 2 3 0.5 0.5 0.5")
    mesh = read(tmp_path, off_text("OFF\n5 3 0\n", vertices, faces))
    assert mesh.vertices.shape == (5, 3)
    expected = [[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 1, 2], [0, 1, 2], [0, 2, 3]]
    np.testing.assert_array_equal(mesh.faces, expected)
    coloured = tuple(f"{face} 10 20 30" for face in FACES)
    assert read(tmp_path, off_text(faces=coloured)).faces.shape == (4, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("solid", "does not begin with OFF"),
        ("", "does not begin with OFF"),
        ("OFF\n", "is damaged"),
        (off_text("OFF\n40 4 0\n"), "is damaged"),
        (off_text("OFF\n4 40 0\n"), r"promises 4 corners and 40 faces"),
        (off_text("OFF\nfour 4 0\n"), "is damaged"),
        (off_text(faces=("3 0 1", *FACES[1:])), "is damaged"),
        (off_text(faces=("4 0 1", *FACES[1:])), "a face of 4 corners names 2"),
        (off_text(faces=("3 0 1 9", *FACES[1:])), "names corner 9 of 4"),
        (off_text(vertices=("nan 0 0", *TETRAHEDRON[1:])), "not a finite number"),
        (off_text("OFF\n4 0 0\n", faces=()), "has no faces"),
    ],
)
def test_damaged_meshes_are_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=rf"mesh\.off.*({message})"):
        read(tmp_path, text)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"mesh\.txt is no mesh of a known kind \(\.off"):
        read(tmp_path, "", "mesh.txt")


@pytest.mark.parametrize("kind", ["obj", "ply", "stl"])
def test_other_kinds_are_read_by_trimesh(tmp_path, kind):
    trimesh = pytest.importorskip("trimesh")
    faces = np.array([[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]])
    trimesh.Trimesh(CORNERS, faces, process=False).export(tmp_path / f"mesh.{kind}")
    vertices, found = files.read_mesh(tmp_path / f"mesh.{kind}")
    expected, got = ({tuple(np.sort(x[f].sum(1))) for f in g} for x, g in
                     ((CORNERS, faces), (vertices, found)))  # fmt: skip
    assert expected == got
    (tmp_path / f"bad.{kind}").write_bytes(b"\0\1 no mesh")
    with pytest.raises(ValueError, match=rf"bad\.{kind}"):
        files.read_mesh(tmp_path / f"bad.{kind}")


def test_points_are_uniform_by_area_and_lie_on_the_surface():
    """A unit square as two triangles beside one of no area, and a triangle of twice its area."""
    vertices = np.array(
        [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 2], [2, 0, 2], [0, 2, 2]]
    )
    faces = np.array([[0, 1, 2], [0, 2, 3], [0, 0, 1], [4, 5, 6]])
    mesh = files.Mesh(vertices.astype(float), faces)
    points, normals = files.sample_surface(mesh, 20_000, np.random.default_rng(0))
    assert points.dtype == normals.dtype == np.float32
    square = points[points[:, 2] == 0]
    assert abs(len(square) / len(points) - 1 / 3) < 0.015
    counts, *_ = np.histogram2d(square[:, 0], square[:, 1], bins=4, range=[(0, 1), (0, 1)])
    assert np.abs(counts / len(square) * 16 - 1).max() < 0.2
    triangle = points[points[:, 2] == 2]
    assert len(square) + len(triangle) == len(points)
    assert (triangle[:, :2].sum(1) <= 2 + 1e-5).all() and (triangle >= 0).all()
    np.testing.assert_allclose(triangle[:, :2].mean(0), 2 / 3, atol=0.02)
    np.testing.assert_array_equal(normals, np.tile([0.0, 0.0, 1.0], (len(points), 1)))
    with pytest.raises(ValueError, match="no area"):
        files.sample_surface(files.Mesh(vertices, faces[2:3]), 4, np.random.default_rng(0))
