"""Verdicts of the lab on rows whose effects are known."""

import dataclasses

import lab_rows
import numpy as np
import pytest
from scipy import stats

from configs import lab
from experiments.lab import claims, rows, verdict
from experiments.lab.claims import conv, regularisation


def study_of(found, expected=()):
    (study,) = rows.studies(found, expected)
    return study


def judged(found, name, expected=()):
    study = study_of(found, expected)
    (claim,) = [c for c in claims.CLAIMS[study.name] if c.name == name]
    return verdict.judge(claim, study)


def test_intervals_are_those_of_scipy():
    values = [0.91, 0.86, 0.93, 0.9, 0.88]
    found = rows.interval(values)
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    np.testing.assert_allclose([found.low, found.high], [low, high])
    assert rows.interval(values[:2]).half is None, "two seeds have no interval"
    assert rows.interval([]) is None


def test_differences_are_paired_by_seed_and_remember_what_is_missing():
    a = rows.Series({0: 0.5, 1: 0.7, 2: 0.6})
    b = rows.Series({0: 0.4, 2: 0.3, 5: 0.0}, ("b, seed 1: diverged",))
    found = a - b
    np.testing.assert_allclose(list(found.values.values()), [0.1, 0.3])
    assert list(found.values) == [0, 2]
    assert found.missing == b.missing


@pytest.mark.parametrize(
    ("side", "bound", "expected"),
    [
        ("above", 0.1, "holds"), ("above", 0.5, "fails"), ("above", 0.3, "open"),
        ("below", 0.5, "holds"), ("below", 0.1, "fails"), ("below", 0.3, "open"),
        ("within", 0.5, "holds"), ("within", 0.1, "fails"), ("within", 0.3, "open"),
        ("beyond", 0.1, "holds"), ("beyond", 0.5, "fails"), ("beyond", 0.3, "open"),
    ],
)  # fmt: skip
def test_an_interval_is_on_one_side_of_a_bound_or_crosses_it(side, bound, expected):
    values = rows.Series(dict(enumerate((0.25, 0.3, 0.35))))
    assert verdict.Test("number", values, side, bound).verdict == expected


def test_an_interval_over_both_bounds_is_open():
    values = rows.Series(dict(enumerate((-0.5, 0.0, 0.5))))
    assert verdict.Test("number", values, "beyond", 0.1).verdict == "open"
    assert verdict.Test("number", values, "within", 0.1).verdict == "open"


def test_the_verdict_changes_when_the_effect_is_removed():
    name = "sea.colour.stem"
    assert judged(lab_rows.sea(), name).verdict == "holds"
    assert judged(without_correlation(lab_rows.sea()), name).verdict == "fails"


def without_correlation(found):
    """Where rho is 0.95, what the same seed and model give at rho 0.1."""
    bare = {(r["model"], r["seed"]): r for r in found if r["cell"].endswith("uncorrelated")}
    metrics = ("gap", "accuracy_conflict", "accuracy_aligned")
    return [
        r | {k: bare[r["model"], r["seed"]][k] for k in metrics} if r["rho"] == 0.95 else r
        for r in found
    ]


def test_architecture_and_blindness_on_texture():
    assert judged(lab_rows.sea(), "sea.texture.architecture").verdict == "holds"
    assert judged(lab_rows.sea(), "sea.texture.blind").verdict == "holds"
    blind = judged(lab_rows.sea(), "sea.texture.pixels")
    assert blind.verdict == "open", "a model that cannot see the cue says nothing"
    assert any("cue learnable" in reason for reason in blind.reasons)


def test_two_seeds_are_too_few():
    found = judged(lab_rows.sea(seeds=2), "sea.colour.stem")
    assert found.verdict == "open"
    assert "2 of at least 3 seeds" in found.reasons[0]


@pytest.mark.parametrize("change", ["dropped", "diverged"])
def test_a_seed_that_is_missing_or_diverged_opens_the_claim_and_is_named(change):
    found = lab_rows.sea()
    gone = next(r for r in found if r["cell"] == "stem.colour.rho95" and r["seed"] == 3)
    if change == "dropped":
        found.remove(gone)
    else:
        gone["status"] = "diverged"
    result = judged(found, "sea.colour.stem")
    word = "not run" if change == "dropped" else "diverged"
    assert result.verdict == "open"
    assert f"stem.colour.rho95, seed 3: {word}" in result.reasons
    assert len(result.evidence[0].series.values) == 4


def test_the_gate_and_each_control_open_a_claim():
    for cell, metric, value, kind in (
        ("stem.uncorrelated", "accuracy_uncorrelated", 0.8, "gate"),
        ("stem.uncorrelated", "accuracy_ground_only", 0.3, "no leak"),
        ("stem.colour.grounds_only", "accuracy_ground_only", 0.6, "cue learnable"),
        ("stem.labels_shuffled", "accuracy_object_only", 0.2, "labels shuffled"),
        ("stem.colour.rho100", "accuracy_conflict", 0.4, "rho 1"),
        ("stem.colour.grounds_permuted", "gap", 0.1, "grounds permuted"),
        ("stem.texture.grounds_scattered", "gap", 0.2, "grounds scattered"),
    ):
        changed = [r | {metric: value} if r["cell"] == cell else r for r in lab_rows.sea()]
        claim = "sea.texture.stem" if "texture" in cell else "sea.colour.stem"
        found = judged(changed, claim)
        assert found.verdict == "open"
        assert [r for r in found.reasons if r.startswith(f"control failed: {kind}")], kind
        unrun = [r for r in lab_rows.sea() if r["cell"] != cell]
        found = judged(unrun, claim)
        assert found.verdict == "open"


