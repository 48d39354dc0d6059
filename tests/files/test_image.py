"""Image files: what they mean is what is read, and what cannot be read is named."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from perceiver_jax import files
from perceiver_jax.data import parse
from perceiver_jax.data.transforms import Encoded

RED = np.full((4, 6, 3), (200, 10, 20), np.uint8)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def put(path, array):
    path.write_bytes(cv2.imencode(path.suffix, array)[1].tobytes())


def both(tmp_path, data):
    """What prediction reads from the file, and training from the record: they must agree."""
    (tmp_path / "a").write_bytes(data)
    image = files.read_image(tmp_path / "a")
    example = {"image": Encoded(data, 3)}
    line = parse("decode | keep('image')")
    np.testing.assert_array_equal(line(example, np.random.default_rng(0))["image"], image)
    return image


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_the_camera_says_how_an_image_is_turned(tmp_path, kind):
    exif = Image.Exif()
    exif[0x0112] = 6  # the file's first row is the picture's right side
    stored = np.zeros((16, 48, 3), np.uint8)
    stored[:8] = 250
    data = encoded(Image.fromarray(stored), kind, exif=exif)
    image = both(tmp_path, data)
    assert image.shape == (48, 16, 3)
    assert image[:, 9:].min() > 240 and image[:, :7].max() < 10
    reduced = files.decode_image(data, "it", reduce=2)
    if kind == "JPEG":
        assert reduced.shape == (24, 8, 3)
        assert reduced[:, 5:].min() > 240 and reduced[:, :3].max() < 10
    else:
        np.testing.assert_array_equal(reduced, image)


def test_transparent_pixels_are_white(tmp_path):
    alpha = np.full(RED.shape[:2], 255, np.uint8)
    alpha[0], alpha[1] = 0, 51
    expected = RED.copy()
    expected[0], expected[1] = 255, (244, 206, 208)
    image = Image.fromarray(np.dstack([RED, alpha]))
    for kind, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})):
        np.testing.assert_array_equal(both(tmp_path, encoded(image, kind, **options)), expected)


def test_a_transparent_colour_of_a_palette_is_white(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [1, 1]], np.uint8))
    image.putpalette([0, 0, 0, 200, 10, 20])
    seen = both(tmp_path, encoded(image, transparency=0))
    np.testing.assert_array_equal(seen[0], [[255] * 3, [200, 10, 20]])
    grey = Image.fromarray(np.array([[[9, 0], [9, 255]]], np.uint8), "LA")
    np.testing.assert_array_equal(both(tmp_path, encoded(grey)), [[[255] * 3, [9] * 3]])


def test_opaque_pixels_stay_as_they_are(tmp_path):
    alpha = np.full(RED.shape[:2], 255, np.uint8)
    image = both(tmp_path, encoded(Image.fromarray(np.dstack([RED, alpha]))))
    np.testing.assert_array_equal(image, RED)


@pytest.mark.parametrize("ending", [".png", ".tiff"])
def test_16_bits(tmp_path, ending):
    """Values of the full range are scaled; those of 12 bits would be black, so they are refused."""
    path = tmp_path / f"a{ending}"
    values = np.full((2, 3, 3), (0, 256, 65535), np.uint16)
    put(path, values[..., ::-1])
    np.testing.assert_array_equal(both(tmp_path, path.read_bytes())[1, 2], [0, 1, 255])
    put(path, np.full((2, 3, 3), (0, 100, 4095), np.uint16))
    with pytest.raises(ValueError, match=r"a\.\w+ holds 16-bit values of at most 4095.* 12 or"):
        files.read_image(path)
    put(path, np.zeros((2, 3, 3), np.uint16))
    assert not both(tmp_path, path.read_bytes()).any()


def test_other_values_are_refused(tmp_path):
    path = tmp_path / "a.tiff"
    put(path, np.full((2, 2, 3), 0.5, np.float32))
    with pytest.raises(ValueError, match=r"a\.tiff holds float32 values: save the image with 8"):
        files.read_image(path)


def bomb(side):
    """A PNG whose header says side x side; nobody gets as far as its pixels."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [70_000, 1_000_000])
def test_an_image_too_large_is_named_in_one_line(tmp_path, side):
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(side))
    line = parse("decode | keep('image')")
    for read in (
        lambda: files.read_image(path),
        lambda: files.read_mask(path),
        lambda: line({"image": Encoded(path.read_bytes(), 3)}, np.random.default_rng(0)),
    ):
        with pytest.raises(ValueError, match=r"(bomb\.png|'image') is too large an image") as error:
            read()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".tiff", ".bmp"])
def test_damaged_images_are_named(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    put(path, np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8))
    data = path.read_bytes()
    for wrong in (data[: len(data) // 2], data[:9], b"", b"<html>404</html>", b"\0" * 100):
        path.write_bytes(wrong)
        message = rf"a\{ending} is no readable image: {len(wrong)} bytes that start with b"
        with pytest.raises(ValueError, match=message) as error:
            files.read_image(path)
        assert "\n" not in str(error.value)


def test_only_uint8_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"a\.png: an image is written from uint8, not .*float64"):
        files.write_image(tmp_path / "a.png", np.ones((2, 2, 3)))


def test_home_and_absent_files(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    files.write_image("~/a.png", RED)
    np.testing.assert_array_equal(files.read_image("~/a.png"), RED)
    files.write_wav("~/a.wav", np.zeros(3), 8000)
    files.write_flo("~/a.flo", np.zeros((2, 3, 2), np.float32))
    files.write_pfm("~/a.pfm", np.zeros((2, 3, 1), np.float32))
    files.write_mp4("~/a.mp4", np.zeros((2, 8, 8, 3), np.uint8), frames_per_second=25)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["a.flo", "a.mp4", "a.pfm", "a.png", "a.wav"]
    with pytest.raises(ValueError, match=r"b\.png does not exist"):
        files.read_image("~/b.png")


def test_numbers_in_names_are_numbers(tmp_path):
    names = [
        "frame10.png",
        "frame2.png",
        "frame1.png",
        "a.png",
        "10_b.png",
        "9_b.png",
        "frame2b.png",
    ]
    paths = files.natural_order(tmp_path / name for name in names)
    assert [p.name for p in paths] == [
        "9_b.png",
        "10_b.png",
        "a.png",
        "frame1.png",
        "frame2.png",
        "frame2b.png",
        "frame10.png",
    ]
    assert files.natural_order([tmp_path / "1", tmp_path / "01"])[0].name == "01"
