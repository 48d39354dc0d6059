"""Files of fields, written here byte by byte, give the values that their formats define."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from perceiver_jax import files
from perceiver_jax.datasets.pair_sets import layout


def png(values):
    """A PNG of `[H, W, 1 or 3]` uint8 or uint16, by its specification alone."""
    height, width, channels = values.shape

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    bits, colour = 8 * values.itemsize, {1: 0, 3: 2}[channels]
    big_endian = values.astype(values.dtype.newbyteorder(">"))
    rows = b"".join(b"\0" + row.tobytes() for row in big_endian)
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def random(shape, seed=0):
    return np.random.default_rng(seed).normal(scale=20, size=shape).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("order", "scale"), [("<", "-1"), (">", "1.0"), ("<", "-0.003922")])
def test_pfm(tmp_path, channels, order, scale):
    """Both byte orders, bottom row first; the scale's size changes no value."""
    field, path = random((2, 3, channels)), tmp_path / "a.pfm"
    field[0, 0, 0] = np.inf
    kind = {1: "Pf", 3: "PF"}[channels]
    bottom_up = field[::-1].astype(f"{order}f4").tobytes()
    path.write_bytes(f"{kind}\n3 2\n{scale}\n".encode() + bottom_up)
    np.testing.assert_array_equal(files.read_pfm(path), field)
    files.write_pfm(tmp_path / "b.pfm", field)
    np.testing.assert_array_equal(files.read_pfm(tmp_path / "b.pfm"), field)
    if (order, scale) == ("<", "-1"):
        assert (tmp_path / "b.pfm").read_bytes() == path.read_bytes().replace(b"-1\n", b"-1.0\n", 1)


def test_pfm_refusals(tmp_path):
    path = tmp_path / "a.pfm"
    path.write_bytes(b"Pf\n3 2\n-1\n" + bytes(20))
    with pytest.raises(ValueError, match=r"a\.pfm holds 20 bytes .* not those of 3 x 2 x 1 floats"):
        files.read_pfm(path)
    path.write_bytes(b"P5\n3 2\n255\n" + bytes(6))
    with pytest.raises(ValueError, match=r"a\.pfm is no \.pfm file"):
        files.read_pfm(path)
    with pytest.raises(ValueError, match="1 or 3 channels, not the 2"):
        files.write_pfm(path, random((2, 3, 2)))


@pytest.mark.parametrize(
    "header",
    [
        b"Pf\r\n3 2\r\n-1\r\n",
        b"Pf\n# made by hand\n3 2\n-1.0\n",
        b"Pf # one\n# two\r\n3\n2 # three\n-1e0\n",
        b"Pf 3 2 -.5 ",
        b"Pf\n3 2\n-1.0 \n",
    ],
)
def test_pfm_headers(tmp_path, header):
    """Line ends of Windows and comments; data that begin with a line end or a comment sign."""
    path = tmp_path / "a.pfm"
    for first in (b"\x20\x41\x23\x40", b"#\n 1", b"\r\n\r\n"):
        data = first + random((5,)).tobytes()
        path.write_bytes(header + data)
        expected = np.frombuffer(data, "<f4").reshape(2, 3, 1)[::-1]
        np.testing.assert_array_equal(files.read_pfm(path), expected)


@pytest.mark.parametrize(
    "header", [b"Pf\n3 2\n0\n", b"Pf\n3 2\n1.2.3\n", b"Pf\n-3 2\n1\n", b"Pf\n3\n", b"PF4\n3 2\n1\n"]
)
def test_wrong_pfm_headers(tmp_path, header):
    (tmp_path / "a.pfm").write_bytes(header + bytes(24))
    with pytest.raises(ValueError, match=r"a\.pfm (is no \.pfm file|holds \d+ bytes)") as error:
        files.read_pfm(tmp_path / "a.pfm")
    assert "\n" not in str(error.value)


def flo(width, height, count):
    return b"PIEH" + struct.pack("<ii", width, height) + bytes(8 * count)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (flo(3, 2, 6)[:-1], "holds 59 bytes, not those of 3 x 2 vectors"),
        (flo(3, 2, 6) + b"x", "holds 61 bytes, not those of 3 x 2 vectors"),
        (flo(3, 2, 6)[:14], "holds 14 bytes, not those of 3 x 2 vectors"),
        (flo(100_000, 100_000, 6), "not those of 100000 x 100000 vectors"),
        (flo(-3, -2, 6), "not those of -3 x -2 vectors"),
        (flo(0, 0, 0), "not those of 0 x 0 vectors"),
        (flo(3, 2, 6)[:11], "is no .flo file"),
        (b"", "is no .flo file"),
        (b"HEIP" + flo(3, 2, 6)[4:], "is no .flo file"),
    ],
)
def test_flo_refusals(tmp_path, data, message):
    (tmp_path / "a.flo").write_bytes(data)
    with pytest.raises(ValueError, match=rf"a\.flo .*{message}"):
        files.read_flo(tmp_path / "a.flo")


def test_flo_keeps_every_value(tmp_path):
    """Also those that mean unknown; and OpenCV reads what is written."""
    flow, path = random((2, 3, 2)), tmp_path / "a.flo"
    flow[0, 0], flow[0, 1, 0], flow[1, 2, 1] = 1.666e9, np.nan, -np.inf
    files.write_flo(path, flow)
    np.testing.assert_array_equal(files.read_flo(path), flow)
    np.testing.assert_array_equal(cv2.readOpticalFlow(str(path)), flow)
    with pytest.raises(AssertionError, match="shape"):
        files.write_flo(path, random((2, 3, 3)))


