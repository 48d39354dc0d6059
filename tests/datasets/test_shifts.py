"""Published sets in the exact formats of their releases, with a few small images each."""

import functools
import json

import jax
import numpy as np
import pytest
from tfds_files import encoded, write_records

from configs import robustness
from experiments.tasks import image
from perceiver_jax.config_types import ConfigError
from perceiver_jax.data.transforms import decode
from perceiver_jax.datasets import registry
from perceiver_jax.datasets.shifts import corrupted, cue_conflict, imagenet9, waterbirds
from perceiver_jax.train import evaluation

IN9 = ("00_dog", "01_bird", "02_wheeled vehicle", "03_reptile", "04_carnivore", "05_insect",
       "06_musical instrument", "07_primate", "08_fish")  # fmt: skip


def picture(seed, size=(24, 24)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def examples(source):
    return [source[i] for i in range(len(source))]


def numbers(source, metrics, guesses):
    """Metrics of guesses, one for each example."""
    rows = [{f: v for f, v in e.items() if f != "image"} for e in examples(source)]
    collected = {field: np.array([row[field] for row in rows]) for field in rows[0]}
    collected["guess"] = np.array([guesses(row) for row in rows])
    return {name: metric(collected) for name, metric in metrics.items()}


def same_fields(source, name, options=None):
    """The stand-in of a source has its fields and types."""
    fake = registry.load(f"blank:{name}", "test", options=options)[0]
    assert {k: type(v) for k, v in fake.items()} == {k: type(v) for k, v in source[0].items()}


# --- ImageNet-9 ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def in9(tmp_path_factory):
    """Two images of each class in three of the variations; of ImageNet's classes 20 are in IN-9."""
    root = tmp_path_factory.mktemp("in9")
    for variation in ("original", "mixed_same", "mixed_rand"):
        for k, name in enumerate(IN9):
            folder = root / variation / "val" / name
            folder.mkdir(parents=True)
            for i in range(2):
                (folder / f"n{i}.JPEG").write_bytes(encoded(picture(10 * k + i), "JPEG"))
            (folder / "notes.txt").write_text("no image")
    mapping = {str(i): i % 10 if i < 20 and i % 10 < 9 else -1 for i in range(1000)}
    (root / imagenet9.MAP).write_text(json.dumps(mapping))
    return root


def test_imagenet9_reads_variations_classes_and_the_map(in9):
    source = registry.load("imagenet9", "val", data_dir=str(in9))
    assert len(source) == 3 * 9 * 2 and repr(source) == "imagenet9[val]"
    found = examples(source)
    assert [int(e["label"]) for e in found[:18]] == [k for k in range(9) for _ in range(2)]
    assert [int(e["condition"]) for e in found[::18]] == [0, 1, 2]
    assert decode(found[3], None)["image"].shape == (24, 24, 3)
    assert source.groups.members == tuple((k, k + 10) for k in range(9))
    assert source.groups.rule == "best"
    same_fields(source, "imagenet9")
    wrong_on_others = numbers(
        source,
        source.conditions.metrics(9),
        lambda row: row["label"] if row["condition"] != 2 else 0,
    )
    assert wrong_on_others["bg_gap"] == pytest.approx(8 / 9)
    part = registry.load("imagenet9", "mixed_rand/val", data_dir=str(in9))
    assert len(part) == 18 and "bg_gap" not in part.conditions.metrics(9)


def test_imagenet9_says_what_is_wrong(in9, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder original/val .*backgrounds_challenge"):
        registry.load("imagenet9", "val", data_dir=str(tmp_path))
    for text in ("{", '{"1": 3}', '{"1": 12}', "[1]"):
        (tmp_path / imagenet9.MAP).write_text(text)
        with pytest.raises(ValueError, match="no map from ImageNet's classes to 9 classes"):
            imagenet9.read_groups(tmp_path / imagenet9.MAP, 9)
    (tmp_path / "original" / "val" / "00_dog").mkdir(parents=True)
    (tmp_path / "mixed_same" / "val" / "01_bird").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"mixed_same/val has the classes \['01_bird'\]"):
        registry.load("imagenet9", "val", data_dir=str(tmp_path))


def test_a_model_of_1000_classes_is_evaluated_in_groups(in9):
    """The accuracy is that of the class of the largest logit, mapped by the file."""
    config = robustness.get_config("imagenet9:tiny")
    config.data.source, config.data.data_dir = "imagenet9", str(in9)
    config.data.train_split, config.data.eval_split = "original/val", "val"
    with pytest.raises(ValueError, match=r"has 9 classes and the model 1000, .*train_split=''"):
        image.make_task(config.lock())
    with config.unlocked():
        config.data.train_split = ""
    task = image.make_task(config)
    batches = [task.prepare(batch, None) for batch in task.eval_data()]
    variables = jax.jit(functools.partial(task.model.init, train=False))(
        jax.random.key(0), batches[0]
    )

    @jax.jit
    def run(batch):
        return task.model.apply(variables, batch, train=False), task.predict(variables, batch)

    totals, right = evaluation.Totals(), []
    for batch in batches:
        logits, scores = run(batch)
        assert scores.shape == (8, 10) and batch["target"].shape == (8, 10)
        sums = {name: metric(scores, batch) for name, metric in task.metrics.items()}
        sums["loss"] = task.loss(scores, batch).sum(), batch["mask"].sum()
        totals.add(sums, task.collect(scores, batch) | {"mask": batch["mask"]})
        guess = np.argmax(logits, 1)
        mapped = np.where((guess < 20) & (guess % 10 < 9), guess % 10, -1)
        right += (mapped == batch["label"])[np.asarray(batch["mask"])].tolist()
    found = totals.metrics(task)
    assert found["accuracy"] == np.mean(right) and len(right) == 54
    assert np.isfinite(found["loss"]) and np.isfinite(found["bg_gap"])


# --- Waterbirds ------------------------------------------------------------------------------

HEADER = "img_id,img_filename,y,split,place,place_filename\n"


@pytest.fixture
def birds(tmp_path):
    """Training: 6, 1, 1, 2 of the groups; test: two of each."""
    groups = [(0, y, place) for (y, place), n in TRAINED.items() for _ in range(n)]
    groups += [(2, y, place) for y, place in TRAINED for _ in range(2)]
    lines = [HEADER]
    for i, (split, y, place) in enumerate(groups):
        (tmp_path / f"{y:03}.Bird").mkdir(exist_ok=True)
        name = f"{y:03}.Bird/{i}.jpg"
        (tmp_path / name).write_bytes(encoded(picture(i), "JPEG"))
        lines.append(f"{i},{name},{y},{split},{place},/f/forest_{i}.jpg\n")
    (tmp_path / waterbirds.LIST).write_text("".join(lines))
    return tmp_path


TRAINED = {(0, 0): 6, (0, 1): 1, (1, 0): 1, (1, 1): 2}


def test_waterbirds_groups(birds):
    train = registry.load("waterbirds", "train", data_dir=str(birds))
    test = registry.load("waterbirds", "test", data_dir=str(birds))
    assert (len(train), len(test)) == (10, 8)
    same_fields(test, "waterbirds")
    for example in examples(test):
        assert example["condition"] == 2 * example["label"] + example["ground"]
    assert decode(test[0], None)["image"].shape == (24, 24, 3)
    found = numbers(test, test.conditions.metrics(2), lambda row: row["ground"])
    assert [found[f"accuracy_{name}"] for name in waterbirds.NAMES] == [1, 0, 0, 1]
    assert found["worst_group"] == 0 and found["weighted_accuracy"] == pytest.approx(0.8)
    assert 0 < found["worst_group_null"] < 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "has no column 'img_filename'"),
        (HEADER + "1,x.jpg,2,0,1,p.jpg\n", "line 2: y, split, place are 2, 0, 1; y and place"),
        (HEADER + "1,x.jpg,1,0,1,p.jpg\n", "lists no image of 'test'"),
    ],
)
def test_waterbirds_say_what_is_wrong(tmp_path, text, message):
    with pytest.raises(FileNotFoundError, match=r"no metadata.csv in it, with the columns"):
        registry.load("waterbirds", "test", data_dir=str(tmp_path))
    (tmp_path / waterbirds.LIST).write_text(text)
    with pytest.raises(ValueError, match=message):
        registry.load("waterbirds", "test", data_dir=str(tmp_path))
    with pytest.raises(ValueError, match="not 'validation'"):
        registry.load("waterbirds", "validation", data_dir=str(tmp_path))


