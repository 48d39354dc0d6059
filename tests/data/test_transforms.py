"""The one-line pipelines, and each transform against its definition."""

import io
import pathlib

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from perceiver_jax.config_types import declared_fields
from perceiver_jax.data import image_transforms, transforms
from perceiver_jax.data.transforms import Encoded, parse
from perceiver_jax.modalities.image import LearnedPositions, Pixels

END = " | keep('image')"


def texture(height, width, channels=3, seed=0):
    """A smooth random uint8 image."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 5, channels)).astype(np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    return image.reshape(height, width, channels)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze()).save(buffer, kind, **options)
    return buffer.getvalue()


def run(line, image, seed=0):
    return parse(line + END)({"image": image}, np.random.default_rng(seed))["image"]


# --- The line --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "keep('image', 'label')",
        "decode | inception_crop(224) | flip | randaugment(4, 5) | resize(224) | keep('image')",
        "affine(10, scale=0.1, shift=-1.5) | keep('image')",
    ],
)
def test_a_parsed_line_prints_itself(line):
    assert str(parse(line)) == line


def test_a_line_may_be_broken():
    assert str(parse("flip\n  | keep('image')")) == "flip | keep('image')"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("flop | keep('image')", r"unknown transform 'flop'.*known: .*'flip'"),
        ("flip(2) | keep('image')", r"flip\(2\).*too many positional.*it takes flip\(\)"),
        ("resize | keep('image')", r"missing a required argument: 'size'.*resize\(size\)"),
        ("resize(size) | keep('image')", "must be literal"),
        ("resize(__import__('os')) | keep('image')", "must be literal"),
        ("flip | 3 | keep('image')", "'3' in the pipeline"),
        ("os.system('x') | keep('image')", "is not a `name`"),
        ("flip | keep('image'", "cannot read the pipeline"),
        ("", "is not a `name`"),
        ("decode | flip", r"must end in keep\(...\)"),
    ],
)
def test_a_bad_line_says_what_is_wrong(line, message):
    with pytest.raises(ValueError, match=message):
        parse(line)


def test_users_can_add_a_transform(monkeypatch):
    monkeypatch.setattr(transforms, "TRANSFORMS", dict(transforms.TRANSFORMS))

    @transforms.transform
    def darken(example, rng, by):
        return {**example, "image": example["image"] // by}

    assert run("darken(2)", np.full((1, 1, 3), 100, np.uint8)).max() == 50


def test_keep_drops_the_rest_and_names_what_is_missing():
    example = {"image": np.zeros((1, 1, 3), np.uint8), "file_name": "x.jpg"}
    rng = np.random.default_rng(0)
    assert set(parse("keep('image')")(example, rng)) == {"image"}
    with pytest.raises(ValueError, match=r"no \['label'\].*\['file_name', 'image'\]"):
        parse("keep('label')")(example, rng)


def test_wrong_images_are_refused():
    with pytest.raises(ValueError, match="put `decode` first"):
        run("flip", Encoded(b"", 3))
    with pytest.raises(ValueError, match=r"uint8 image \[H, W, C\], got float32 \[2, 2\]"):
        run("flip", np.zeros((2, 2), np.float32))


# --- decode ----------------------------------------------------------------------------------


def test_decode_gives_rgb_and_keeps_grey():
    colour, grey = texture(20, 30), texture(20, 30, 1)
    np.testing.assert_array_equal(run("decode", Encoded(encoded(colour, "png"), 3)), colour)
    np.testing.assert_array_equal(run("decode", Encoded(encoded(grey, "png"), 1)), grey)
    jpeg = encoded(colour, "jpeg", quality=90)
    np.testing.assert_allclose(
        run("decode", Encoded(jpeg, 3)), np.asarray(Image.open(io.BytesIO(jpeg))), atol=2
    )
    assert run("decode", colour) is colour


def test_decode_copes_with_the_odd_files_of_imagenet():
    grey, colour = texture(20, 30, 1), texture(20, 30)
    got = run("decode", Encoded(encoded(grey, "jpeg"), 3))  # a grey file in a colour data set
    assert got.shape == (20, 30, 3)
    assert (got[..., :1] == got).all()
    cmyk = io.BytesIO()
    Image.fromarray(colour).convert("CMYK").save(cmyk, "jpeg")
    assert run("decode", Encoded(cmyk.getvalue(), 3)).shape == (20, 30, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by the camera, as everywhere
    assert run("decode", Encoded(encoded(colour, "jpeg", exif=exif), 3)).shape == (30, 20, 3)


def test_a_damaged_file_is_named():
    with pytest.raises(ValueError, match="'image' is no readable image: 4 bytes"):
        run("decode", Encoded(b"oops", 3))


# --- crops -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "side", "top", "left"),
    [(256, 256, 224, 16, 16), (400, 500, 350, 25, 75), (47, 17, 14, 17, 2), (33, 300, 28, 3, 136)],
)
def test_central_crop_offsets(height, width, side, top, left):
    """Worked by hand: side = int(7 / 8 * min), offset = (extent - side + 1) // 2."""
    image = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)  # (x, y) of each pixel
    image = np.concatenate([image % 256, image[..., :1] // 256], -1).astype(np.uint8)
    got = run("central_crop(224)", image)
    assert got.shape == (side, side, 3)
    assert got[0, 0, 1] == top
    assert int(got[0, 0, 0]) + 256 * int(got[0, 0, 2]) == left


def test_inception_boxes():
    """Area 10 to 100 %, aspect 3/4 to 4/3, everywhere; height is uniform, so areas are low."""
    rng = np.random.default_rng(0)
    height, width = 400, 500
    boxes = [image_transforms.sample_box(height, width, rng) for _ in range(4000)]
    top, left, h, w = np.array([b for b in boxes if b is not None]).T
    area, aspect = h * w / (height * width), w / h
    assert area.min() >= 0.1
    assert area.min() < 0.12
    assert 0.9 < area.max() <= 1
    assert 0.74 < aspect.min() < 0.77
    assert 1.30 < aspect.max() < 1.35
    assert top.min() == 0
    assert left.min() == 0
    assert (top + h).max() == height
    assert (left + w).max() == width
    # E[area] by integrating the definition: aspect a ~ U, h ~ U(low, high), area = a h^2.
    a = np.linspace(3 / 4, 4 / 3, 400)[:, None]
    low, high = np.sqrt(0.08 * 1.25 / a), np.minimum(1, 1.25 / a)  # image of height 1
    hs = low + (high - low) * np.linspace(0, 1, 400)
    areas = a * hs**2 / 1.25
    np.testing.assert_allclose(area.mean(), areas[areas >= 0.1].mean(), atol=0.012)


def test_inception_crop_shows_a_part_of_the_image():
    image = np.arange(30 * 40 * 3).reshape(30, 40, 3).astype(np.uint8)
    got = [run("inception_crop(224)", image, seed) for seed in range(20)]
    assert len({crop.shape for crop in got}) > 5
    for crop in got:
        windows = np.lib.stride_tricks.sliding_window_view(image, crop.shape)
        assert (windows == crop).all(axis=(-3, -2, -1)).any()


def test_inception_crop_falls_back_to_the_centre(monkeypatch):
    """A strip admits no aspect ratio near 1 with a tenth of the area."""
    strip = texture(8, 400)
    np.testing.assert_array_equal(
        run("inception_crop(224)", strip), run("central_crop(224)", strip)
    )
    image = texture(16, 16)
    monkeypatch.setattr(image_transforms, "sample_box", lambda h, w, rng: (0, 0, h, w))
    assert run("inception_crop(224)", image).shape == (14, 14, 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_pad_crop_is_a_shift_with_zeros(channels):
    image = texture(9, 7, channels) | 1  # no zeros of its own
    seen = set()
    for seed in range(200):
        got = run("pad_crop(2)", image, seed)
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
        offsets = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if (padded[y : y + 9, x : x + 7] == got).all()
        ]
        assert len(offsets) == 1
        seen.add(offsets[0])
    assert len(seen) == 25


# --- flip, resize, affine --------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_flip_mirrors_half_the_time(channels):
    image = texture(6, 8, channels)
    flipped = [not (run("flip", image, seed) == image).all() for seed in range(400)]
    assert 0.4 < np.mean(flipped) < 0.6
    np.testing.assert_array_equal(run("flip", image, flipped.index(True)), image[:, ::-1])


def cubic_resize(image, size, a=-0.75):
    """Convolution with the cubic kernel of parameter a, pixel centres at halves, edges repeated."""

    def matrix(extent):
        weights = np.zeros((size, extent))
        for out in range(size):
            at = (out + 0.5) * extent / size - 0.5
            for tap in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
                t = abs(at - tap)
                near = (a + 2) * t**3 - (a + 3) * t**2 + 1
                far = a * (t**3 - 5 * t**2 + 8 * t - 4)
                weights[out, np.clip(tap, 0, extent - 1)] += near if t <= 1 else far
        return weights

    rows, columns = matrix(image.shape[0]), matrix(image.shape[1])
    return np.einsum("yh,xw,hwc->yxc", rows, columns, image.astype(float))


@pytest.mark.parametrize("channels", [1, 3])
def test_resize_is_bicubic_rounded_and_clamped(channels):
    image = np.random.default_rng(0).integers(0, 2, (20, 31, channels), dtype=np.uint8) * 255
    want = cubic_resize(image, 24)
    assert want.min() < -5
    assert want.max() > 260
    got = run("resize(24)", image)
    assert got.dtype == np.uint8
    np.testing.assert_allclose(got, np.clip(np.round(want), 0, 255), atol=1)


@pytest.mark.parametrize("channels", [1, 3])
def test_affine_moves_within_its_bounds(channels):
    image = np.zeros((21, 21, channels), np.uint8)
    image[10, 14] = 255  # four pixels right of the centre

    def centre(seed, line):
        y, x = np.indices(image.shape[:2])
        mass = run(line, image, seed)[..., 0].astype(float)
        return np.array([(x * mass).sum(), (y * mass).sum()]) / mass.sum() - 10

    turned = np.array([centre(seed, "affine(20, 0, 0)") for seed in range(100)])
    angles = np.degrees(np.arctan2(turned[:, 1], turned[:, 0]))
    np.testing.assert_allclose(np.hypot(*turned.T), 4, atol=0.3)
    assert -22 < angles.min() < -15
    assert 15 < angles.max() < 22
    scaled = np.array([centre(seed, "affine(0, 0.5, 0)") for seed in range(100)])[:, 0]
    assert 1.8 < scaled.min() < 2.5
    assert 5.5 < scaled.max() < 6.2
    moved = np.array([centre(seed, "affine(0, 0, 2)") for seed in range(100)]) - [4, 0]
    assert np.all(np.abs(moved) < 2.1)
    assert np.all(np.ptp(moved, axis=0) > 3)
    np.testing.assert_array_equal(run("affine(0, 0, 0)", image), image)


def test_randaugment_is_in_the_line_and_leaves_its_input_alone():
    image = texture(40, 50)
    before = image.copy()
    results = [run("randaugment(2, 4)", image, seed) for seed in range(30)]
    np.testing.assert_array_equal(image, before)
    assert len({result.tobytes() for result in results}) > 15
    np.testing.assert_array_equal(run("randaugment(0, 4)", image), image)


def test_all_frames_of_a_video_are_treated_alike():
    """As each would be as an image, with the same draws."""
    frames = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), np.uint8)
    line = "inception_crop(8) | flip | resize(8) | central_crop(8, border=2)"
    for seed in range(4):
        rng = np.random.default_rng(seed)
        video = parse(line + " | keep('video')")({"video": frames}, rng)["video"]
        assert video.shape == (3, 6, 6, 3)
        np.testing.assert_array_equal(video, [run(line, frame, seed) for frame in frames])
    with pytest.raises(ValueError, match=r"need a uint8 video \[T, H, W, C\], got float64"):
        parse("flip | keep('video')")({"video": frames / 255}, rng)


