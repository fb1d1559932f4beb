"""Figures against the official scorer, and the submissions that it reads."""

import csv
import warnings

import numpy as np
import pytest

from derma_semantics.domain.conditions import CODES
from derma_semantics.evaluation import metrics, official
from derma_semantics.evaluation.metrics import measure
from derma_semantics.evaluation.truth import Case, write_truth
from tests.unit.cases import NAMES, cases_of, drawn


def officially(folder, probabilities, labels):
    write_truth(folder / "truth.csv", cases_of(labels))
    official.write_submission(folder / "submission.csv", NAMES[: len(labels)], probabilities)
    return official.score(folder / "truth.csv", folder / "submission.csv")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ties", [0.0, 0.1])
def test_ours_equal_the_official_figures(tmp_path, seed, ties):
    probabilities, labels = drawn(seed, ties=ties)
    theirs = officially(tmp_path, probabilities, labels)
    ours = measure(probabilities, labels)
    assert ours["balanced_accuracy"]["value"] == pytest.approx(theirs["balanced_accuracy"], abs=1e-9)
    assert ours["macro_auc"] == pytest.approx(theirs["macro_average"]["auc"], abs=1e-9)
    for code in CODES:
        assert ours["conditions"][code]["auc"] == pytest.approx(theirs["per_category"][code]["auc"], abs=1e-9)
        at_half = metrics.detection(probabilities[:, CODES.index(code)] > 0.5, labels == CODES.index(code))
        for name in ("sensitivity", "specificity"):
            assert at_half[name]["value"] == pytest.approx(theirs["per_category"][code][name], abs=1e-9)
    assert theirs["notes"] == []


def test_official_sensitivity_is_at_one_half_and_ours_of_the_first_condition(tmp_path):
    """Nine in ten melanomas rank first with 0.4: found for us, missed by their threshold."""
    labels = np.arange(70) % 7
    probabilities = np.full((70, 7), 0.1)
    probabilities[np.arange(70), labels] = 0.4
    theirs, ours = officially(tmp_path, probabilities, labels), measure(probabilities, labels)
    assert theirs["balanced_accuracy"] == ours["balanced_accuracy"]["value"] == 1
    assert ours["melanoma"]["sensitivity"]["value"] == 1
    assert theirs["per_category"]["MEL"]["sensitivity"] == 0
    assert theirs["per_category"]["MEL"]["ppv"] == 1  # 0 of 0, which they score as perfect


def test_unanswered_images_are_wrong_for_the_official_scorer_too(tmp_path):
    probabilities, labels = drawn(1)
    probabilities[:20] = 0
    theirs, ours = officially(tmp_path, probabilities, labels), measure(probabilities, labels)
    assert ours["balanced_accuracy"]["value"] == pytest.approx(theirs["balanced_accuracy"], abs=1e-9)
    assert ours["macro_auc"] == pytest.approx(theirs["macro_average"]["auc"], abs=1e-9)


@pytest.mark.parametrize("present", [(0, 1, 4), (1,)])
def test_absent_conditions_have_no_official_figures(tmp_path, present):
    probabilities, labels = drawn(3)
    kept = np.isin(labels, present)
    theirs = officially(tmp_path, probabilities[kept], labels[kept])
    ours = measure(probabilities[kept], labels[kept])
    assert theirs["balanced_accuracy"] == pytest.approx(ours["balanced_accuracy"]["value"], abs=1e-9)
    assert theirs["per_category"]["DF"]["auc"] is theirs["macro_average"]["auc"] is None
    assert (theirs["per_category"]["MEL"]["auc"] is None) == (0 not in present)
    assert "DF" in theirs["notes"][0] and "no macro average" in theirs["notes"][0]


def test_the_challenge_s_own_weights_count(tmp_path):
    """Their ground truth may leave images out of the score, and always leaves out ISIC_0035068."""
    probabilities, labels = drawn(5, 70)
    names = [*NAMES[:69], "ISIC_0035068"]
    cases = [Case(name, int(label), name) for name, label in zip(names, labels, strict=True)]
    write_truth(tmp_path / "truth.csv", cases)
    official.write_submission(tmp_path / "submission.csv", names, probabilities)
    theirs = official.score(tmp_path / "truth.csv", tmp_path / "submission.csv")
    ours = measure(probabilities[:69], labels[:69])
    assert theirs["balanced_accuracy"] == pytest.approx(ours["balanced_accuracy"]["value"], abs=1e-9)
    assert theirs["notes"] == ["The official scorer leaves out 1 images of weight 0."]


def test_submission_format(tmp_path):
    probabilities, _ = drawn(0, 14)
    official.write_submission(tmp_path / "s.csv", NAMES[:14], probabilities)
    header, *rows = csv.reader((tmp_path / "s.csv").open())
    assert header == ["image", "MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
    assert [row[0] for row in rows] == list(NAMES[:14])
    assert (np.array([row[1:] for row in rows], dtype=float) == probabilities).all()
    with pytest.raises(ValueError, match="image ISIC_0000001 has a probability outside"):
        official.write_submission(tmp_path / "s.csv", NAMES[:2], np.array([[0.5] * 7, [1.5] * 7]))
    with pytest.raises(ValueError, match="1 images would stand there twice"):
        official.write_submission(tmp_path / "s.csv", ["a", "a"], probabilities[:2])


def test_a_submission_for_other_images_is_refused(tmp_path):
    probabilities, labels = drawn(0, 14)
    write_truth(tmp_path / "truth.csv", cases_of(labels))
    official.write_submission(tmp_path / "s.csv", NAMES[:13], probabilities[:13])
    with pytest.raises(ValueError, match=r"s.csv does not match .*truth.csv: Missing images.*ISIC_0000013"):
        official.score(tmp_path / "truth.csv", tmp_path / "s.csv")


def test_the_scorer_is_quiet(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("default", category=ImportWarning)
        officially(tmp_path, *drawn(0))
