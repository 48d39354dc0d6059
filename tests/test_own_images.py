"""Runs on images of one's own: classes come from the data, are saved, and hold."""

import json
import re

import jax
import numpy as np
import pytest
from etils import epath
from flax.traverse_util import flatten_dict
from image_files import write_folder, write_image, write_tables

from configs import folder as folder_config
from experiments import make_task
from experiments.tasks import image, image_tags
from perceiver_jax import files, pretrained
from perceiver_jax.build import build
from perceiver_jax.config_types import ConfigError
from perceiver_jax.data.transforms import parse
from perceiver_jax.datasets import table
from perceiver_jax.train.workdir import as_json, check_config, load_config, make_ours


def tiny(path, variant="small"):
    config = folder_config.get_config(f"{variant}:tiny")
    config.data.data_dir = str(path)
    return config.lock()


@pytest.fixture
def pets(tmp_path):
    write_folder(tmp_path / "pets")
    return tmp_path / "pets"


def test_the_data_say_the_classes(pets):
    (pets / "val" / "dog" / "0.png").write_bytes((pets / "train" / "dog" / "0.png").read_bytes())
    config = tiny(pets)
    assert config.model.output.num_classes is None
    task = make_task(config)
    assert config.model.output.num_classes == 3 == task.model.output.num_classes
    assert config.data.classes == ("cat", "dog", "eel")
    assert "3 classes: 'cat', 'dog', 'eel'" in task.description
    assert any("1 of 15 evaluation images are also in training" in x for x in task.description)
    batch = next(task.train_data(0))
    assert batch["image"].shape == (8, 32, 32, 3) and batch["mask"].all()
    for setting, told in (("in_memory", 1), ("source_options.find_copies", 0)):
        config = tiny(pets)
        config.update_from_flattened_dict({f"data.{setting}": bool(told)})
        if told:  # which needs images of one size
            for path in pets.rglob("*.png"):
                files.write_image(path, files.read_image(path)[:12])
        assert sum("also in training" in x for x in make_task(config).description) == told


def test_a_run_keeps_its_classes(pets, tmp_path):
    config, workdir = tiny(pets), epath.Path(tmp_path / "run")
    make_task(config)
    make_ours(workdir / "config.json", as_json(config))
    saved = load_config(workdir)
    assert saved.data.classes == ("cat", "dog", "eel") and saved.model.output.num_classes == 3
    assert pretrained.class_names(str(workdir), 3) == ["cat", "dog", "eel"]
    make_task(saved)  # as `experiments.plot` does
    again = tiny(pets)
    make_task(again)
    check_config(workdir, again, write=False)

    (pets / "classes.txt").write_text("eel\ndog\ncat\n")
    with pytest.raises(
        ConfigError, match=r"other classes than config\.data\.classes: in another or"
    ):
        make_task(saved)
    (pets / "classes.txt").unlink()
    for part in ("train", "val"):
        (pets / part / "cat").rename(pets / part / "fox")
    with pytest.raises(ConfigError, match=r"other classes .*without 'cat'; with 'fox'"):
        make_task(saved)
    changed = tiny(pets)
    make_task(changed)
    with pytest.raises(ValueError, match=r"config\.data\.classes: \['cat', .* -> \['dog', 'eel', "):
        check_config(workdir, changed, write=False)


def test_weights_of_a_run_on_other_classes_need_a_fresh_head(pets, tmp_path):
    config, workdir = tiny(pets), epath.Path(tmp_path / "run")
    make_task(config)
    make_ours(workdir / "config.json", as_json(config))
    config = tiny(pets)
    config.start.weights = str(workdir)
    make_task(config)
    for part in ("train", "val"):
        (pets / part / "cat").rename(pets / part / "fox")
    config = tiny(pets)
    config.start.weights = str(workdir)
    with pytest.raises(ConfigError, match=r"run on other classes: without 'cat'; with 'fox'"):
        make_task(config)
    config.start.fresh = ("logits",)
    make_task(config)