def test_resize_tf_is_tensorflow_s_bicubic():
    """Golden pixels of tf.image.resize(x, (s, s), "bicubic"), TensorFlow 2.21: down, up, a JPEG."""
    golden = np.load(pathlib.Path(__file__).parents[1] / "golden" / "resize_tf.npz")
    for name in ("down", "up", "mixed", "jpeg"):
        image, want = golden[f"{name}_in"], golden[f"{name}_out"]
        got = parse(f"resize_tf({len(want)}) | keep('image')")({"image": image}, None)["image"]
        assert (got.dtype, got.shape) == (np.float32, want.shape)
        np.testing.assert_allclose(got, want, atol=255e-4, rtol=0)
    assert want.max() > 255  # overshoot is kept
    video = np.stack([image, image[::-1]])
    both = parse("resize_tf(32) | keep('video')")({"video": video}, None)["video"]
    np.testing.assert_allclose(both[0], want, atol=255e-4)
    assert np.abs(both[1] - want).max() > 1


def test_wrong_places_are_the_permuted_pixels_with_positions_that_stayed():
    """Learned positions lose nothing: a table in the same order gives the same tokens again."""
    image = texture(6, 4)
    batch = {"image": jnp.asarray(image[None], jnp.float32)}
    moved = {"image": jnp.asarray(run("wrong_places(3)", image)[None], jnp.float32)}

    def tokens(module, batch, variables=None):
        return np.asarray(module.apply(variables or {}, batch, train=False).dense(jnp.float32))[0]

    plain, wrong = (tokens(Pixels(num_bands=2), b) for b in (batch, moved))
    permuted = tokens(Pixels(num_bands=2, permutation_seed=3), batch)
    order = np.random.default_rng(3).permutation(24)
    np.testing.assert_array_equal(permuted, plain[order])
    np.testing.assert_array_equal(wrong[:, :3], permuted[:, :3])
    np.testing.assert_array_equal(wrong[:, 3:], plain[:, 3:])

    learned = LearnedPositions(channels=5, position_channels=4)
    variables = learned.init(jax.random.key(0), batch, train=False)
    table = variables["params"]["positions"][order]
    reordered = {"params": {**variables["params"], "positions": table}}
    same = tokens(learned, batch, variables)[order]
    np.testing.assert_allclose(tokens(learned, moved, reordered), same, rtol=1e-5)
    permuted = tokens(learned.clone(permutation_seed=3), batch, variables)
    np.testing.assert_array_equal(permuted, same)


