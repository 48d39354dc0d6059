"""Flow of images of any size: the tiles, their blend, the files."""

import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import apply, model, tiny

from perceiver_jax import files, inference
from perceiver_jax.inference.tiles import tile_starts

TILE = {"height": 16, "width": 24}


def images(height, width):
    return np.random.default_rng(1).integers(0, 256, (2, height, width, 3), np.uint8)


def predict(pair):
    """The model on one tile, without the library's way to it."""
    perceiver, variables = model("flow", **TILE)
    frames = pair.astype(np.float32)[None] / 127.5 - 1
    return np.asarray(apply(perceiver, variables, {"frames": frames}))[0]


@pytest.mark.parametrize(
    ("size", "tile", "expected"),
    [
        (436, 368, [0, 68]),
        (1024, 496, [0, 476, 528]),
        (720, 368, [0, 348, 352]),
        (368, 368, [0]),
        (716, 368, [0, 348]),
        (700, 368, [0, 332]),  # the released notebook has a tile there that ends at 716
    ],
)
def test_tiles_of_the_released_model(size, tile, expected):
    assert tile_starts(size, tile, 20) == expected


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 40), st.integers(0, 200), st.integers(0, 39))
def test_tiles_cover_without_duplicates_and_overlap(tile, extra, overlap):
    overlap = min(overlap, tile - 1)
    starts = tile_starts(tile + extra, tile, overlap)
    assert starts[0] == 0
    assert starts[-1] == extra
    gaps = np.diff(starts)
    assert np.all(gaps > 0), "sorted, none twice"
    assert np.all(gaps <= tile - overlap), "neighbours share enough, so every pixel is covered"
    assert len(starts) == 1 + math.ceil(extra / (tile - overlap)), "none too many"


@pytest.mark.parametrize("batch_size", [1, 4])
def test_blend_is_the_weighted_average(batch_size):
    """Pixel by pixel from the definition: each tile's answer times its distance to the edge."""
    height, width, overlap = 27, 50, 6
    pair, steps = images(height, width), []
    flow = inference.optical_flow(
        *model("flow", **TILE),
        *pair,
        min_overlap=overlap,
        batch_size=batch_size,
        progress=lambda *step: steps.append(step),
    )
    corners = [(y, x) for y in (0, 10, 11) for x in (0, 18, 26)]
    tiles = [(y, x, predict(pair[:, y : y + 16, x : x + 24])) for y, x in corners]
    expected = np.zeros((height, width, 2))
    for row in range(height):
        for column in range(width):
            top, bottom = np.zeros(2), 0.0
            for y, x, answer in tiles:
                i, j = row - y, column - x
                if 0 <= i < 16 and 0 <= j < 24:
                    weight = min(i + 1, 16 - i, j + 1, 24 - j)
                    top, bottom = top + weight * answer[i, j], bottom + weight
            expected[row, column] = top / bottom
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(flow, expected, atol=1e-5 * np.abs(expected).max())
    assert flow.dtype == np.float32
    assert steps[0] == (0, 9)
    assert steps[-1] == (9, 9)


def test_one_tile_is_the_model_itself():
    pair, steps = images(16, 24), []
    flow = inference.optical_flow(
        *model("flow", **TILE), *pair, min_overlap=6, progress=lambda *step: steps.append(step)
    )
    np.testing.assert_allclose(flow, predict(pair), rtol=1e-5, atol=1e-7)
    assert steps == [(0, 1), (1, 1)]


def test_a_second_call_does_not_compile():
    pair = images(16, 24)
    inference.optical_flow(*model("flow", **TILE), *pair, min_overlap=6)
    programs = inference.programs.predict._cache_size()
    built_again = tiny("flow", **TILE).build()
    inference.optical_flow(built_again, model("flow", **TILE)[1], *pair, min_overlap=6)
    assert inference.programs.predict._cache_size() == programs


def test_refusals():
    small, pair = model("flow", **TILE), images(16, 24)
    with pytest.raises(ValueError, match=r"15 x 30 pixels .* smaller than the model's tile of 16"):
        inference.optical_flow(*small, *images(15, 30), min_overlap=6)
    with pytest.raises(ValueError, match="differ in size"):
        inference.optical_flow(*small, pair[0], images(17, 24)[1], min_overlap=6)
    with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\], got float32"):
        inference.optical_flow(*small, *pair.astype(np.float32), min_overlap=6)
    with pytest.raises(ValueError, match="min_overlap=20 must be"):
        inference.optical_flow(*small, *pair)
    with pytest.raises(ValueError, match="needs a model with Flow, not TiedLogits"):
        inference.optical_flow(*model("language"), *pair)


def test_flo_files(tmp_path):
    flow = np.random.default_rng(0).normal(size=(3, 5, 2)).astype(np.float32)
    path = tmp_path / "a.flo"
    files.write_flo(path, flow)
    np.testing.assert_array_equal(files.read_flo(path), flow)
    data = path.read_bytes()
    assert data[:4] == b"PIEH"
    assert struct.unpack("<ii", data[4:12]) == (5, 3), "width, then height"
    assert struct.unpack("<ff", data[20:28]) == tuple(flow[0, 1])
    path.write_bytes(data[:-4])
    with pytest.raises(ValueError, match=r"holds 128 bytes, not those of 5 x 3"):
        files.read_flo(path)
    path.write_bytes(b"PIEI" + data[4:])
    with pytest.raises(ValueError, match=r"no \.flo file"):
        files.read_flo(path)
