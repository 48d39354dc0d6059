"""Wrong labels, images and records are refused on the host, in one line with source and index."""

import os
import struct
import subprocess
import sys
import textwrap
import zlib

import cv2
import numpy as np
import pytest

from configs import digits
from experiments.tasks import image
from perceiver_jax.data import checks, eval_batches, parse, train_batches
from perceiver_jax.data.transforms import Encoded
from perceiver_jax.datasets import Arrays
from perceiver_jax.datasets.arrays import into_memory

PIXELS = np.zeros((20, 4, 4, 3), np.uint8)
LINE = parse("keep('image', 'label')")


def labelled(labels):
    return Arrays({"image": PIXELS[: len(labels)], "label": labels}, name="mine[train]")


def first_batch(source, line=LINE, *, num_classes=10, train=False, readers="threads:1"):
    kwargs = {"batch_size": len(source), "num_classes": num_classes, "readers": readers}
    open_batches = train_batches if train else eval_batches
    with_seed = {"seed": 0} if train else {}
    batches = open_batches(source, line, **kwargs, **with_seed)
    try:
        return next(batches)
    finally:
        batches.close()


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(
    "labels, message",
    [
        (np.arange(1, 11), r"example 9: label=10 is not one of 0 to 9: set num_classes=10"),
        (np.array([0, 3, -1]), r"example 2: label=-1 is not one of 0 to 9"),
        (np.eye(10)[:3], r"example \d: label=array\(.* is float64 \[10\].*np.argmax"),
        (np.array([[1], [2]]), r"example \d: label=array\(\[.\]\) is int64 \[1\]"),
        (np.array([1.0, 2.0]), r"example \d: label=.*[12].0.* is float64, .*\(num_classes=10\)"),
        (np.array(["cat", "dog"]), r"example \d: label=.* is str_, not one integer from 0 to 9"),
    ],
)
def test_labels_that_the_model_does_not_have_are_refused(labels, message, train):
    with pytest.raises(checks.BadExample, match=r"^mine\[train\], " + message) as error:
        first_batch(labelled(labels), train=train)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_good_labels_pass(dtype):
    batch = first_batch(labelled(np.arange(10).astype(dtype)))
    np.testing.assert_array_equal(batch["label"], np.arange(10))
    assert len(first_batch(labelled(np.arange(20)), num_classes=None)["label"]) == 20


@pytest.mark.parametrize("field", checks.IMAGES)
def test_float_images_are_refused(field):
    source = Arrays({field: np.linspace(0, 1, 24, dtype=np.float32).reshape(2, 2, 2, 3)}, name="x")
    with pytest.raises(ValueError, match=rf"x, example 0: '{field}' is float32 from 0 to .*uint8"):
        first_batch(source, parse(f"keep({field!r})"))


def test_a_task_passes_its_number_of_classes():
    config = digits.get_config("standard:tiny")
    config.model.output.num_classes = 5
    with pytest.raises(ValueError, match=r"digits\[test\], example \d+: label=\d is not one of"):
        image.make_task(config)


class Files:
    """A good file, then those given."""

    in_memory = False

    def __init__(self, *damaged):
        self.files = [small_png(), *damaged]

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        return {"image": Encoded(self.files[index], 3)}

    def __repr__(self):
        return "files[all]"


def small_png():
    return cv2.imencode(".png", PIXELS[0])[1].tobytes()


def huge_png():
    """A PNG whose header says 60,000 x 60,000 pixels."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("bad, reason", [(huge_png(), "too large"), (b"no image", "no readable")])
@pytest.mark.parametrize("train", [False, True])
def test_a_file_that_cannot_be_decoded_is_named(bad, reason, train):
    with pytest.raises(checks.BadExample, match=rf"files\[all\], example 1: 'image' .*{reason}"):
        first_batch(Files(bad), parse("decode | keep('image')"), train=train)
    with pytest.raises(checks.BadExample, match=rf"files\[all\], example 1: 'image' .*{reason}"):
        into_memory(Files(bad))


def test_a_record_is_named_where_many_are_fetched_at_once():
    class Batched(Files):
        def __getitem__(self, index):
            if index == 1:
                raise OSError("disk on fire")
            return super().__getitem__(index)

        def __getitems__(self, indices):
            return [self[i] for i in indices]

    with pytest.raises(checks.BadExample, match=r"files\[all\], example 1: disk on fire"):
        first_batch(Batched(small_png()), parse("decode | keep('image')"))


def test_an_error_in_a_worker_is_one_line(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import sys
            import numpy as np
            from perceiver_jax.datasets import Arrays
            from perceiver_jax.data import parse, train_batches
            from perceiver_jax.train.stop import explain

            if __name__ == "__main__":
                source = Arrays({"label": np.arange(9)}, name="mine[train]")
                line = parse("keep('label')")
                try:
                    next(train_batches(
                        source, line, batch_size=9, seed=0, readers="workers:1", num_classes=8
                    ))
                except Exception as error:
                    text, code = explain(error)
                    print(text, file=sys.stderr)
                    sys.exit(code)
        """)
    )
    run = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])},
    )
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    assert "mine[train], example 8: label=8 is not one of 0 to 7" in line


def test_one_of_several_labels_beyond_the_classes_is_refused():
    example = {"label_ids": np.array([3, 10, -1], np.int32)}
    checks.check_label(example, 11)
    with pytest.raises(ValueError, match=r"label_ids holds 10, which is not one of 0 to 9"):
        checks.check_label(example, 10)


@pytest.mark.parametrize(
    ("label", "task", "message"),
    [
        (-1, 0, "labels of this split are not public"),
        (np.float32(-1), 2, "labels of this split are not public"),
        (2, 0, "label=2 is not one of 0 to 1: set num_classes=2"),
        (np.float32(3), 1, "label=3 is not one of 0 to 2"),
        (0.5, 1, "label=0.5 is float, not one integer"),
        (np.nan, 2, "label=nan is not a finite number"),
    ],
)
def test_labels_are_those_of_the_examples_task(label, task, message):
    """Two classes, three, and a number."""
    for good, of in ((1, 0), (np.float32(2), 1), (-3.5, 2)):
        checks.check_label({"label": good, "task": np.int32(of)}, (2, 3, 1))
    with pytest.raises(ValueError, match=message):
        checks.check_label({"label": label, "task": np.int32(task)}, (2, 3, 1))