@pytest.mark.parametrize("kind", ["fourier", "learned", "conv"])
def test_finetune_fits_the_released_model_but_for_its_head(kind):
    name = {"fourier": "finetune"}.get(kind, f"finetune_{kind}")
    config = folder_config.get_config(name)
    config.model.output.num_classes = 5
    released = pretrained.released(config.start.weights)
    model, batch = build(config.model.to_dict()), released.batch
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), zeros(batch), train=False))
    ours, theirs = (flatten_dict(x["params"], sep="/") for x in (shapes, released.shapes))
    differ = {key for key in ours | theirs if ours[key].shape != theirs[key].shape}
    assert differ == {"output/logits/kernel", "output/logits/bias"}
    assert all(re.search(config.start.fresh[0], key) for key in differ)
    size = parse(config.data.eval)({"image": np.zeros((300, 400, 3), np.uint8), "label": 0,
                                    "readable": True}, None)["image"].shape  # fmt: skip
    assert size == batch["image"].shape[1:]


def zeros(shapes):
    return jax.tree.map(lambda x: jax.numpy.zeros(x.shape, x.dtype), shapes)


def test_of_many_classes_the_differences_are_named(tmp_path):
    config, workdir = folder_config.get_config("tiny"), epath.Path(tmp_path)
    config.data.classes = tuple(map(str, range(1000)))
    make_ours(workdir / "config.json", as_json(config))
    config.data.classes = (*map(str, range(999)), "new")
    with pytest.raises(ValueError, match=r"classes: without \['999'\], with \['new'\]\n"):
        check_config(workdir, config, write=False)


def test_too_few_classes_in_the_model_are_refused(pets):
    config = tiny(pets)
    config.model.output.num_classes = 2
    with pytest.raises(
        ConfigError, match=r"has 3 classes, but config\.model\.output\.num_classes=2"
    ):
        make_task(config)
    config.data.source, config.model.output.num_classes = "blank:folder", None
    with pytest.raises(ConfigError, match=r"set config\.model\.output\.num_classes: .* no classes"):
        make_task(config)
    config.model.output.num_classes = 7
    assert make_task(config).model.output.num_classes == 7


def test_what_cannot_be_read_does_not_count(pets):
    (pets / "val" / "cat" / "1.png").write_bytes(b"no image")
    task = make_task(tiny(pets))
    batch = task.prepare(next(task.eval_data()), None)
    np.testing.assert_array_equal(batch["mask"], np.arange(8) != 3)  # cat, dog, eel, cat
    key = jax.random.key(0)
    settings = {"label_smoothing": 0.1, "mix_alpha": 0.0, "mean": (0.0,) * 3, "std": (1.0,) * 3}
    batch = image.prepare_images(next(task.eval_data()), key, num_classes=3, **settings)
    assert batch["mask"].tolist() == [True] * 3 + [False] + [True] * 4


def test_tags(tmp_path):
    write_tables(tmp_path)
    write_image(tmp_path / "pictures" / "new.png")
    with (tmp_path / "train.csv").open("a") as file:
        file.write("pictures/new.png,vase\n")
    config = tiny(tmp_path, "tags")
    task = make_task(config)
    assert config.data.classes == ("cup", "plate", "vase")
    batch = next(task.eval_data())
    prepared = task.prepare(batch, None)
    np.testing.assert_array_equal(prepared["target"][:3], [[1, 0, 0], [1, 1, 0], [0, 1, 0]])
    assert prepared["mask"].tolist() == [True] * 6 + [False] * 2
    logits = np.where(prepared["target"], 1.0, -1.0)
    kept = {k: np.asarray(v)[:6] for k, v in task.collect(logits, prepared).items()}
    assert task.whole_metrics["mean_average_precision"](kept) == 1.0
    source = table.load("val", data_dir=str(tmp_path), lists=("train", "val"), multi_label=True)
    rows = image_tags.table(source, batch, logits)
    assert rows[1] == {
        "file": "pictures/val1.png",
        "labels": "cup; plate",
        "predicted": "cup 0.73; plate 0.73; vase 0.27",
    }


def test_class_names_of_a_run_are_those_of_its_model(tmp_path):
    config = {"model": {}, "data": {"classes": ["a", "b"]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert pretrained.class_names(str(tmp_path), 3) == ["a", "b", "class 2"]
    with pytest.raises(ValueError, match="names 2 classes, the model has 1"):
        pretrained.class_names(str(tmp_path), 1)
    (tmp_path / "config.json").write_text(json.dumps({"model": {}, "data": {"classes": []}}))
    assert pretrained.class_names(str(tmp_path), 2) is None
