"""Flow and stereo sets: what was written in a set's own layout comes back."""

import pathlib
import re
import shutil

import numpy as np
import pair_files
import pytest
import tfds_files

from perceiver_jax import files
from perceiver_jax.data import pair_transforms, transforms
from perceiver_jax.datasets import pair_sets, registry


def check(example, frames, field, valid, occluded):
    known = example.get("known", valid)[..., None]
    np.testing.assert_array_equal(example["frames"], frames)
    np.testing.assert_array_equal(example["field"], np.where(known, field, 0))
    np.testing.assert_array_equal(example["valid"], valid)
    assert example["field"].dtype == np.float32 and example["frames"].dtype == np.uint8
    assert example["size"].tolist() == list(field.shape[:2])
    if occluded is None:
        assert "occluded" not in example
    else:
        np.testing.assert_array_equal(example["occluded"], occluded)


def test_sintel(tmp_path):
    written = pair_files.write_sintel(tmp_path)
    source = registry.load("sintel_final", "training", data_dir=str(tmp_path))
    assert (len(source), repr(source)) == (6, "sintel_final[training]")
    first, second = "cave_2/frame_0002", "cave_2/frame_0003"
    valid = written["invalid", first] == 0
    check(
        source[4],
        [written["final", first], written["final", second]],
        written["flow", first],
        valid,
        written["occlusions", first] > 0,
    )
    assert not valid.all() and source[4]["known"].all()  # invalid pixels have a flow as well
    np.testing.assert_array_equal(source[4]["field"], written["flow", first])
    source = registry.load("sintel_clean_stereo", "training", data_dir=str(tmp_path))
    assert len(source) == 8
    name = "alley_1/frame_0002"
    check(
        source[1],
        [written["clean_left", name], written["clean_right", name]],
        written["disparities", name],
        np.ones((20, 28), bool),
        (written["occlusions", name] > 0) | (written["outofframe", name] > 0),
    )


@pytest.mark.parametrize("year", [2012, 2015])
def test_kitti(tmp_path, year):
    written = pair_files.write_kitti(tmp_path, year=year)
    flow, disparity, valid, visible = written[1]
    left, right = pair_files.KITTI_FOLDERS[year][:2]
    image = {
        name: files.read_image(tmp_path / "training" / folder / f"000001_{time}.png")
        for name, folder, time in (("now", left, 10), ("next", left, 11), ("right", right, 10))
    }
    source = registry.load(f"kitti{year}_flow", "training", data_dir=str(tmp_path))
    assert len(source) == 3
    check(source[1], [image["now"], image["next"]], flow, valid, valid & ~visible)
    source = registry.load(f"kitti{year}_stereo", "training[1:]", data_dir=str(tmp_path))
    assert (len(source), repr(source)) == (2, f"kitti{year}_stereo[training[1:]]")
    check(source[0], [image["now"], image["right"]], disparity, valid, valid & ~visible)


def test_autoflow(tmp_path):
    flows = pair_files.write_autoflow(tmp_path)
    source = registry.load("autoflow", "train", data_dir=str(tmp_path))
    assert len(source) == 4
    for example, flow in zip(map(source.__getitem__, range(4)), flows, strict=True):
        np.testing.assert_array_equal(example["field"], flow)
        assert example["valid"].all() and "occluded" not in example
    assert len(registry.load("autoflow", "train[1:]", data_dir=str(tmp_path))) == 3


def test_flying_chairs(tmp_path):
    flows = pair_files.write_flying_chairs(tmp_path)
    train, held_out = (
        registry.load("flying_chairs", split, data_dir=str(tmp_path))
        for split in ("train", "validation")
    )
    assert (len(train), len(held_out)) == (2, 1)
    frames = [files.read_image(tmp_path / "data" / f"00002_img{i}.ppm") for i in (1, 2)]
    check(held_out[0], frames, flows[1], np.ones((20, 28), bool), None)
    (tmp_path / "FlyingChairs_train_val.txt").write_text("1\n2\n")
    with pytest.raises(ValueError, match=r"for each of the 3 flows in .*data; it has 2"):
        registry.load("flying_chairs", "train", data_dir=str(tmp_path))


