"""Files of fields, written here byte by byte, give the values that their formats define."""

import struct
import zlib

import numpy as np
import pytest

from perceiver_jax import files


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