# --- Cue conflict ----------------------------------------------------------------------------


def stimulus(shape, texture):
    """A class of the 16 stands for its number of ImageNet's, and for 100 more where it is even."""
    fields = {"image": encoded(picture(shape), "PNG"), "file_name": b"cat7-dog3.png"}
    for cue, k in (("shape", shape), ("texture", texture)):
        members = [k] if k % 2 else [k, 100 + k]
        fields |= {f"{cue}_label": k, f"{cue}_imagenet_labels": members}
    return fields


def test_cue_conflict(tmp_path):
    pairs = [(k, (k + 1) % 16) for k in range(16)] + [(3, 3), (3, 5)]
    splits = {"test": [stimulus(*pair) for pair in pairs]}
    write_records(tmp_path, cue_conflict.NAME, "1.0.0", splits)
    source = registry.load("cue_conflict", "test", data_dir=str(tmp_path))
    assert source.groups.members == tuple((k,) if k % 2 else (k, 100 + k) for k in range(16))
    assert source.groups.rule == "mean"
    found = [(int(e["label"]), int(e["ground"]), int(e["condition"])) for e in examples(source)]
    assert found == [(s, t, int(s != t)) for s, t in pairs]
    same_fields(source, "cue_conflict")

    def guess(row):  # by the shape of the first four classes, by the texture of the next six
        return row["label"] if row["label"] < 4 else row["ground"] if row["label"] < 10 else 99

    found = numbers(source, source.conditions.metrics(16), guess)
    assert found["shape"] == pytest.approx(5 / 17) and found["texture"] == pytest.approx(6 / 17)
    assert found["shape_bias"] == pytest.approx(5 / 11)  # where both agree is no conflict
    assert (found["shape_bird"], found["texture_bird"]) == (1, 0)
    assert (found["shape_bottle"], found["texture_bottle"]) == (0, 1)
    assert (found["shape_truck"], found["texture_truck"]) == (0, 0)