def test_resize_area_does_not_alias():
    """Stripes finer than the new pixels become their mean; `resize` makes stripes of them."""
    stripes = np.zeros((96, 96, 3), np.uint8)
    stripes[:, ::2] = 200
    area, cubic = (
        parse(f"{name}(32) | keep('image')")({"image": stripes}, None)["image"]
        for name in ("resize_area", "resize")
    )
    assert area.std() < 0.4 * cubic.std() and abs(area.mean() - 100) < 2
    for size in (32, 96):  # grows, or stays
        grown = parse(f"resize_area({size}) | keep('image')")({"image": area}, None)["image"]
        assert grown.shape == (size, size, 3)


def test_perturbations_change_one_property():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    image[3, 3] = 127

    def change(line, seed=0):
        pipeline = transforms.parse(f"{line} | keep('image')")
        return pipeline({"image": image}, np.random.default_rng(seed))["image"]

    rolled = [change("roll(2)", seed) for seed in range(20)]
    shifts = [np.argwhere((r == image[0, 0]).all(-1))[0] for r in rolled]
    assert {int(x) for x in np.ravel(shifts)} == {0, 1, 2, 6, 7}, "up to 2 pixels, on a torus"
    assert all(np.array_equal(np.sort(r, None), np.sort(image, None)) for r in rolled)

    cut = [change("cutout(3)", seed) for seed in range(20)]
    assert all((c == 127).all(-1).sum() in (9, 10) for c in cut), "a square, always inside"
    assert len({np.argwhere((c != image).any(-1)).min(0).tobytes() for c in cut}) > 1

    greys = [np.ptp(change("grey(0.5)", seed), axis=-1).max() == 0 for seed in range(40)]
    assert 5 < sum(greys) < 35
    np.testing.assert_allclose(change("grey(1.0)")[..., 0], image.mean(-1), atol=0.5)

    orders = {change("shuffle_channels", seed)[0, 0].tobytes() for seed in range(40)}
    assert len(orders) == 6
    assert np.array_equal(np.sort(change("shuffle_channels")), np.sort(image))


