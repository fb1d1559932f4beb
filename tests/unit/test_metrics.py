"""Figures by hand: rates, ranking, calibration, triage and prediction sets."""

import math

import numpy as np
import pytest

from derma_semantics.domain.prevalence import at_prevalence
from derma_semantics.evaluation import metrics
from derma_semantics.evaluation.metrics import measure


def test_metrics_by_hand():
    labels = np.array([0, 0, 0, 0, 1, 1])
    predicted = np.array([0, 0, 0, 1, 1, 0])
    assert metrics.balanced_accuracy(predicted, labels) == pytest.approx((3 / 4 + 1 / 2) / 2)
    rate = metrics.rate(np.array([True] * 19 + [False]))
    assert rate["value"] == 0.95
    assert rate["interval_95"] == [pytest.approx(0.7513, abs=1e-3), pytest.approx(0.9987, abs=1e-3)]
    assert metrics.rate(np.array([], bool))["value"] is None
    scores = np.array([0.9, 0.8, 0.3, 0.7, 0.2, 0.1])
    truth = np.array([True, True, True, False, False, False])
    assert metrics.threshold_for_sensitivity(scores, truth, 0.6) == 0.8
    assert metrics.specificity_at(scores, truth, 0.6) == 1.0
    assert metrics.specificity_at(scores, truth, 1.0) == pytest.approx(2 / 3)
    assert metrics.auc(scores, truth) == pytest.approx(8 / 9)
    assert metrics.auc(np.array([0.5, 0.5, 0.1]), np.array([True, False, False])) == pytest.approx(3 / 4)
    assert metrics.auc(scores, truth | True) is None


def test_calibration_error_and_brier_by_hand():
    probabilities = np.zeros((4, 7))
    probabilities[:, 0], probabilities[:, 1] = 0.8, 0.2
    labels = np.array([0, 0, 0, 1])
    assert metrics.calibration_error(probabilities, labels) == pytest.approx(0.05)
    (only,) = metrics.reliability(probabilities, labels)
    assert (only["images"], only["accuracy"]) == (4, 0.75)
    # Three times (0.2, 0.2) off, once (0.8, 0.8).
    assert metrics.brier(probabilities, labels) == pytest.approx((3 * 0.08 + 1.28) / 4)


def test_risk_by_hand():
    """RISK says 0.1 of four, of whom one is malignant, and 0.9 of one, who is; the last has no answer."""
    risk, labels = np.array([0.1, 0.1, 0.1, 0.1, 0.9, 0.0]), np.array([1, 1, 5, 0, 3, 2])
    report = metrics.risk_report(risk, labels, risk > 0)
    assert report["malignancy_auc"] == pytest.approx((3 + 1.5 + 0) / 9)
    assert report["mean"] == pytest.approx(1.3 / 5)
    assert (report["malignant"]["value"], report["malignant"]["n"]) == (0.4, 5)
    assert report["expected_calibration_error"] == pytest.approx((4 * 0.15 + 0.1) / 5)
    nothing = metrics.risk_report(np.zeros(6), labels, np.zeros(6, bool))
    assert (nothing["mean"], nothing["expected_calibration_error"]) == (None, None)


def test_bins_of_risk_hold_about_as_many_and_part_no_equals():
    risk, labels = np.arange(200) / 200, np.repeat([1, 0], 100)
    rows = metrics.risk_bins(risk, labels)
    assert [row["malignant"]["n"] for row in rows] == [20] * 10
    assert [row["malignant"]["value"] for row in rows] == [0] * 5 + [1] * 5
    assert rows[0]["risk"] == pytest.approx(9.5 / 200)
    assert rows[0]["malignant"]["interval_95"] == [0, pytest.approx(1 - 0.025 ** (1 / 20))]
    tied = metrics.risk_bins(np.repeat([0.0, 0.5, 0.7], [120, 70, 10]), labels)
    assert [(row["risk"], row["malignant"]["n"]) for row in tied] == [
        (0, 120),
        (0.5, 70),
        (pytest.approx(0.7), 10),
    ]
    assert metrics.risk_bins(risk[:0], labels[:0]) == []