def test_unknown_flow_is_not_valid(tmp_path):
    flow = random((2, 3, 2))
    flow[0, 0, 0], flow[1, 1, 1] = 1.666e9, np.nan
    files.write_flo(tmp_path / "a.flo", flow)
    truth = layout.read_flo(tmp_path / "a.flo")
    np.testing.assert_array_equal(truth.valid, [[False, True, True], [True, False, True]])


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_only_numbers_are_valid(tmp_path, wrong):
    """What is not a number is refused where it is valid, and unknown where it is not."""
    valid = np.ones((2, 2), bool)
    for write, channels in ((files.write_kitti_flow, 2), (files.write_kitti_disparity, 1)):
        field = np.ones((2, 2, channels), np.float32)
        field[0, 1] = wrong
        with pytest.raises(ValueError, match=r"a\.png: 16 bits hold a .* mark other pixels as not"):
            write(tmp_path / "a.png", field, valid)
        assert not (tmp_path / "a.png").exists()
        write(tmp_path / "b.png", field, np.isfinite(field).all(axis=-1))
    _, known = files.read_kitti_disparity(tmp_path / "b.png")
    np.testing.assert_array_equal(known, [[True, False], [True, True]])


def test_kitti_flow(tmp_path):
    stored = np.array(
        [[[2**15, 2**15, 1], [2**15 + 64, 2**15 - 96, 1]], [[0, 0, 0], [2**16 - 1, 0, 1]]],
        np.uint16,
    )
    path = tmp_path / "a.png"
    path.write_bytes(png(stored))
    flow, valid = files.read_kitti_flow(path)
    np.testing.assert_array_equal(flow, [[[0, 0], [1, -1.5]], [[0, 0], [511.984375, -512]]])
    np.testing.assert_array_equal(valid, [[True, True], [False, True]])
    assert flow.dtype == np.float32
    files.write_kitti_flow(tmp_path / "b.png", np.where(valid[..., None], flow, np.nan), valid)
    again = files.read_kitti_flow(tmp_path / "b.png")
    np.testing.assert_array_equal(again[0], flow)
    np.testing.assert_array_equal(again[1], valid)
    with pytest.raises(ValueError, match=r"b\.png: 16 bits hold a flow within \+-512 pixels"):
        files.write_kitti_flow(tmp_path / "b.png", flow * 2, valid)


def test_kitti_disparity(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(np.array([[[0], [256]], [[384], [65535]]], np.uint16)))
    disparity, valid = files.read_kitti_disparity(path)
    np.testing.assert_array_equal(disparity[..., 0], [[0, 1], [1.5, 65535 / 256]])
    np.testing.assert_array_equal(valid, [[False, True], [True, True]])
    files.write_kitti_disparity(tmp_path / "b.png", disparity, valid)
    np.testing.assert_array_equal(files.read_kitti_disparity(tmp_path / "b.png")[0], disparity)
    files.write_kitti_disparity(tmp_path / "c.png", np.zeros((2, 2, 1)), valid)
    small = files.read_kitti_disparity(tmp_path / "c.png")
    np.testing.assert_array_equal(small[1], valid)  # a known 0 must not turn into an unknown
    np.testing.assert_array_equal(small[0][..., 0], valid / 256)
    for wrong in (-0.5, 300.0):
        with pytest.raises(ValueError, match=r"16 bits hold a disparity from 0 to 255\.99"):
            files.write_kitti_disparity(tmp_path / "d.png", np.full((2, 2, 1), wrong), valid)


def test_sintel_disparity_and_masks(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(np.array([[[1, 0, 0], [0, 64, 0], [2, 32, 128]]], np.uint8)))
    disparity = files.read_sintel_disparity(path)
    np.testing.assert_array_equal(disparity, [[[4], [1], [8.5 + 1 / 128]]])
    mask = np.array([[[0], [255]]], np.uint8)
    for values in (mask, np.repeat(mask, 3, axis=-1)):
        path.write_bytes(png(values))
        np.testing.assert_array_equal(files.read_mask(path), [[0, 255]])
    path.write_bytes(png(np.array([[[0, 255, 0]]], np.uint8)))
    with pytest.raises(ValueError, match=r"a\.png is a colour image where a grey one is needed"):
        files.read_mask(path)
    path.write_bytes(png(mask.astype(np.uint16)))
    with pytest.raises(ValueError, match=r"a\.png is uint16; a mask has uint8"):
        files.read_mask(path)


@pytest.mark.parametrize("kind", ["pgm", "ppm", "png"])
def test_scaled_disparity(tmp_path, kind):
    grey, path = np.array([[0, 8], [20, 255]], np.uint8), tmp_path / f"a.{kind}"
    data = {
        "pgm": b"P5\n2 2\n255\n" + grey.tobytes(),
        "ppm": b"P6\n2 2\n255\n" + np.repeat(grey, 3).tobytes(),
        "png": png(grey[..., None]),
    }
    path.write_bytes(data[kind])
    disparity, valid = files.read_scaled_disparity(path, 8)
    np.testing.assert_array_equal(disparity[..., 0], [[0, 1], [2.5, 255 / 8]])
    np.testing.assert_array_equal(valid, [[False, True], [True, True]])


def test_a_wrong_kind_of_png_is_named(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(np.zeros((2, 2, 3), np.uint8)))
    with pytest.raises(ValueError, match=r"a\.png is uint8 with 3 channels; .* uint16 with 3"):
        files.read_kitti_flow(path)
    with pytest.raises(ValueError, match="uint16 with 1"):
        files.read_kitti_disparity(path)
    path.write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"a\.png is no readable image"):
        files.read_mask(path)
    with pytest.raises(ValueError, match=r"absent\.png does not exist"):
        files.read_sintel_disparity(tmp_path / "absent.png")