def test_scene_flow(tmp_path):
    written = pair_files.write_scene_flow(tmp_path)
    source = registry.load("sceneflow_final", "train", data_dir=str(tmp_path))
    place, known = tmp_path / "frames_finalpass/TRAIN/A/0000", np.ones((20, 28), bool)
    frames = [files.read_image(place / side / "0007.png") for side in ("left", "right")]
    assert len(source) == 2
    check(source[1], frames, written[1][0], known, None)
    flow = registry.load("flyingthings_final", "train", data_dir=str(tmp_path))
    frames = [files.read_image(place / "left" / f"000{i}.png") for i in (6, 7)]
    assert len(flow) == 1, "the last frame has no next one"
    check(flow[0], frames, written[0][1], known, None)
    assert len(registry.load("sceneflow_clean", "test", data_dir=str(tmp_path))) == 2
    monkaa = tmp_path / "monkaa"
    for folder in ("frames_cleanpass", "disparity"):
        shutil.copytree(tmp_path / folder / "TRAIN" / "A", monkaa / folder / "a_scene")
    assert len(registry.load("sceneflow_clean", "train", data_dir=str(monkaa))) == 2
    with pytest.raises(FileNotFoundError, match=r"nothing of 'test' in .*monkaa"):
        registry.load("sceneflow_clean", "test", data_dir=str(monkaa))


@pytest.mark.parametrize("name", ["middlebury", "eth3d"])
def test_masked_disparities(tmp_path, name):
    written = pair_files.write_masked(tmp_path)
    source = registry.load(name, "trainingQ", data_dir=str(tmp_path))
    truth, kinds = written[1]
    scene = tmp_path / "trainingQ" / "scene_1"
    frames = [files.read_image(scene / f"im{i}.png") for i in (0, 1)]
    assert len(source) == 2
    check(source[1], frames, truth, kinds > 0, kinds == 128)


def test_generated_pairs_are_written_as_middleburys(tmp_path):
    options = {"task": "stereo", "size": (16, 24), "disparity": (0.0, 4.0)}
    scenes = registry.load("scenes", "test", options=options)
    written = [scenes[i] for i in range(2)]
    written[1]["valid"][3:5] = False
    for i, example in enumerate(written):
        pair_sets.write_middlebury(tmp_path / "made" / f"scene_{i}", example)
    source = registry.load("middlebury", "made", data_dir=str(tmp_path))
    for example, read in zip(written, map(source.__getitem__, range(2)), strict=True):
        hidden = example["occluded"] & example["valid"]
        check(read, example["frames"], example["field"], example["valid"], hidden)
        assert hidden.any()


def test_middlebury_2014_knows_by_infinity(tmp_path):
    written = pair_files.write_masked(tmp_path)
    for i in (0, 1):
        scene = tmp_path / "trainingQ" / f"scene_{i}"
        (scene / "disp0GT.pfm").rename(scene / "disp0.pfm")
    example = registry.load("middlebury2014", "trainingQ", data_dir=str(tmp_path))[0]
    np.testing.assert_array_equal(example["valid"], np.isfinite(written[0][0][..., 0]))
    assert not example["valid"][2, 3] and example["field"][2, 3] == 0


@pytest.mark.parametrize(
    ("name", "scale", "left", "right", "truth"),
    [
        ("middlebury2001", 8, "im2.ppm", "im6.ppm", "disp2.pgm"),
        ("middlebury2003", 4, "im2.png", "im6.png", "disp2.png"),
        ("middlebury2005", 3, "view1.png", "view5.png", "disp1.png"),
    ],
)
def test_older_middlebury_sets_have_a_scale(tmp_path, name, scale, left, right, truth):
    rng = np.random.default_rng(0)
    frames = [pair_files.image(rng, 6, 8) for _ in (left, right)]
    stored = rng.integers(0, 4, (6, 8), np.uint8) * 20
    for file, array in ((left, frames[0]), (right, frames[1]), (truth, stored)):
        pair_files.put(tmp_path / "all" / "scene" / file, array)
    example = registry.load(name, "all", data_dir=str(tmp_path))[0]
    check(example, frames, stored[..., None] / np.float32(scale), stored > 0, None)


