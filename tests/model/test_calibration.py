"""Calibration: what it promises holds over many draws, and no more carefully than it must."""

import json
import math
from decimal import Decimal

import numpy as np
import pytest
from crepes import ConformalClassifier
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import binom, binomtest

from derma_semantics.domain.conditions import CODES
from derma_semantics.evaluation.metrics import MALIGNANT, MELANOMA, risk_report
from derma_training.bundle import Calibration, write_calibration
from derma_training.calibration.conformal import (
    GROUPS,
    group_threshold,
    in_group,
    prediction_sets,
    set_thresholds,
)
from derma_training.calibration.report import readable
from derma_training.calibration.risk_control import (
    LOWEST,
    fewest_examples,
    highest_threshold,
    lowest_threshold,
    rounded_down,
    rounded_up,
)
from derma_training.calibration.scaling import Scaling, fit_scaling, prevalence_of
from derma_training.calibration.targets import MARGIN
from derma_training.calibration.thresholds import Targets, calibrate

DRAWS = 200
NINE_TENTHS = {"sensitivity": 0.95, "confidence": 0.9}
# More melanomas than in reality: with the 45 at least that a guarantee takes, in every draw.
SHARES = (0.13, 0.55, 0.06, 0.05, 0.13, 0.04, 0.04)
BY_PREVALENCE = Scaling(prevalence=SHARES)
# Powers of ten, and their neighbours.
EDGES = [float(np.nextafter(10.0**-n, side)) for n in range(18) for side in (0, 10.0**-n, 1)]