def test_ranking_at_prevalence_by_hand():
    """Doubt about something rare weighs little against doubt about something common."""
    labels = np.array([0, *[1] * 9, 5])
    probabilities = np.zeros((11, 7))
    probabilities[0, [0, 1, 5]] = 0.4, 0.1, 0.5  # the melanoma looks like the one dermatofibroma
    probabilities[1:10, :2] = 0.42, 0.58
    probabilities[10, 5] = 1
    report = measure(probabilities, labels)
    assert report["conditions"]["MEL"]["auc"] == report["melanoma_specificity_at_95_sensitivity"] == 0.1
    assert report["at_prevalence"] == {
        "images": {"MEL": 1, "NV": 9, "BCC": 0, "AKIEC": 0, "BKL": 0, "DF": 1, "VASC": 0},
        "melanoma_auc": 1.0,
        "melanoma_specificity_at_90_sensitivity": 1.0,
        "melanoma_specificity_at_95_sensitivity": 1.0,
    }
    weighed = at_prevalence(probabilities, [1, 9, 0, 0, 0, 1, 0])
    assert weighed[0, 0] == pytest.approx(0.4 / (0.4 + 0.9 + 0.5))
    assert at_prevalence(np.zeros((2, 7)), np.ones(7)).tolist() == np.zeros((2, 7)).tolist()
    assert at_prevalence(probabilities, np.full(7, 100)) == pytest.approx(probabilities)


@pytest.mark.parametrize(
    ("prevalence", "message"),
    [
        ([1, 2], "needs 7 numbers"),
        ([1, 1, 1, 1, 1, 1, -1], "not negative"),
        ([0] * 7, "not all zero"),
        ([math.nan] * 7, "must be finite"),
    ],
)
def test_no_prevalence(prevalence, message):
    with pytest.raises(ValueError, match=message):
        at_prevalence(np.full((1, 7), 1 / 7), prevalence)


def test_conditions_confusion_and_triage_by_hand():
    labels = np.array([0, 0, 1, 1, 2])
    probabilities = np.eye(7)[[0, 1, 1, 0, 2]] * 0.9
    report = measure(probabilities, labels)
    assert report["conditions"]["MEL"]["sensitivity"]["value"] == 1 / 2
    assert report["conditions"]["MEL"]["sensitivity"]["n"] == 2
    assert report["conditions"]["MEL"]["specificity"]["value"] == 2 / 3
    assert report["conditions"]["DF"]["sensitivity"] == {"value": None, "n": 0, "interval_95": None}
    assert report["confusion"]["counts"][0] == [1, 1, 0, 0, 0, 0, 0, 0]
    assert report["macro_auc"] is None
    triage = metrics.triage_report(np.array([True, False, True, False, True]), labels)
    assert triage["melanoma"]["sensitivity"]["value"] == 1 / 2
    assert triage["malignancy"]["sensitivity"] == {
        **triage["malignancy"]["sensitivity"],
        "value": 2 / 3,
        "n": 3,
    }
    assert triage["malignancy"]["specificity"]["value"] == 1 / 2


def test_prediction_sets_by_hand():
    labels = np.array([0, 0, 1])
    sets = np.zeros((3, 7), dtype=bool)
    sets[0, [0, 1]] = sets[1, [1]] = sets[2, [0, 1, 2]] = True
    report = metrics.prediction_set_report(sets, labels)
    assert report["coverage"]["value"] == pytest.approx(2 / 3)
    assert report["coverage_of"]["MEL"]["value"] == 1 / 2
    assert report["coverage_of"]["DF"]["n"] == 0
    assert report["mean_size"] == 2
    assert report["images_of_size"] == [0, 1, 1, 1, 0, 0, 0, 0]


def test_an_unanswered_image_is_wrong_and_never_spared():
    labels = np.array([0, 0, 1, 1, 1])
    probabilities = np.eye(7)[labels] * 0.9
    whole = measure(probabilities, labels)
    probabilities[[1, 4]] = 0
    report = measure(probabilities, labels)
    assert (whole["unanswered"], report["unanswered"]) == (0, 2)
    assert report["accuracy"] == 3 / 5
    assert report["balanced_accuracy"]["value"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert report["melanoma"]["sensitivity"]["value"] == 1 / 2
    assert report["melanoma"]["specificity"]["n"] == 2  # not three: nothing was said of the third
    assert report["melanoma_specificity_at_95_sensitivity"] == 0  # a melanoma can no longer be found
    assert report["expected_calibration_error"] == whole["expected_calibration_error"]
    assert report["confusion"]["counts"][0][-1] == 1
    nothing = measure(np.zeros((5, 7)), labels)
    assert (nothing["accuracy"], nothing["brier"], nothing["expected_calibration_error"]) == (0, None, None)
