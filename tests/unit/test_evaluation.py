"""Figures by hand, against the official scorer, and what reports do with too little to go on."""

import csv
import json
import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from derma_semantics.conditions import CODES
from derma_semantics.evaluation import metrics, official
from derma_semantics.evaluation.bootstrap import intervals_95, resamples
from derma_semantics.evaluation.metrics import UNDECIDED, measure
from derma_semantics.evaluation.plots import draw_risk
from derma_semantics.evaluation.report import Answers, report_on, write_report
from derma_semantics.evaluation.subgroups import age_band, subgroups
from derma_semantics.evaluation.summary import summary
from derma_semantics.evaluation.truth import Case, read_truth, write_truth
from derma_semantics.prevalence import at_prevalence

NAMES = tuple(f"ISIC_{number:07d}" for number in range(2000))


def drawn(seed, images=280, *, signal=1.5, ties=0.0):
    """Probabilities and labels; every condition occurs. A share of the rows has two maxima."""
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % 7
    logits = rng.normal(0, 1, (images, 7))
    logits[np.arange(images), labels] += signal
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    if ties:
        probabilities = np.round(probabilities * 8) / 8  # coarse values tie within rows and columns
        assert (metrics.decide(probabilities) == UNDECIDED).mean() > ties
    return probabilities, labels


def cases_of(labels, lesions=None, **about):
    lesions = lesions or NAMES
    return [
        Case(NAMES[i], int(label), lesions[i], **{key: values[i] for key, values in about.items()})
        for i, label in enumerate(labels)
    ]


def answers_of(probabilities):
    risk = probabilities[:, metrics.MALIGNANT].sum(axis=1)
    return Answers(probabilities, risk, (risk > 0.3).astype(int) + (risk > 0.7), probabilities > 0.1)


def officially(folder, probabilities, labels):
    write_truth(folder / "truth.csv", cases_of(labels))
    official.write_submission(folder / "submission.csv", NAMES[: len(labels)], probabilities)
    return official.score(folder / "truth.csv", folder / "submission.csv")


# Figures by hand


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


# The official scorer


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


# Intervals


def test_lesions_and_not_images_are_resampled():
    """Ten copies of each picture know no more than one."""
    probabilities, labels = drawn(7, 140, signal=1.0)
    lesions = [f"L{i}" for i in range(140)]
    alone = intervals_95(probabilities, labels, lesions, draws=400)
    copied = (np.repeat(probabilities, 10, axis=0), np.repeat(labels, 10))
    clustered = intervals_95(*copied, np.repeat(lesions, 10).tolist(), draws=400)
    naive = intervals_95(*copied, [f"I{i}" for i in range(1400)], draws=400)
    for name in ("balanced_accuracy", "accuracy", "macro_auc"):
        one, many, wrong = (i[name][1] - i[name][0] for i in (alone, clustered, naive))
        assert many == pytest.approx(one, rel=0.25)
        assert wrong < 0.45 * many  # a factor of the root of ten, less chance


def test_rare_conditions_never_vanish_from_a_draw():
    labels = np.array([0] * 3 + [1] * 200)
    lesions = [f"L{i // 2}" for i in range(203)]
    for rows in resamples(labels, ["a", "a", "b", *lesions[3:]], seed=0, draws=50):
        assert set(labels[rows]) == {0, 1}
        drawn_rare = rows[rows < 2]
        assert (drawn_rare == 0).sum() == (drawn_rare == 1).sum()  # a lesion's images stay together


def test_intervals_are_seeded_and_honest_about_single_lesions():
    probabilities, labels = drawn(0, 70)
    first, again, other = (
        intervals_95(probabilities, labels, NAMES[:70], seed=seed, draws=50) for seed in (0, 0, 1)
    )
    assert first == again != other
    low, high = first["balanced_accuracy"]
    assert low < measure(probabilities, labels)["balanced_accuracy"]["value"] < high
    single = intervals_95(probabilities, labels, ["one"] * 70, draws=50)
    assert set(single) == set(first) and set(single.values()) == {None}


def test_interval_covers_the_truth_about_as_often_as_it_says():
    """Balanced accuracy of a classifier that is right with probability 0.7."""
    rng = np.random.default_rng(0)
    labels = np.arange(210) % 7
    hits = 0
    for seed in range(60):
        right = rng.random(210) < 0.7
        predicted = np.where(right, labels, (labels + 1) % 7)
        low, high = intervals_95(np.eye(7)[predicted], labels, NAMES[:210], seed=seed, draws=150)["accuracy"]
        hits += low <= 0.7 <= high
    assert 52 <= hits <= 60


# Subgroups