@pytest.mark.parametrize("name", sorted(pair_sets.SETS))
def test_an_absent_set_says_what_is_needed_and_where_it_is(name, tmp_path):
    split = (pair_sets.SETS[name].splits or ("training",))[0]
    for folder in (tmp_path / "absent", tmp_path):
        with pytest.raises(FileNotFoundError) as error:
            registry.load(name, split, data_dir=str(folder))
        message = str(error.value)
        assert str(folder) in message and pair_sets.SETS[name].holds in message
        assert "config.data.data_dir" in message and pair_sets.SETS[name].home in message


def test_a_set_with_a_part_missing_names_the_file(tmp_path):
    pair_files.write_sintel(tmp_path)
    path = tmp_path / "training" / "final" / "cave_2" / "frame_0003.png"
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"cave_2/frame_0003\.png is missing; .*sintel\.is"):
        registry.load("sintel_final", "training", data_dir=str(tmp_path))
    assert len(registry.load("sintel_clean", "training", data_dir=str(tmp_path))) == 6
    with pytest.raises(ValueError, match="no split 'test': it is 'training', or a part"):
        registry.load("sintel_clean", "test", data_dir=str(tmp_path))


def test_images_of_other_sizes_are_named(tmp_path):
    pair_files.write_kitti(tmp_path)
    pair_files.put(tmp_path / "training/image_2/000001_11.png", np.zeros((5, 6, 3), np.uint8))
    source = registry.load("kitti2015_flow", "training", data_dir=str(tmp_path))
    with pytest.raises(
        ValueError, match=r"000001_11\.png has the size \(5, 6\), .* has \(19, 30\)"
    ):
        source[1]


