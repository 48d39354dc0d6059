"""Where the latents look: the measure against attention that is known, and its table."""

import lab_rows
import numpy as np
import pytest

from configs import lab
from experiments.lab import attention, rows
from experiments.lab.panels import panels


@pytest.fixture
def no_weights(monkeypatch):
    nothing = {"params": {}, "model_state": {}}
    monkeypatch.setattr(attention.checkpoint, "restore_weights", lambda *_, **__: (nothing, ""))


def test_who_looks_everywhere_alike_has_the_digits_share_of_the_area(no_weights):
    config = lab.get_config("sea.stem.colour.rho95")
    for grid in ((16, 16), (4, 4)):
        seen = np.full((attention.DIGITS, *grid), 1 / np.prod(grid))
        found = attention.look(config, "", lambda variables, image, seen=seen: seen)
        assert 0.1 < found["attention_area"] < 0.4
        assert found["attention_object"] == pytest.approx(found["attention_area"])
        assert found["attention_absent"] == pytest.approx(found["attention_area"])


def test_who_looks_at_what_is_bright_looks_at_the_digit_where_there_is_one(no_weights):
    def bright(variables, image):
        weights = np.exp(8 * np.asarray(image).min(axis=-1))  # a digit is white, a ground coloured
        return weights / weights.sum(axis=(1, 2), keepdims=True)

    config = lab.get_config("sea.pixels.colour.rho95")
    found = attention.look(config, "", bright)
    assert found["attention_object"] > 0.95
    assert found["attention_object"] + found["attention_ground"] == pytest.approx(1)
    assert found["attention_absent"] < 0.5


def test_a_mask_covers_a_share_of_a_coarser_place():
    mask = np.zeros((1, 4, 4), bool)
    mask[0, :2, :1] = mask[0, 3, 3] = True
    np.testing.assert_array_equal(attention.resized(mask, (2, 2)), [[[0.5, 0], [0, 0.25]]])


def test_trainings_are_measured_once_and_shown_in_their_rows(tmp_path, monkeypatch):
    lab_rows.write(tmp_path, lab_rows.sea(seeds=2, models=("stem", "resnet")))
    there = [("stem.colour.rho95", 0), ("stem.colour.rho95", 1), ("resnet.colour.rho95", 0),
             ("stem.colour.grounds_only", 0)]  # fmt: skip
    for cell, seed in there:
        (tmp_path / "sea" / cell / str(seed)).mkdir(parents=True)
    looked = []

    def look(config, folder, run):
        looked.append(folder.relative_to(tmp_path / "sea").as_posix())
        return dict.fromkeys(attention.NUMBERS, 0.25)

    monkeypatch.setattr(attention, "look", look)
    monkeypatch.setattr(attention, "attention", lambda model: None)
    monkeypatch.setattr(attention, "load_config", lambda _: lab.get_config("sea.stem.uncorrelated"))
    for _ in range(2):
        attention.update(tmp_path)
    assert looked == ["stem.colour.rho95/0", "stem.colour.rho95/1"]

    table = rows.read(tmp_path / "lab_sea.csv")
    found = attention.join(table, tmp_path)
    seen = [(r["cell"], r["seed"]) for r in found if r.get("attention_object") == 0.25]
    assert sorted(seen) == [("stem.colour.rho95", 0), ("stem.colour.rho95", 1)]
    (study,) = rows.studies(found)
    assert [p.name for p in panels(study)] == ["colour", "texture", "attention_colour"]
    changed = [row | {"config_hash": "other"} for row in table]
    assert not any("attention_object" in row for row in attention.join(changed, tmp_path))

    (tmp_path / attention.FILE).write_text("study,cell\n")
    with pytest.raises(ValueError, match=r"lab_attention\.csv: no column seed, .* remove it"):
        attention.measured(tmp_path)
