"""Point clouds of shapes with one class each: HDF5 files of points, or folders of meshes.

    DIR/train_files.txt, DIR/shape_names.txt, DIR/*.h5      as `modelnet40_ply_hdf5_2048`
    DIR/CLASS/train/*.off, DIR/CLASS/test/*.off             as Princeton's `ModelNet40`

Meshes may also be OBJ, PLY, STL or GLB files. `data_dir` is DIR. An example is `points` float32
[n, 3] as they are in the file, or with the mesh's own origin and scale, `label` int32, and with the
option `normals` the unit normals `normal` [n, 3].
"""

import dataclasses
import pathlib

import numpy as np

from perceiver_jax.config_types import Size, Whole, check_fields
from perceiver_jax.data.transforms import Example
from perceiver_jax.datasets.arrays import Arrays
from perceiver_jax.datasets.images import existing_dir, in_order, some
from perceiver_jax.files.image import natural_order
from perceiver_jax.files.mesh import MESHES, read_mesh, sample_surface
from perceiver_jax.files.paths import read_text

NAMES = "shape_names.txt"  # a class a line, in the order of their numbers


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of `points`, `config.data.source_options`.

    Attributes:
      normals: also read `normal`.
      num_points: drawn from the surface of each mesh, by area; HDF5 files have points already.
      seed: of these draws. A mesh always has the same points.
    """

    normals: bool = False
    num_points: Size = 2048
    seed: Whole = 0


def check_options(**options) -> None:
    """Raises ConfigError where an option is unknown or its value not allowed; opens nothing."""
    check_fields(Options, options, "config.data.source_options")


def load(split: str, *, data_dir: str = "", **options) -> "Arrays | Meshes":
    """Opens a split, `train` or `test`; HDF5 files are read at once, meshes one by one.

    Raises:
      FileNotFoundError: the folder, a file or the split is not there.
      ValueError: a file is damaged or lacks an array, or a label has no name.
      ImportError: h5py is needed and not installed.
    """
    check_options(**options)
    options = Options(**options)
    root = existing_dir(data_dir)
    listed = root / f"{split}_files.txt"
    if listed.is_file():
        return _read_hdf5(root, listed, split, options)
    folders = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    classes = in_order(x.name for x in folders if any(part.is_dir() for part in x.iterdir()))
    if not any((root / name / split).is_dir() for name in classes):
        raise FileNotFoundError(
            f"{root} holds neither {listed.name}, as modelnet40_ply_hdf5_2048 does, nor folders "
            f"CLASS/{split} of meshes: set config.data.data_dir to the folder that does"
        )
    return Meshes(root, split, classes, options)


def spec(*, normals: bool = False, num_points: int = Options.num_points, **_) -> Example:
    """An example of zeros."""
    zeros = np.zeros((num_points, 3), np.float32)
    return {"points": zeros, "label": np.int32(0)} | ({"normal": zeros} if normals else {})


class Meshes:
    """Mesh files in folders of classes; reads one and draws points of its surface."""

    in_memory = False

    def __init__(self, root: pathlib.Path, split: str, classes: list[str], options: Options):
        self.name, self.options, self.classes = f"points[{root.name}/{split}]", options, classes
        self.items = [
            (path, label)
            for label, name in enumerate(classes)
            if (root / name / split).is_dir()
            for path in natural_order((root / name / split).iterdir())
            if path.suffix.lower() in MESHES
        ]
        if not self.items:
            raise FileNotFoundError(
                f"{root} holds no mesh ({' '.join(MESHES)}) in CLASS/{split} of {some(classes)}"
            )

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Example:
        path, label = self.items[index]
        rng = np.random.default_rng((self.options.seed, index))
        mesh = read_mesh(path)
        try:
            points, normal = sample_surface(mesh, self.options.num_points, rng)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        example = {"points": points, "label": np.int32(label)}
        return example | ({"normal": normal} if self.options.normals else {})

    def __repr__(self) -> str:
        return self.name


def _read_hdf5(root: pathlib.Path, listed: pathlib.Path, split: str, options: Options) -> Arrays:
    """All files of a list, one after the other; only the last part of their paths counts."""
    classes = read_text(existing_file(root / NAMES)).split()
    names = [line.strip().replace("\\", "/").rpartition("/")[2] for line in _lines(listed)]
    fields = {"points": "data", "label": "label"}
    if options.normals:
        fields["normal"] = "normal"
    parts = [_read_file(existing_file(root / name), fields, len(classes)) for name in names]
    arrays = {field: np.concatenate([part[field] for part in parts]) for field in fields}
    source = Arrays(arrays, name=f"points[{root.name}/{split}]")
    source.classes = classes
    return source


def _lines(path: pathlib.Path) -> list[str]:
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{path} is empty: it names an HDF5 file a line")
    return lines


def existing_file(path: pathlib.Path) -> pathlib.Path:
    """The path, which must be a file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: unpack the whole archive into {path.parent}")
    return path


def _read_file(
    path: pathlib.Path, fields: dict[str, str], num_classes: int
) -> dict[str, np.ndarray]:
    """The arrays of one file under our names."""
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            "HDF5 files of points need h5py: pip install -e '.[points]'", name="h5py"
        ) from error
    try:
        with path.open("rb") as stream, h5py.File(stream, "r") as file:
            if missing := sorted(set(fields.values()) - set(file)):
                raise ValueError(f"{path} has no array {missing[0]!r}, but {sorted(file)}")
            arrays = {field: file[key][()] for field, key in fields.items()}
    except OSError as error:
        raise ValueError(f"{path} is damaged, or no HDF5 file: {error}") from error
    arrays["label"] = arrays["label"].reshape(-1).astype(np.int32)
    count = len(arrays["label"])
    for field in set(fields) - {"label"}:
        values = arrays[field] = arrays[field].astype(np.float32)
        if values.ndim != 3 or values.shape[0] != count or values.shape[2] != 3:
            raise ValueError(
                f"{path}: {fields[field]!r} is {list(values.shape)}, not [{count}, points, 3]"
            )
        if not np.isfinite(values).all():
            raise ValueError(f"{path}: {fields[field]!r} holds values that are not finite")
    if count and not 0 <= arrays["label"].min() <= arrays["label"].max() < num_classes:
        raise ValueError(
            f"{path}: a label is {arrays['label'].max()}, but {NAMES} names {num_classes} classes"
        )
    return arrays
