"""Triage thresholds and prediction sets from a calibration set.

    calibration = calibrate(probabilities, labels, scaling, name="calibration part")
    calibration.review, calibration.report["achieved"]["review"]["melanoma"]

The probabilities are scaled already, by a ``Scaling`` that was fitted on other images; it also says how RISK
weighs them. Thresholds are set on the calibration set as it is.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from derma_semantics.domain.conditions import CODES
from derma_semantics.evaluation.metrics import MALIGNANT, MELANOMA, Floats, Ints
from derma_training.bundle import Calibration
from derma_training.calibration.conformal import set_thresholds
from derma_training.calibration.report import report
from derma_training.calibration.risk_control import highest_threshold, lowest_threshold, rounded_down
from derma_training.calibration.scaling import Scaling
from derma_training.calibration.targets import DEFAULTS, MARGIN, Targets

SAME_IMAGES = (
    "The scaling was fitted on the images that chose the thresholds, which no theorem allows for: the "
    "guarantees hold but for what its few numbers can adapt to them."
)


def calibrate(
    probabilities: Floats, labels: Ints, scaling: Scaling, *, name: str, targets: Targets = DEFAULTS
) -> Calibration:
    """Choose thresholds.

    ``review`` is the highest threshold on RISK that meets both sensitivities, less a margin for
    engines that compute in bf16 or int8, or 0 - everything is reviewed - where the set is too small
    to tell. ``urgent`` is the lowest that meets the specificity, or 1, and never below ``review``.

    Args:
        probabilities: scaled, shape (N, 7).
        labels: condition indices, shape (N,); one image a lesion.
        scaling: what they were scaled with.
        name: what the calibration set is, for the report.
    """
    risk = scaling.risk(probabilities)
    review = _review(risk, labels, targets)
    calibration = Calibration(
        scaling.temperature,
        dict(zip(CODES, scaling.prevalence, strict=True)),
        review=review,
        margin=MARGIN,
        urgent=max(review, _urgent(risk, labels, targets)),
        prediction_set=set_thresholds(probabilities, labels, coverage=targets.coverage),
    )
    source = scaling.prevalence_from
    facts = report(
        calibration, probabilities, risk, labels, name=name, prevalence_from=source, targets=targets
    )
    if scaling.fitted_on == name:
        facts["assumes"] = {**facts["assumes"], "scaling": SAME_IMAGES}
    return replace(calibration, report={**facts, "scaling_fitted_on": scaling.fitted_on})


def _review(risk: Floats, labels: Ints, targets: Targets) -> float:
    wanted = {"sensitivity": targets.sensitivity, "confidence": targets.confidence}
    melanoma = highest_threshold(risk, labels == MELANOMA, **wanted)
    malignancy = highest_threshold(risk, MALIGNANT[labels], **wanted)
    return _with_margin(min(melanoma or 0.0, malignancy or 0.0))


def _with_margin(threshold: float) -> float:
    """A lower one, whose odds are ``MARGIN`` times less."""
    return float(rounded_down(np.array(threshold / (threshold + MARGIN * (1 - threshold)))))


def _urgent(risk: Floats, labels: Ints, targets: Targets) -> float:
    wanted = {"specificity": targets.specificity, "confidence": targets.confidence}
    found = lowest_threshold(risk, MALIGNANT[labels], **wanted)
    return 1.0 if found is None else found
