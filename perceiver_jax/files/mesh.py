"""Triangle meshes: files to arrays, and points of their surfaces.

`.off` files are read here, because those of ModelNet40 break the format: in hundreds of them the
first line runs on into the counts (`OFF490 518 0`). OBJ, PLY, STL and others are read by `trimesh`
(`pip install -e '.[points]'`).
"""

import io
import itertools
import pathlib
from typing import NamedTuple

import numpy as np

MESHES = (".off", ".obj", ".ply", ".stl", ".glb")


class Mesh(NamedTuple):
    """Corners float64 `[V, 3]`, and triangles int64 `[F, 3]`: numbers of corners."""

    vertices: np.ndarray
    faces: np.ndarray


def read_mesh(path: pathlib.Path) -> Mesh:
    """Reads a mesh; faces of more than three corners become fans of triangles.

    Raises:
      ValueError: the file is damaged, has no faces, or is of another kind; names it.
      ImportError: trimesh is needed and not installed.
    """
    suffix, data = path.suffix.lower(), path.read_bytes()
    if suffix == ".off":
        mesh = _read_off(data, path)
    elif suffix in MESHES:
        mesh = _read_other(data, suffix, path)
    else:
        raise ValueError(f"{path} is no mesh of a known kind ({' '.join(MESHES)})")
    vertices, faces = mesh
    if not len(faces):
        raise ValueError(f"{path} has no faces, so it has no surface: remove the file")
    unknown = faces[(faces < 0) | (faces >= len(vertices))]
    if unknown.size:
        raise ValueError(
            f"{path} is damaged: a face names corner {unknown[0]} of {len(vertices):,}"
        )
    if not np.isfinite(vertices).all():
        raise ValueError(f"{path} is damaged: a coordinate is not a finite number")
    return mesh


def _read_off(data: bytes, path: pathlib.Path) -> Mesh:
    lines = [line.partition(b"#")[0].strip() for line in data.splitlines()]
    lines = [line for line in lines if line]
    if not lines or lines[0][:3].upper() != b"OFF":
        raise ValueError(f"{path} does not begin with OFF, but with {data[:12]!r}")
    lines[0] = lines[0][3:]  # the counts may follow in the same line, even without a space
    rows = [line.split() for line in lines if line]
    try:
        num_vertices, num_faces = map(int, rows[0][:2])
        vertices = np.array([row[:3] for row in rows[1 : 1 + num_vertices]], float)
        faces = rows[1 + num_vertices : 1 + num_vertices + num_faces]
        if len(vertices) < num_vertices or len(faces) < num_faces:
            raise ValueError(f"it promises {num_vertices:,} corners and {num_faces:,} faces")
        return Mesh(vertices.reshape(-1, 3), _triangles(faces))
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def _triangles(faces: list[list[bytes]]) -> np.ndarray:
    """Triangles `[F, 3]` of faces: each is the number of its corners, these, perhaps a colour."""
    if all(face[0] == b"3" for face in faces):
        return np.array([face[1:4] for face in faces], int).reshape(-1, 3)
    found = []
    for face in faces:
        count = int(face[0])
        first, *others = map(int, face[1 : 1 + count])
        if len(others) != count - 1:
            raise ValueError(f"a face of {count} corners names {len(face) - 1}")
        found += [(first, *pair) for pair in itertools.pairwise(others)]
    return np.array(found, int).reshape(-1, 3)


def _read_other(data: bytes, suffix: str, path: pathlib.Path) -> Mesh:
    try:
        import trimesh
    except ImportError as error:
        raise ImportError(
            f"{suffix} meshes need trimesh: pip install -e '.[points]'", name="trimesh"
        ) from error
    try:
        mesh = trimesh.load_mesh(io.BytesIO(data), file_type=suffix[1:], process=False)
        if isinstance(mesh, trimesh.Scene):
            mesh = mesh.to_mesh()
        return Mesh(np.array(mesh.vertices, float), np.array(mesh.faces, int))
    except Exception as error:  # its readers raise what comes
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path} is damaged, or no mesh: {reason}") from error


def sample_surface(
    mesh: Mesh, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Points drawn uniformly from a surface, by area.

    A point of a triangle is (1 - r) a + r (1 - v) b + r v c with r = sqrt(u), u and v uniform
    (Turk 1990).

    Args:
      mesh: with `F` triangles, some of area 0.
      count: number of points.
      rng: draws them.

    Returns:
      Points and the unit normals of their triangles, float32 `[count, 3]` each.

    Raises:
      ValueError: the surface has no area.
    """
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    cross = np.cross(b - a, c - a)  # [F, 3], twice as long as the area
    areas = np.linalg.norm(cross, axis=1)
    if not areas.sum() > 0:
        raise ValueError("the surface has no area")
    chosen = rng.choice(len(areas), count, p=areas / areas.sum())
    r, v = np.sqrt(rng.random((count, 1))), rng.random((count, 1))
    points = (1 - r) * a[chosen] + r * (1 - v) * b[chosen] + r * v * c[chosen]
    normals = cross[chosen] / areas[chosen, None]
    return points.astype(np.float32), normals.astype(np.float32)