def images(count, seed):
    """Probabilities for equally frequent conditions, and labels, of one that errs like a real classifier."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(7, count, p=SHARES)
    logits = rng.normal(0, 1.2, (count, 7))
    logits[np.arange(count), labels] += 2.5
    return softmax(1.5 * logits, axis=1), labels


@pytest.fixture(scope="module")
def population():
    """The whole of a distribution, so that true rates are counted."""
    return images(20_000, seed=0)


@pytest.fixture(scope="module", params=["equally frequent", "by prevalence"])
def truths(request, population):
    """True rates of the calibrations of 200 samples of 600 images."""
    everyone, labels = population
    scaling, rows = Scaling() if request.param == "equally frequent" else BY_PREVALENCE, []
    for seed in range(DRAWS):
        drawn = np.random.default_rng(seed).integers(0, len(labels), 600)
        calibration = calibrate(everyone[drawn], labels[drawn], scaling, name="drawn")
        risk = scaling.risk(everyone)
        odds = MARGIN * calibration.review / (1 - calibration.review)
        bare = risk >= odds / (1 + odds)  # as it was chosen, without the margin
        own = everyone[np.arange(len(labels)), labels]
        sets = prediction_sets(everyone, calibration.prediction_set)
        covered = sets[np.arange(len(labels)), labels]
        passed = own >= np.array(calibration.set_thresholds)[labels]
        rows.append(
            {
                "with margin": (risk >= calibration.review)[labels == MELANOMA].mean(),
                "melanoma": bare[labels == MELANOMA].mean(),
                "malignancy": bare[MALIGNANT[labels]].mean(),
                "specificity": (risk < calibration.urgent)[~MALIGNANT[labels]].mean(),
                "coverage": [covered[in_group(group, labels)].mean() for group in GROUPS],
                "passed": [passed[in_group(group, labels)].mean() for group in GROUPS],
                "sizes": [in_group(group, labels[drawn]).sum() for group in GROUPS],
            }
        )
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


def test_review_keeps_its_promise_and_is_not_timid(truths):
    """Either sensitivity is missed in at most a tenth of the draws, and in some."""
    missed = (truths["melanoma"] < 0.95) | (truths["malignancy"] < 0.95)
    assert missed.sum() <= binom.ppf(0.999, DRAWS, 0.1)
    assert missed.sum() >= 1
    assert truths["melanoma"].mean() < truths["with margin"].mean() < 0.99
    assert len(set(truths["melanoma"])) > 50


def test_urgent_keeps_its_promise_and_is_not_timid(truths):
    missed = truths["specificity"] < 0.95
    assert binom.ppf(0.001, DRAWS, 0.03) <= missed.sum() <= binom.ppf(0.999, DRAWS, 0.1)
    assert truths["specificity"].mean() < 0.98


def test_prediction_sets_cover_every_group_on_average(truths):
    """Within the bounds of split conformal: at least 0.95, by threshold alone at most 1 / (n + 1) more."""
    for index, group in enumerate(GROUPS):
        covered, passed = truths["coverage"][:, index], truths["passed"][:, index]
        error = 3.3 * passed.std() / math.sqrt(DRAWS)
        assert covered.mean() >= 0.95 - error, group
        assert passed.mean() <= 0.95 + np.mean(1 / (truths["sizes"][:, index] + 1)) + error, group


@pytest.mark.parametrize(
    ("choose", "key"), [(highest_threshold, "sensitivity"), (lowest_threshold, "specificity")]
)
def test_the_error_rate_is_that_of_the_exact_test(choose, key):
    """A score whose true rate at every threshold is known: misses occur as often as theory says."""
    count, errors = 100, 1  # of 100, one error proves 0.95 with 0.9, two do not
    assert binom.cdf(errors, count, 0.05) < 0.1 < binom.cdf(errors + 1, count, 0.05)
    missed = 0
    for seed in range(1000):
        scores = np.random.default_rng(seed).uniform(size=count)
        truth = np.full(count, key == "sensitivity")
        threshold = choose(scores, truth, **{key: 0.95, "confidence": 0.9})
        missed += (1 - threshold if key == "sensitivity" else threshold) < 0.95
    rate = binom.cdf(errors, count, 0.05)
    assert binom.ppf(0.001, 1000, rate) <= missed <= binom.ppf(0.999, 1000, rate)


def exact_threshold(scores, positive, sensitivity, confidence, largest):
    """The fixed sequence of exact binomial tests over ten thousand thresholds up to ``largest``, spelled out.

    ``largest`` is a power of ten: for scores of a tenth of it and more these have four significant digits.
    """
    found, positives = None, scores[positive]
    for step in range(10_001):
        misses = int((positives < step * largest / 1e4).sum())
        if binomtest(misses, len(positives), 1 - sensitivity, alternative="less").pvalue > 1 - confidence:
            return found
        found = step * largest / 1e4
    return found


@pytest.mark.parametrize("count", [45, 49, 93, 147, 187, 504])
@pytest.mark.parametrize("largest", [1.0, 0.001])
def test_mapie_agrees_with_the_exact_binomial_test(count, largest):
    """Up to one miss on the safe side, where its rounding of a rate costs one."""
    rng = np.random.default_rng(count)
    scores, positive = rng.beta(3, 2, 2 * count) * largest, np.arange(2 * count) < count
    threshold = highest_threshold(scores, positive, **NINE_TENTHS)
    exact = exact_threshold(scores, positive, **NINE_TENTHS, largest=largest)
    misses = [(scores[positive] < t).sum() for t in (threshold, exact)]
    assert misses[0] in ((misses[1] - 1, misses[1]) if count >= 147 else (misses[1],))
    hits = binomtest(int(count - misses[0]), count).proportion_ci(0.8, method="exact")
    assert hits.low >= 0.95  # one-sided 0.9
    if misses[0] == misses[1]:
        assert exact - 2.1e-4 * largest <= threshold <= exact * (1 + 1e-12)


def test_higher_aims_cost_more():
    drawn = images(600, seed=5)
    plain = calibrate(*drawn, Scaling(), name="drawn")
    surer = calibrate(*drawn, Scaling(), name="drawn", targets=Targets(confidence=0.95))
    lower = calibrate(*drawn, Scaling(), name="drawn", targets=Targets(sensitivity=0.9, specificity=0.9))
    wider = calibrate(*drawn, Scaling(), name="drawn", targets=Targets(coverage=0.98))
    assert surer.review < plain.review < lower.review
    assert lower.urgent < plain.urgent < surer.urgent
    assert all(w <= p for w, p in zip(wider.set_thresholds, plain.set_thresholds, strict=True))
    assert wider.set_thresholds != plain.set_thresholds


def test_an_engine_that_moves_every_risk_keeps_the_promise():
    """Down by nearly the margin: what is still found proves the sensitivities as before."""
    probabilities, labels = images(600, seed=5)
    review = calibrate(probabilities, labels, Scaling(), name="drawn").review
    risk = probabilities[:, MALIGNANT].sum(axis=1)
    odds = risk / (1 - risk) / (0.99 * MARGIN)
    found = odds / (1 + odds) >= review
    for positive in (labels == MELANOMA, MALIGNANT[labels]):
        hits = binomtest(int(found[positive].sum()), int(positive.sum())).proportion_ci(0.8, method="exact")
        assert hits.low >= 0.95  # one-sided 0.9


def test_urgent_is_never_below_review():
    drawn = images(600, seed=6)
    calibration = calibrate(
        *drawn, Scaling(), name="drawn", targets=Targets(sensitivity=0.5, specificity=0.05)
    )
    assert calibration.urgent == calibration.review > 0


def test_too_few_examples_are_said_and_safe():
    assert fewest_examples(0.95, 0.9) == 45
    probabilities, labels = images(60, seed=1)
    labels[:] = np.arange(60) % 7  # 9 melanomas, 25 malignant, 35 benign
    calibration = calibrate(probabilities, labels, Scaling(), name="few")
    assert (calibration.review, calibration.urgent) == (0.0, 1.0)
    assert calibration.set_thresholds == [0.0, 0.0, 0.0, 0.0, *[calibration.prediction_set["BKL"]] * 3]
    guarantees = calibration.report["guarantees"]
    assert "9 melanomas cannot prove" in guarantees["review"]
    assert "takes 45: everything is reviewed" in guarantees["review"]
    assert "only a RISK of 1 is urgent" in guarantees["urgent"]
    assert "Too few examples of MEL, BCC, AKIEC, NV: always in the set" in guarantees["prediction_set"]
    for absent in (MELANOMA, CODES.index("NV")):
        kept = labels != absent
        without = calibrate(probabilities[kept], labels[kept], Scaling(), name="none")
        assert without.prediction_set[CODES[absent]] == 0
        assert readable(without)


def test_one_melanoma_decides():
    """With 44 of them nothing can be promised, with 45 all must be found."""
    scores = np.linspace(0.3, 0.9, 45)
    assert highest_threshold(scores[1:], np.ones(44, bool), **NINE_TENTHS) is None
    assert highest_threshold(scores, np.ones(45, bool), **NINE_TENTHS) == 0.2999


def test_rounding_goes_outwards():
    """By more than fp32 errs, also where a value has four digits itself."""
    values = np.array([0.0, 1e-7, 0.001, 0.29070000, 0.29070001, 0.2907999, 0.9999999, 1.0])
    down = [0, 9.999e-8, 0.0009999, 0.2906, 0.2906, 0.2907, 0.9998, 0.9999]
    up = [1.001e-15, 1.001e-7, 0.001001, 0.2908, 0.2908, 0.2909, 1, 1]
    assert rounded_down(values).tolist() == down
    assert rounded_up(values).tolist() == up


@given(st.one_of(st.floats(0, 1), st.floats(-17, 0).map(lambda power: 10**power), st.sampled_from(EDGES)))
def test_rounding_is_safe_at_every_magnitude(value):
    """Below and above in fp32 too, by little, and with four significant digits as they are written."""
    low, high = (float(rounded(np.array(value))) for rounded in (rounded_down, rounded_up))
    assert 0 <= low <= value
    assert value < high <= 1 or value == high == 1
    if value > 1.001 * LOWEST:
        assert np.float32(low) < np.float32(value)
        assert value * (1 - 1.11e-3) < low
        assert high < value * (1 + 1.11e-3)
        assert len(Decimal(str(low)).normalize().as_tuple().digits) <= 4
    if value < 1 - 1e-7:
        assert np.float32(value) < np.float32(high)
    assert len(Decimal(str(high)).normalize().as_tuple().digits) <= 4


def test_prediction_sets_equal_those_of_crepes():
    probabilities, labels = images(500, seed=3)
    others, _ = images(500, seed=4)
    # Exactly on a threshold both take the condition; rounding down only ever takes more.
    thresholds = set_thresholds(probabilities, labels, coverage=0.95)
    group_of = {code: index for index, group in enumerate(GROUPS) for code in group}
    bins = np.array([group_of[CODES[label]] for label in labels])
    conformal = ConformalClassifier().fit(1 - probabilities[np.arange(500), labels], bins=bins)
    for index, code in enumerate(CODES):
        p_values = conformal.predict_p(
            1 - others[:, [index]], bins=np.full(500, group_of[code]), smoothing=False
        )[:, 0]
        ours = others[:, index] >= thresholds[code]
        theirs = p_values > 0.05 - 1e-12
        rounded = np.abs(others[:, index] - thresholds[code]) < 2.1e-4
        assert (ours == theirs)[~rounded].all(), code
        assert (ours >= theirs).all(), code
        assert 0 < ours.mean() < 1
        assert rounded.mean() < 0.05


def test_the_quantile_by_hand():
    """Of 39 examples the second lowest, of 19 the lowest, of 18 none proves 0.95."""
    probabilities = (np.arange(1, 40) + 0.5) / 100
    assert group_threshold(probabilities, 0.95) == pytest.approx(0.02499)
    assert group_threshold(probabilities[:38], 0.95) == pytest.approx(0.01499)
    assert group_threshold(probabilities[:19], 0.95) == pytest.approx(0.01499)
    assert group_threshold(probabilities[:18], 0.95) == 0


def test_risk_by_hand():
    """Where two nevi come to a melanoma, and nothing else, even doubt between them is a third."""
    probabilities = np.array([[0.5, 0.5, 0, 0, 0, 0, 0], [0.2, 0.2, 0.2, 0.2, 0.1, 0.1, 0]])
    assert Scaling().risk(probabilities) == pytest.approx([0.5, 0.6])
    prevalence = prevalence_of(np.array([0] * 19 + [1] * 39))
    assert prevalence == pytest.approx([20 / 65, 40 / 65, *[1 / 65] * 5])
    risk = Scaling(prevalence=prevalence).risk(probabilities)
    assert risk == pytest.approx([1 / 3, (4 + 0.2 + 0.2) / (4 + 8 + 0.2 + 0.2 + 0.1 + 0.1)])


def test_risk_by_prevalence_is_a_probability_and_spares_more():
    """As many are malignant as RISK says; were all conditions equally frequent, it would say too many."""
    probabilities, labels = images(4000, seed=7)
    reports = [
        risk_report(scaling.risk(probabilities), labels, np.ones(4000, bool))
        for scaling in (Scaling(), BY_PREVALENCE)
    ]
    equal, weighed = reports
    assert weighed["mean"] == pytest.approx(weighed["malignant"]["value"], abs=0.03)
    assert weighed["mean"] == pytest.approx(0.24, abs=0.03)
    assert weighed["expected_calibration_error"] < equal["expected_calibration_error"] / 2
    assert weighed["malignancy_auc"] > equal["malignancy_auc"]
    spared = [
        calibrate(probabilities, labels, scaling, name="drawn").report["achieved"]["review"]["malignancy"]
        for scaling in (Scaling(), BY_PREVALENCE)
    ]
    assert spared[1]["specificity"]["value"] > spared[0]["specificity"]["value"]


def test_the_report_says_how_risk_is_weighed():
    drawn = images(600, seed=8)
    equal, weighed = (calibrate(*drawn, scaling, name="drawn") for scaling in (Scaling(), BY_PREVALENCE))
    assert equal.report["assumes"]["prevalence"].startswith("Probabilities and RISK are those of a clinic")
    assert "MEL 13%, NV 55%, BCC 6%" in weighed.report["assumes"]["prevalence"]
    assert weighed.prediction_set == equal.prediction_set  # probabilities are as they were
    assert weighed.frequencies == pytest.approx(SHARES)


def test_malignancy_may_be_rare():
    """Where it is so, thresholds are as low as RISK, and find and spare as many as elsewhere."""
    drawn = images(600, seed=8)
    equal = calibrate(*drawn, Scaling(), name="drawn").report["achieved"]["review"]["malignancy"]
    for share in (0.1, 1e-3, 1e-5):
        rare = np.where(MALIGNANT, share, 1.0)
        calibration = calibrate(*drawn, Scaling(prevalence=tuple(rare / rare.sum())), name="drawn")
        assert 0 < calibration.review < calibration.urgent < 10 * share
        found = calibration.report["achieved"]["review"]
        assert found["melanoma"]["sensitivity"]["value"] >= 0.95
        assert found["malignancy"]["sensitivity"]["value"] >= 0.95
        assert "MEL 0%" not in calibration.report["assumes"]["prevalence"]
        spared = found["malignancy"]["specificity"]["value"]
        assert spared == pytest.approx(equal["specificity"]["value"], abs=0.01)


def test_malignancy_without_any_risk_is_said_and_safe():
    probabilities, labels = images(600, seed=8)
    probabilities[np.ix_(MALIGNANT[labels], MALIGNANT)] = 0
    calibration = calibrate(probabilities, labels, Scaling(), name="drawn")
    assert calibration.review == 0
    assert "everything is reviewed" in calibration.report["guarantees"]["review"]
    assert "RISK is 0 for malignant lesions" in readable(calibration)


def test_scaling_is_recovered():
    """A temperature that was put in comes out again, and makes the answers right."""
    rng = np.random.default_rng(1)
    true = softmax(rng.normal(0, 2, (6000, 7)), axis=1)
    labels = np.array([rng.choice(7, p=p) for p in true])
    assert fit_scaling(true, labels).temperature == pytest.approx(1, abs=0.1)
    sharpened = softmax(3 * np.log(true), axis=1)
    found = fit_scaling(sharpened, labels, name="these")
    assert found.temperature == pytest.approx(3, abs=0.3)
    assert (found.bias, found.fitted_on) == ((0.0,) * 7, "these")
    assert np.abs(found.apply(sharpened) - true).mean() < 0.02


def test_scaling_weighs_conditions_equally():
    """90 nevi that are told weigh as much as 10 dermatofibromas that are missed."""
    sure = np.full(7, 0.01)
    sure[CODES.index("NV")] = 0.94
    probabilities = np.tile(sure, (100, 1))
    labels = np.array([CODES.index("NV")] * 90 + [CODES.index("DF")] * 10)
    scaled = fit_scaling(probabilities, labels).apply(probabilities[:1])
    assert scaled[0, CODES.index("NV")] == pytest.approx(0.5, abs=0.01)


def test_the_report_says_what_was_aimed_at_and_reached(tmp_path):
    probabilities, labels = images(700, seed=2)
    probabilities[:5, 6] = 0  # as fp32 underflows
    calibration = calibrate(probabilities, labels, Scaling(), name="drawn")
    write_calibration(tmp_path, calibration)
    assert Calibration(**json.loads((tmp_path / "calibration.json").read_text())) == calibration
    report = calibration.report
    assert report["targets"] == {
        "sensitivity": 0.95,
        "specificity": 0.95,
        "coverage": 0.95,
        "confidence": 0.9,
    }
    melanoma = report["achieved"]["review"]["melanoma"]["sensitivity"]
    assert melanoma["n"] == report["calibration_set"]["conditions"]["MEL"] == (labels == MELANOMA).sum()
    assert melanoma["interval_95"][0] < melanoma["value"] >= 0.95
    assert report["achieved"]["urgent"]["malignancy"]["specificity"]["value"] >= 0.95
    sets = report["achieved"]["prediction_set"]
    assert sets["coverage"]["value"] >= 0.95
    assert 1 < sets["mean_size"] < 7
    assert list(sets["coverage_of_groups"]) == ["MEL", "BCC+AKIEC", "NV", "BKL+DF+VASC"]
    assert "exchangeable" in report["assumes"]["exchangeability"]
    assert 0 < calibration.review < calibration.urgent < 1


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ({"sensitivity": 1}, "sensitivity must lie between"),
        ({"coverage": 0.9}, "coverage must be at least 0.95"),
    ],
)
def test_impossible_targets_are_refused(targets, message):
    with pytest.raises(ValueError, match=message):
        Targets(**targets)