def test_subgroups_state_counts_always_and_figures_where_they_can():
    probabilities, labels = drawn(2, 700)
    about = {
        "age": [None if i >= 690 else (80.0 if i < 20 else 50.0) for i in range(700)],
        "sex": ["female" if i % 2 else "male" for i in range(700)],
        "site": [None] * 700,
    }
    lesions = [f"L{i // 2}" for i in range(700)]
    given = answers_of(probabilities)
    groups = subgroups(cases_of(labels, lesions, **about), probabilities, given.risk, given.triage)
    assert list(groups["age"]) == ["45-59", "75+", "unknown"]
    assert sum(g["images"] for g in groups["sex"].values()) == 700
    assert groups["site"]["unknown"]["lesions"] == 350
    old = groups["age"]["75+"]
    assert old["images"] == 20 and old["images_of"]["MEL"] == 3
    assert old["balanced_accuracy"] is old["accuracy"] is old["melanoma_auc"]["value"] is None
    assert (old["melanoma_auc"]["positives"], old["melanoma_auc"]["negatives"]) == (3, 17)
    melanoma = old["review"]["melanoma"]
    assert melanoma["sensitivity"]["value"] is melanoma["specificity"]["value"] is None
    assert (melanoma["sensitivity"]["n"], melanoma["specificity"]["n"]) == (3, 17)
    many = groups["site"]["unknown"]
    whole = measure(probabilities, labels)
    assert many["balanced_accuracy"] == whole["balanced_accuracy"]["value"]
    assert many["melanoma_auc"]["value"] == whole["conditions"]["MEL"]["auc"]


def test_age_bands():
    ages = (0, 29.9, 30, 44, 45, 59, 60, 74, 75, 100, None)
    bands = ("<30", "<30", "30-44", "30-44", "45-59", "45-59", "60-74", "60-74", "75+", "75+", "unknown")
    assert tuple(map(age_band, ages)) == bands


# The report


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    probabilities, labels = drawn(4, 350)
    sex = ["female" if i % 2 else "male" for i in range(350)]
    cases = cases_of(labels, sex=sex)
    return out, write_report(out, cases, answers_of(probabilities), {"scorer": "test"}), cases


def test_report_is_written_whole(written):
    out, report, cases = written
    assert json.loads((out / "metrics.json").read_text()) == report
    assert next(iter(report)) == "scorer"
    assert report["official"]["balanced_accuracy"] == pytest.approx(report["balanced_accuracy"]["value"])
    assert [c.condition for c in read_truth(out / "truth.csv")] == [c.condition for c in cases]
    again = official.score(out / "truth.csv", out / "submission.csv")
    assert again == report["official"]


@pytest.mark.parametrize(
    ("name", "least_colours"), [("confusion", 15), ("roc", 7), ("reliability", 3), ("risk", 3)]
)
def test_plots_show_something(written, name, least_colours):
    with Image.open(written[0] / f"{name}.png") as image:
        assert min(image.size) >= 850
        colours = image.convert("RGB").getcolors(maxcolors=2**20)
    large = [count for count, _ in colours if count > 300]
    assert len(large) >= least_colours


def test_plots_survive_what_is_missing(tmp_path):
    labels = np.array([1] * 12)
    report = write_report(tmp_path, cases_of(labels), answers_of(np.zeros((12, 7))))
    assert report["accuracy"] == 0
    assert all(
        (tmp_path / f"{name}.png").stat().st_size > 5000
        for name in ("confusion", "roc", "reliability", "risk")
    )
    assert "- " in summary(report)