@pytest.fixture(scope="module")
def kitti(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kitti")
    pair_files.write_kitti(folder)
    return registry.load("kitti2015_flow", "training", data_dir=str(folder))


def test_padding_makes_one_size_and_is_not_valid(kitti):
    line = transforms.parse(
        "pad_pair(20, 30) | keep('frames', 'field', 'valid', 'occluded', 'size')"
    )
    for example in map(kitti.__getitem__, range(3)):
        padded = line(example, np.random.default_rng(0))
        height, width = padded["size"]
        assert padded["frames"].shape == (2, 20, 30, 3)
        assert padded["field"].shape == (20, 30, 2)
        for name in ("field", "valid", "occluded"):
            np.testing.assert_array_equal(padded[name][:height, :width], example[name])
            assert not padded[name][height:].any() and not padded[name][:, width:].any()
        np.testing.assert_array_equal(padded["frames"][:, :height, :width], example["frames"])
        np.testing.assert_array_equal(padded["frames"][0, -1, :width], example["frames"][0, -1])
    with pytest.raises(ValueError, match=r"pad_pair\(19, 40\): an image has the size \(20, 28\)"):
        pair_transforms.pad_pair(kitti[0], None, 19, 40)


def test_crops_are_one_window_of_everything(kitti):
    example, places = kitti[2], set()
    numbers = np.arange(20 * 30, dtype=np.float32).reshape(20, 30, 1)  # a field that says where
    example = example | {
        "field": numbers,
        "frames": np.tile((numbers % 251).astype(np.uint8), (2, 1, 1, 3)),
    }
    for seed in range(60):
        cut = pair_transforms.crop_pair(example, np.random.default_rng(seed), 16, 24)
        assert cut["frames"].shape == (2, 16, 24, 3) and cut["size"].tolist() == [16, 24]
        top, left = divmod(int(cut["field"][0, 0, 0]), 30)
        places.add((top, left))
        window = np.s_[top : top + 16, left : left + 24]
        for name in ("field", "valid", "occluded"):
            np.testing.assert_array_equal(cut[name], example[name][window])
        np.testing.assert_array_equal(cut["frames"][1, ..., 0], cut["field"][..., 0] % 251)
    assert {top for top, _ in places} == set(range(5)) and len(places) > 10
    small = pair_transforms.crop_pair(example, np.random.default_rng(0), 32, 24)
    assert small["frames"].shape == (2, 32, 24, 3) and small["size"].tolist() == [20, 24]
    assert not small["valid"][20:].any()


def test_cityscapes_is_a_pair_source_of_tfds(tmp_path):
    written = tfds_files.write_cityscapes(tmp_path)
    source = registry.load("cityscapes/stereo_disparity", "validation", data_dir=str(tmp_path))
    line = transforms.parse("cityscapes_pair | keep('frames', 'field', 'valid')")
    for i, files_of in enumerate(written["validation"]):
        example = line(source[i], np.random.default_rng(0))
        views = files_of["image_left"], files_of["image_right"]
        np.testing.assert_array_equal(example["frames"], np.stack(views))
        stored = files_of["disparity_map"].astype(np.float32)
        np.testing.assert_array_equal(example["valid"], stored > 0)
        expected = np.where(stored > 0, (stored - 1) / 256, 0)
        np.testing.assert_array_equal(example["field"][..., 0], expected)
        assert example["field"].dtype == np.float32
    assert example["field"].max() > 10  # beyond what 8 bits hold


def test_a_disparity_that_is_not_16_bits_is_refused(tmp_path):
    tfds_files.write_cityscapes(tmp_path)
    source = registry.load("cityscapes/stereo_disparity", "train", data_dir=str(tmp_path))
    example = source[0] | {"disparity_map": source[0]["image_left"]}
    with pytest.raises(ValueError, match=r"grey 16-bit PNG, got uint8 \[20, 30, 3\]"):
        pair_transforms.cityscapes_pair(example, np.random.default_rng(0))


def test_smallnorb_is_two_views_and_a_class(tmp_path):
    tfds_files.write_smallnorb(tmp_path, count=7)
    source = registry.load("smallnorb", "train", data_dir=str(tmp_path))
    pair = "decode | label_pair('image', 'image2', 'label_category')"
    whole = transforms.parse(f"{pair} | keep('frames', 'label')")
    middle = transforms.parse(f"{pair} | middle_pair(88, 80) | keep('frames')")
    corner = transforms.parse(f"{pair} | crop_pair(88, 80) | keep('frames')")
    for i in range(7):
        example, rng = whole(source[i], np.random.default_rng(0)), np.random.default_rng(i)
        image = transforms.decode(source[i], rng)
        for view, name in enumerate(("image", "image2")):
            np.testing.assert_array_equal(
                example["frames"][view], np.repeat(image[name], 3, axis=-1)
            )
        assert example["label"] == i % 5 and example["label"].dtype == np.int32
        expected = example["frames"][:, 4:92, 8:88]
        np.testing.assert_array_equal(middle(source[i], rng)["frames"], expected)
        assert corner(source[i], rng)["frames"].shape == expected.shape
    with pytest.raises(ValueError, match=r"middle_pair\(100, 80\): the views are 96 x 96"):
        pair_transforms.middle_pair(example, rng, 100, 80)


def test_the_notes_on_data_name_every_set():
    """And what of Sintel's and KITTI's archives is read, as the sets themselves say."""
    text = pathlib.Path(__file__).parents[2].joinpath("docs/data.md").read_text()
    assert [name for name in pair_sets.SETS if f"`{name}`" not in text] == []
    for name in ("sintel_clean", "sintel_clean_stereo", "kitti2015_flow", "kitti2012_stereo"):
        folders = re.search(r"{(.*?)}", pair_sets.SETS[name].holds)[1].split(",")
        (row,) = (line for line in text.splitlines() if f"`{name}`" in line)
        assert all(folder in row for folder in folders), name
