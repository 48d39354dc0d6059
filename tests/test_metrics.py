"""Losses and metrics: small cases worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_jax import losses, metrics

LOGITS = jnp.log(jnp.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.2, 0.5, 0.3], [0.4, 0.4, 0.2]]))
BATCH = {"label": jnp.array([0, 0, 2, 1]), "mask": jnp.array([True, True, True, False])}


def test_cross_entropy_takes_soft_targets():
    target = jnp.array([[1.0, 0, 0], [0, 0.5, 0.5]])
    got = losses.softmax_cross_entropy(LOGITS[:2], {"target": target})
    expected = [-np.log(0.7), -0.5 * np.log(0.3) - 0.5 * np.log(0.6)]
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize(("k", "hits"), [(1, 1), (2, 2), (3, 3)])
def test_top_accuracy_counts_real_examples_only(k, hits):
    total, count = metrics.top_accuracy(k)(LOGITS, BATCH)
    assert (float(total), float(count)) == (hits, 3)


def test_ties_are_no_credit():
    """A model that says the same of every class must not look perfect."""
    batch = {"label": jnp.array([0, 1]), "mask": jnp.ones(2, bool)}
    assert float(metrics.top_accuracy(1)(jnp.zeros((2, 3)), batch)[0]) == 0


@pytest.mark.parametrize("label", [3, 4, 1000, -1, -3])
def test_a_label_that_the_model_does_not_have_is_wrong(label):
    batch = {"label": jnp.array([label, 0]), "mask": jnp.ones(2, bool)}
    for k in (1, 3):
        assert float(metrics.top_accuracy(k)(LOGITS[:2].at[1].set(LOGITS[0]), batch)[0]) == 1


def test_a_prediction_that_is_nan_is_wrong():
    """Every comparison with NaN is false; none may count as a success."""
    nan = jnp.full((2, 3), jnp.nan)
    batch = {"label": jnp.array([0, 2]), "mask": jnp.ones(2, bool)}
    for k in (1, 3):
        assert float(metrics.top_accuracy(k)(nan, batch)[0]) == 0
    places = {"target": jnp.zeros((1, 2), int), "hidden": jnp.ones((1, 2), bool)}
    places["mask"] = jnp.ones(1, bool)
    assert [float(x) for x in metrics.hidden_accuracy(nan[None], places)] == [0, 2]
    pixels = {"field": jnp.ones((1, 2, 2)), "valid": jnp.ones((1, 2), bool)}
    pixels["mask"] = jnp.ones(1, bool)
    for metric in (metrics.bad_pixels(1.0), metrics.outliers()):
        assert [float(x) for x in metric(jnp.full((1, 2, 2), jnp.nan), pixels)] == [2, 2]


def test_a_nan_prediction_of_a_padding_row_does_not_leak():
    total, count = metrics.masked_sum(jnp.array([1.0, jnp.nan]), {"mask": jnp.array([True, False])})
    assert (float(total), float(count)) == (1, 1)


# Two images of 1 x 4 pixels: errors of length 5, 0, 2, 10 and 3, 4, 0.6, nan.
FIELD = {
    "field": jnp.zeros((3, 1, 4, 2)).at[0, 0, 3, 0].set(250.0).at[1, 0, 1, 0].set(60.0),
    "valid": jnp.ones((3, 1, 4), bool).at[1, 0, 3].set(False),
    "occluded": jnp.zeros((3, 1, 4), bool).at[0, 0, 0].set(True),
    "mask": jnp.array([True, True, False]),
}
ERRORS = [[[3, 4], [0, 0], [0, 2], [10, 0]], [[3, 0], [4, 0], [0, 0.6], [jnp.nan, 0]]]
PREDICTION = FIELD["field"] + jnp.array([*ERRORS, ERRORS[1]])[:, None]


@pytest.mark.parametrize(
    ("metric", "visible", "expected"),
    [
        (metrics.end_point_error, False, (17 + 7.6, 7)),
        (metrics.end_point_error, True, (12 + 7.6, 6)),
        (metrics.image_end_point_error, False, (17 / 4 + 7.6 / 3, 2)),
        (metrics.image_end_point_error, True, (12 / 3 + 7.6 / 3, 2)),
        (lambda **kw: metrics.bad_pixels(0.5, **kw), False, (6, 7)),
        (lambda **kw: metrics.bad_pixels(3, **kw), False, (3, 7)),
        (lambda **kw: metrics.bad_pixels(3, **kw), True, (2, 6)),
        # 10 of 250 is within 5 %, 4 of 60 is not, 3 is not above 3, 5 of 0 is.
        (metrics.outliers, False, (2, 7)),
        (metrics.outliers, True, (1, 6)),
    ],
)
def test_field_metrics_count_the_pixels_that_their_masks_keep(metric, visible, expected):
    got = [float(x) for x in metric(visible=visible)(PREDICTION, FIELD)]
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    chosen = {n: x[:, 0] if x.ndim > 1 else x for n, x in FIELD.items()}  # [B, n], as in training
    got = [float(x) for x in metric(visible=visible)(PREDICTION[:, 0], chosen)]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_pixels_that_are_known_but_invalid_count_unless_told_otherwise():
    """MPI-Sintel: papers count all pixels; the set marks some as invalid."""
    known = FIELD["valid"].at[0, 0, 0].set(True)
    batch = FIELD | {"valid": FIELD["valid"].at[0, 0, 0].set(False), "known": known}
    whole = [float(x) for x in metrics.end_point_error()(PREDICTION, batch)]
    valid = [float(x) for x in metrics.end_point_error(valid_only=True)(PREDICTION, batch)]
    np.testing.assert_allclose(whole, (17 + 7.6, 7), rtol=1e-6)
    np.testing.assert_allclose(valid, (12 + 7.6, 6), rtol=1e-6)


def test_an_image_without_a_valid_pixel_is_no_image():
    batch = FIELD | {"valid": FIELD["valid"].at[1].set(False)}
    got = metrics.image_end_point_error()(PREDICTION, batch)
    np.testing.assert_allclose([float(x) for x in got], [17 / 4, 1])


def test_robust_field_loss():
    loss = losses.robust_field(epsilon=0.01, power=0.5)
    got = loss(PREDICTION[:2], {n: x[:2] for n, x in FIELD.items()})
    np.testing.assert_allclose(got, [17 / 4, 7.6 / 3], rtol=1e-2)
    lower = losses.robust_field(epsilon=0.5, power=0.4)(PREDICTION, FIELD)
    by_hand = np.mean([(e**2 + 0.25) ** 0.4 for e in (5, 0, 2, 10)])
    np.testing.assert_allclose(lower[0], by_hand, rtol=1e-6)
    nothing = FIELD | {"valid": jnp.zeros_like(FIELD["valid"])}
    np.testing.assert_array_equal(loss(PREDICTION, nothing), jnp.zeros(3))


def test_robust_field_has_a_gradient_where_the_answer_is_right():
    loss = losses.robust_field(epsilon=0.01, power=0.5)
    gradient = jax.grad(lambda p: loss(p, FIELD)[0])(FIELD["field"])
    np.testing.assert_array_equal(gradient, jnp.zeros_like(gradient))
    for wrong in ({"epsilon": 0.0, "power": 0.5}, {"epsilon": 0.1, "power": 2.0}):
        with pytest.raises(ValueError, match=r"epsilon=.* must be > 0, power=.* in \(0, 1\]"):
            losses.robust_field(**wrong)


# Four files, three labels; the last label is in none. Ranked by score the first label's files are
# right, wrong, right, wrong: (1 + 2/3) / 2. The second's are wrong, right, wrong, right:
# (1/2 + 2/4) / 2.
SCORES = np.array([[0.9, 0.6, 0.5], [0.8, 0.9, 0.5], [0.7, 0.2, 0.5], [0.1, 0.8, 0.5]])
TARGETS = np.array([[1, 0, 0], [0, 0, 0], [1, 1, 0], [0, 1, 0]], bool)


def collected(score, target, file=None):
    file = np.arange(len(score)) if file is None else np.array(file)
    return {"score": score, "target": target, "file": file}


def test_mean_average_precision_by_hand():
    got = metrics.mean_average_precision(collected(SCORES, TARGETS))
    assert got == pytest.approx(((1 + 2 / 3) / 2 + (1 / 2 + 2 / 4) / 2) / 2)
    transposed = metrics.mean_average_precision(collected(SCORES.T, TARGETS.T))
    assert transposed == pytest.approx((1 + (1 + 2 / 3) / 2 + 1) / 3)  # too high
    assert np.isnan(metrics.mean_average_precision(collected(SCORES, TARGETS & False)))


def test_the_clips_of_a_file_are_averaged_before_they_are_ranked():
    """Whatever their order and number; ranked by themselves they give another figure."""
    file = [3, 0, 1, 2, 1, 3, 0]
    noise = np.array([0.3, 0.35, -0.6, 0.0, 0.6, -0.3, -0.35])[:, None]
    clips = collected(SCORES[file] + noise, TARGETS[file], file)
    whole = metrics.mean_average_precision(collected(SCORES, TARGETS))
    assert metrics.mean_average_precision(clips) == pytest.approx(whole)
    alone = metrics.mean_average_precision(clips | {"file": np.arange(7)})
    assert alone != pytest.approx(whole, abs=0.05)


def test_sigmoid_cross_entropy_is_a_mean_over_labels():
    logits = jnp.log(jnp.array([[3.0, 1.0], [1 / 3, 1.0]]))  # chances of 3/4 and 1/2; 1/4 and 1/2
    target = jnp.array([[1.0, 0.0], [1.0, 1.0]])
    got = losses.sigmoid_cross_entropy(logits, {"target": target})
    expected = [-np.log(3 / 4) - np.log(1 / 2), -np.log(1 / 4) - np.log(1 / 2)]
    np.testing.assert_allclose(got, np.array(expected) / 2, rtol=1e-5)


def classes(label, prediction):
    return {"label": np.array(label), "prediction": np.array(prediction)}


def test_scores_of_classes_by_hand():
    """TP 3, FN 1, FP 2, TN 4."""
    answers = classes([1] * 4 + [0] * 6, [1, 1, 1, 0, 1, 1, 0, 0, 0, 0])
    assert metrics.accuracy(answers) == pytest.approx(0.7)
    assert metrics.f1(answers) == pytest.approx(6 / 9)
    assert metrics.matthews(answers) == pytest.approx((3 * 4 - 2 * 1) / np.sqrt(5 * 4 * 6 * 5))
    same = classes([1, 0, 0], [0, 0, 0])
    assert (metrics.f1(same), metrics.matthews(same)) == (0, 0)
    unknown = classes([1, 0, 1], [1, 0, -1])  # -1: a prediction that is NaN
    assert metrics.accuracy(unknown) == metrics.f1(unknown) == pytest.approx(2 / 3)


def test_correlations_by_hand():
    numbers = classes([0.0, 1.0, 2.0, 5.0], [1.0, 2.0, 2.0, 3.0])  # ranks 1, 2.5, 2.5, 4
    assert metrics.pearson(numbers) == pytest.approx(5 / np.sqrt(14 * 2))
    assert metrics.spearman(numbers) == pytest.approx(4.5 / np.sqrt(5 * 4.5))
    for metric in (metrics.pearson, metrics.spearman):
        assert np.isnan(metric(classes([0.0, 1.0], [2.0, 2.0])))
        assert np.isnan(metric(classes([0.0, 1.0], [2.0, np.nan])))


def test_the_average_of_the_papers_scores_is_the_printed_one():
    """Perceiver IO on bytes, Table 1: 80.95, printed as 81.0."""
    scores = {
        "cola": 50.19,
        "mnli_matched": 83.22,
        "mnli_mismatched": 83.89,
        "mrpc": 87.24,
        "qnli": 91.71,
        "qqp": 90.12,
        "rte": 64.84,
        "sst2": 93.17,
        "stsb": 86.81,
    }
    assert round(metrics.glue_average(scores), 2) == 80.95
    del scores["rte"]
    with pytest.raises(ValueError, match=r"needs scores of \['rte'\]"):
        metrics.glue_average(scores)


def test_mean_class_accuracy_weighs_classes_alike():
    answers = classes([0, 0, 0, 0, 2], [0, 0, 0, 1, 0])
    assert metrics.mean_class_accuracy(answers) == (0.75 + 0.0) / 2


def test_top_accuracy_of_several_labels_asks_for_one_of_them():
    logits = jnp.array([[0.1, 0.9, 0.5], [0.1, 0.9, 0.5], [0.1, 0.9, 0.5], [0.1, jnp.nan, 0.5]])
    ids = jnp.array([[0, 1], [0, 2], [-1, -1], [1, -1]])
    batch = {"label_ids": ids, "mask": jnp.ones(4, bool)}
    assert [float(metrics.top_accuracy(k)(logits, batch)[0]) for k in (1, 2)] == [1, 2]