@pytest.mark.parametrize(
    ("step", "argument"),
    [
        ("resize(0)", "size=0"),
        ("resize(-5)", "size=-5"),
        ("resize(2.5)", "size=2.5"),
        ("central_crop('a')", "size='a'"),
        ("central_crop(8, border=-1)", "border=-1"),
        ("pad_crop(-1)", "padding=-1"),
        ("randaugment(-1, 5)", "layers=-1"),
        ("randaugment(2, 11)", "magnitude=11"),
        ("affine(1, 1.0, 0)", "scale=1.0"),
        ("hide_words(1.5)", "share=1.5"),
        ("first_window(0)", "length=0"),
        ("vary_speed(1)", "spread=1"),
        ("crop_pair(0, 8)", "height=0"),
        ("augment_pair(8, 8, flips=(0.5, 2))", "flips=(0.5, 2)"),
        ("erase_second((9,))", "sides=(9,)"),
        ("reverse_pair(-0.1)", "probability=-0.1"),
        ("keep(3)", "fields=3"),
    ],
)
def test_arguments_out_of_their_range_are_named(step, argument):
    with pytest.raises(ValueError) as raised:
        parse(f"{step} | keep('image')")
    text = str(raised.value)
    assert f"in the pipeline: {argument} is not allowed: write " in text and "\n" not in text


def test_every_number_of_a_transform_declares_its_range():
    for name, function in transforms.TRANSFORMS.items():
        if function.__module__.startswith("perceiver_jax."):
            hints, _ = declared_fields(function)
            assert not {int, float} & set(hints.values()), name


def test_label_ids_are_of_one_label_or_several():
    line = "label_ids('{}', 3) | keep('label_ids')"

    def ids(example, field="label"):
        return parse(line.format(field))(example, np.random.default_rng(0))["label_ids"].tolist()

    assert ids({"label": np.int32(7)}) == [7, -1, -1]
    assert ids({"label": [5, 2, 5]}) == [2, 5, -1]
    assert ids({"objects": {"label": np.array([4, 1])}}, "objects.label") == [1, 4, -1]
    assert ids({"label": np.zeros(0, np.int64)}) == [-1, -1, -1]
    for value, message in (([1, 2, 3, 4], "4 labels, but room is for 3"), ([0.5], "no label"),
                           (-1, "holds -1, which is no label")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            ids({"label": value})
    with pytest.raises(ValueError, match=r"no field 'objects\.label' in the example"):
        ids({"label": 1}, "objects.label")