def test_bias_in_samples_is_the_ratio_of_examples_for_one_accuracy():
    study = study_of(lab_rows.conv(saves=4.0))
    found = conv.samples(study, "pixels", "stem")
    assert found.doublings.interval.mean == pytest.approx(2.0)
    np.testing.assert_allclose(np.log2(list(found.first.values.values())).mean(),
                               np.log2(list(found.second.values.values())).mean() + 2)  # fmt: skip
    assert judged(study.rows, "conv.samples.stem").verdict == "holds"
    assert judged(lab_rows.conv(saves=1.0), "conv.samples.stem").verdict == "open"
    assert judged(lab_rows.conv(saves=0.5), "conv.samples.stem").verdict == "fails"


def test_an_advantage_that_stays_where_pixels_have_wrong_places_is_no_locality():
    assert judged(lab_rows.conv(), "conv.locality.stem").verdict == "holds"
    kept = lab_rows.conv(wrong=0.1)
    assert judged(kept, "conv.locality.stem").verdict == "fails"
    samples = judged(kept, "conv.samples.stem")
    assert samples.verdict == "open"
    assert samples.reasons == ["control failed: wrong places: advantage of stem over pixels"]


def regularisation_rows(shift, uncorrelated, seeds=4):
    """The base, and shift and cutout that change conflict and uncorrelated accuracy."""
    found = []
    for seed in range(seeds):
        for setting, change in (("base", 0.0), ("shift", 1.0), ("cutout", 1.0)):
            for rho, cue in ((0.1, ""), (0.95, "colour")):
                value = 0.9 + change * uncorrelated if rho == 0.1 else 0.3 + change * shift
                classes = {f"accuracy_conflict_{k}": value for k in range(10)}
                classes["accuracy_conflict_0"] += lab_rows.NOISE[seed]
                if setting != "base":
                    classes["accuracy_conflict_4"] -= 0.2
                found.append(lab_rows.row(
                    "regularisation", f"stem.{cue}.{setting}.{rho}", seed, model="stem", cue=cue,
                    rho=rho, setting=setting, accuracy_conflict=value + lab_rows.NOISE[seed],
                    accuracy_uncorrelated=value, accuracy_aligned=0.95,
                ) | classes)  # fmt: skip
    return found


def test_what_a_setting_costs_without_a_correlation_is_no_bias():
    name = "regularisation.harmless.colour.stem"
    assert judged(regularisation_rows(-0.2, 0.0), name).verdict == "holds"
    # Both lose the same share.
    assert judged(regularisation_rows(-0.05 * 0.3 / 0.9, -0.05), name).verdict == "fails"
    gated = judged(regularisation_rows(-0.2, -0.2), name)
    assert gated.verdict == "open", "a setting under which nothing is learned says nothing"
    assert any(
        r.startswith("control failed: gate: stem, shift") or "gate" in r for r in gated.reasons
    )


def test_class_dependence_has_the_null_of_reseeded_pairs():
    study = study_of(regularisation_rows(0.0, 0.0))
    largest, null = regularisation.class_dependence(study, model="stem", setting="shift")
    np.testing.assert_allclose(list(largest.values.values()), 0.2 - 0.02, err_msg="beyond the mean")
    noise = lab_rows.NOISE[:4]
    expected = [np.mean([max(a - b, 0) - (a - b) / 10 for b in noise if b != a]) for a in noise]
    np.testing.assert_allclose(list(null.values.values()), expected, atol=1e-9)
    assert judged(study.rows, "regularisation.classes.stem").verdict == "holds"


def test_every_claim_of_every_study_is_open_where_nothing_has_run():
    for name, found in claims.CLAIMS.items():
        study = rows.Study(name, [])
        for claim in found:
            result = verdict.judge(claim, study)
            assert result.verdict == "open", claim.name
            assert result.reasons, claim.name
            assert result.controls, "every claim has a control"
        assert len({claim.name for claim in found}) == len(found), name


@pytest.mark.parametrize("name", lab.STUDIES)
def test_the_cells_of_a_study_have_all_that_its_claims_need(name):
    """Claims find cells by their columns: a setting that is spelled otherwise would be missing."""
    metrics = {
        "accuracy", "accuracy_training", "gap", "bg_gap", "ship_by_sea", "surgery_share", "shape",
        "texture", "shape_bias", "accuracy_original", "logits_difference",
        *(f"accuracy_{condition}" for condition in (
            "aligned", "conflict", "object_only", "ground_only", "uncorrelated", "standard",
            "mnist_random", "cifar_random",
        )),
        *(f"accuracy_conflict_{k}" for k in range(10)),
    }  # fmt: skip
    found = [
        lab_rows.row(**dataclasses.asdict(cell), cell=cell.name, seed=seed)
        | dict.fromkeys(metrics, 0.5)
        for cell in lab.STUDIES[name]
        for seed in range(3)
    ]
    study = study_of(found)
    for claim in claims.CLAIMS[name]:
        lacking = [r for r in verdict.judge(claim, study).reasons if "not run" in r or ": no " in r]
        assert not [r for r in lacking if not r.startswith("control failed")], claim.name