# --- TFDS: some classes, corruptions ---------------------------------------------------------


def test_some_classes_are_counted_in_order(tmp_path):
    labels = [900, 6, 6, 47]
    records = [
        {"image": encoded(picture(i), "JPEG"), "label": k, "file_name": b"n/x.jpg"}
        for i, k in enumerate(labels)
    ]
    write_records(tmp_path, "imagenet_a", "0.1.0", {"test": records})
    source = registry.load(
        "some_classes", "test", data_dir=str(tmp_path), options={"images": "imagenet_a"}
    )
    assert [int(e["label"]) for e in examples(source)] == [2, 0, 0, 1]
    assert source.groups.members == ((6,), (47,), (900,)) and source.groups.rule == "among"
    with pytest.raises(ConfigError, match="images='A b' is not allowed"):
        registry.check_options("some_classes", {"images": "A b"})


@pytest.fixture(scope="module")
def corruptions(tmp_path_factory):
    """All 75 sets, with one image of severity 1, two of 2, ..."""
    root, seed = tmp_path_factory.mktemp("c"), 0
    for name in corrupted.ALEXNET:
        for severity in range(1, 6):
            records = [
                {
                    "image": encoded(picture(seed + i), "JPEG"),
                    "label": severity,
                    "file_name": b"ILSVRC2012_val_00000001.JPEG",
                }
                for i in range(severity)
            ]
            seed += severity
            write_records(
                root, f"imagenet2012_corrupted/{name}_{severity}", "3.1.0", {"validation": records}
            )
    return root


def test_corruptions_are_one_evaluation(corruptions):
    source = registry.load("corrupted", "validation", data_dir=str(corruptions))
    assert len(source) == 15 * 15 and len(source.conditions.names) == 75
    found = examples(source)
    names = [source.conditions.names[e["condition"]] for e in found]
    assert names[:4] == ["gaussian_noise_1", *["gaussian_noise_2"] * 2, "gaussian_noise_3"]
    assert names[-1] == "jpeg_compression_5"
    assert all(name.endswith(f"_{e['label']}") for name, e in zip(names, found, strict=True))
    pixels = {decode(e, None)["image"].tobytes() for e in found}
    assert len(pixels) == len(found)
    with pytest.raises(IndexError):
        source[225]
    same_fields(source, "corrupted", {"images": "imagenet2012"})

    metrics = source.conditions.metrics(1000)
    wrong = numbers(source, metrics, lambda row: -1)
    assert wrong["mce"] == pytest.approx(100 * np.mean([1 / e for e in corrupted.ALEXNET.values()]))
    # Severities count alike, however many images they have; fog alone is seen at all of them.
    fog = {i for i, name in enumerate(source.conditions.names) if name.startswith("fog")}
    seen = numbers(
        source, metrics, lambda r: r["label"] if r["label"] == 1 or r["condition"] in fog else -1
    )
    assert seen["error_fog"] == 0 and seen["error_snow"] == pytest.approx(0.8)
    assert seen["mean_corruption_error"] == pytest.approx(0.8 * 14 / 15)


def test_parts_of_the_corruptions(corruptions):
    options = {"corruptions": ("fog", "snow"), "severities": (2,)}
    part = registry.load("corrupted", "validation", data_dir=str(corruptions), options=options)
    assert part.conditions.names == ("fog_2", "snow_2") and len(part) == 4
    assert "mce" not in part.conditions.metrics(1000)  # AlexNet's errors are of all severities
    with pytest.raises(ConfigError, match=r"corruptions=\('fogg',\) is not allowed"):
        registry.check_options("corrupted", {"corruptions": ("fogg",)})
    with pytest.raises(FileNotFoundError, match="tfds build cifar10_corrupted/gaussian_noise_1"):
        registry.load("corrupted", "test", data_dir=str(corruptions), options={"images": "cifar10"})