@pytest.mark.parametrize(("label", "risk"), [(1, 0.0), (1, 0.2), (0, 0.9), (0, 1e-12)])
def test_risk_is_drawn_on_logarithmic_axes_whatever_it_is(tmp_path, label, risk):
    """Zeros, bins with none or only malignant ones, and thresholds at the ends."""
    labels, given = np.full(30, label), np.linspace(risk, risk / 2, 30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_risk(tmp_path / "risk.png", given, labels, {"review": 0.0, "urgent": 1.0})
    assert (tmp_path / "risk.png").stat().st_size > 5000


def test_no_figure_stands_alone(written):
    """Accuracy only beside balanced accuracy, sensitivity only beside specificity."""
    text = summary(written[1])
    for line in text.splitlines():
        if "accuracy" in line:
            assert "balanced accuracy" in line
        assert line.count("sensitivity") == line.count("specificity")
    assert f"   accuracy {written[1]['accuracy']:.3f}" in text
    assert "official scorer     isic-challenge-scoring" in text
    older = {key: value for key, value in written[1].items() if key != "risk"}
    assert set(text.splitlines()) - set(summary(older).splitlines()) == {
        line for line in text.splitlines() if line.startswith("RISK ")
    }

    def check(node):
        if isinstance(node, dict):
            assert ("sensitivity" in node) == ("specificity" in node)
            if "per_category" not in node and "ppv" not in node:  # of the official scorer's own form
                assert "accuracy" not in node or "balanced_accuracy" in node or "confidence" in node
            for value in node.values():
                check(value)

    check({key: value for key, value in written[1].items() if key != "intervals_95"})


def test_report_without_a_folder_is_the_same(written):
    _, report, cases = written
    probabilities, _ = drawn(4, 350)
    same = report_on(cases, answers_of(probabilities))
    assert same == {key: value for key, value in report.items() if key != "scorer"}


# The ground truth


@pytest.fixture
def folder(tmp_path):
    """Three images, one of each suffix, and their ground truth."""
    (tmp_path / "images").mkdir()
    for name, suffix in zip(NAMES, (".jpg", ".jpeg", ".PNG"), strict=False):
        (tmp_path / "images" / f"{name}{suffix}").write_bytes(b"x")
    write_truth(tmp_path / "truth.csv", cases_of([0, 1, 6]))
    return tmp_path


def test_truth_is_read_with_and_without_metadata(folder):
    cases = read_truth(folder / "truth.csv", folder / "images")
    assert [case.condition for case in cases] == [0, 1, 6]
    assert [case.path.suffix for case in cases] == [".jpg", ".jpeg", ".PNG"]
    assert [case.lesion for case in cases] == [case.name for case in cases]
    ham = "lesion_id,image_id,dx,age,sex,localization\n" + "".join(
        f"HAM_1,{name},nv,{age},{sex},{site}\n"
        for name, age, sex, site in zip(
            NAMES, ("45.0", "", "nan"), ("male", "unknown", "Female"), ("trunk", "face", ""), strict=False
        )
    )
    archive = ham.replace("image_id", "isic_id").replace(",age,", ",age_approx,")
    archive = archive.replace("localization", "anatom_site_general")
    for table in (ham, archive, "\ufeff" + ham):
        (folder / "about.csv").write_text(table)
        first, second, third = read_truth(folder / "truth.csv", folder / "images", folder / "about.csv")
        assert (first.lesion, first.age, first.sex, first.site) == ("HAM_1", 45, "male", "trunk")
        assert (second.age, second.sex, second.site) == (None, None, "face")
        assert (third.age, third.sex, third.site) == (None, "female", None)
    (folder / "about.csv").write_text("image,lesion_id\n" + "".join(f"{n},L\n" for n in NAMES[:3]))
    assert {case.lesion for case in read_truth(folder / "truth.csv", metadata=folder / "about.csv")} == {"L"}


HEADER = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER, "truth.csv holds no image"),
        (HEADER.replace(",DF", ""), "truth.csv lacks the columns DF"),
        (HEADER.strip() + ",UNK\n", "truth.csv has the unknown columns UNK"),
        (HEADER + "a,1,0,0,0,0,0,0\nb,1.0,1.0,0,0,0,0,0\n", "line 3: image b has 2 conditions"),
        (HEADER + "a,0,0,0,0,0,0,0\n", "line 2: image a has 0 conditions"),
        (HEADER + "a,0.5,0.5,0,0,0,0,0\n", "line 2: image a has 0 conditions at 1.0"),
        (HEADER + "a,x,0,0,0,0,0,0\n", "line 2: image a, MEL is 'x', expected a number"),
        (HEADER + "a,1,0,0\n", "line 2: expected 8 fields"),
        (HEADER + "a,1,0,0,0,0,0,0\na,1,0,0,0,0,0,0\n", "line 3: image 'a' again"),
        (HEADER + ",1,0,0,0,0,0,0\n", "line 2: image '' has no name"),
    ],
)
def test_bad_truth_is_named(tmp_path, text, message):
    (tmp_path / "truth.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_truth(tmp_path / "truth.csv")


def test_missing_images_and_bad_metadata_are_named(folder):
    (folder / "about.csv").write_text("image,age\nISIC_0000000,forty\nISIC_0000001,\nISIC_0000002,\n")
    with pytest.raises(ValueError, match=r"about.csv, line 2: age is 'forty', expected a number"):
        read_truth(folder / "truth.csv", folder / "images", folder / "about.csv")
    (folder / "about.csv").write_text("image,age\nISIC_0000000,40\n")
    with pytest.raises(ValueError, match="lacks 2 of 3 images, e.g. ISIC_0000001"):
        read_truth(folder / "truth.csv", folder / "images", folder / "about.csv")
    (folder / "about.csv").write_text("picture\nISIC_0000000\n")
    with pytest.raises(ValueError, match="has none of the columns image_id, image, isic_id"):
        read_truth(folder / "truth.csv", folder / "images", folder / "about.csv")
    (folder / "images" / "ISIC_0000001.jpeg").unlink()
    with pytest.raises(ValueError, match=r"images lacks 1 of the 3 images of .*truth.csv, e.g. ISIC_0000001"):
        read_truth(folder / "truth.csv", folder / "images")


# The extra


def test_missing_packages_name_the_extra():
    code = (
        "import sys; sys.modules['isic_challenge_scoring'] = None\n"
        "import derma_semantics, derma_semantics.cli\n"
        "print([m for m in ('scipy', 'pandas', 'matplotlib', 'sklearn') if m in sys.modules])\n"
        "import derma_semantics.evaluation"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]"
    assert "evaluation needs isic_challenge_scoring: pip install 'derma-semantics[evaluate]'" in done.stderr
