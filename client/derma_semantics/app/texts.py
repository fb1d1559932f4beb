"""Texts of the page, and its format of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from derma_semantics.domain.contract import MAX_ENCODED_BYTES, MAX_PIXELS, SET_COVERAGE
from derma_semantics.saliency import NO_MAPS

LEAD = (
    "Ranks seven skin conditions by how well a dermoscopic photograph matches their written definitions, "
    "and shows where in the photograph the match comes from."
)
RANDOM = "Nobody trained these weights: every answer below is meaningless."
LIMITS = (
    f"At most {MAX_ENCODED_BYTES >> 20} MiB and {MAX_PIXELS / 1e6:.0f} megapixels. Images stay in memory and "
    "are forgotten when you leave; of a DICOM file only the picture is read."
)
SAMPLE = "Drawn by a program: no patient, and no disease."
EQUAL = (
    "Probabilities assume that all seven conditions are equally frequent: they rank, and are no prevalence. "
    "The risk score is the probability of a malignant or pre-malignant lesion at the bundle's prevalence. "
    "Any picture gets an answer, also one that shows no lesion."
)
SET = (
    "Conditions in bold stay possible: such sets hold the true condition for at least "
    f"{100 * SET_COVERAGE:.0f}\u00a0% of images like those of the calibration. Open a condition to read its "
    "definitions."
)
NOT_STATED = "The service does not state what this level was calibrated for."

SERVICE_DOWN = "The service does not answer"
SALIENCY_DOWN = "Heat maps are not available"
CHECKING = "This page looks again every few seconds and goes on by itself."
SERVICE_HINT = f"“make serve” starts it. {CHECKING}"
SALIENCY_HINT = f"Everything else works. {CHECKING} {NO_MAPS}"
NO_ANSWER = "The image was not classified"
NOT_READY = "the server runs, but its model is not ready"
WAITING = "The image will be classified when the service is back."

XRAY = (
    "Which parts of the photograph speak for a text, against the other conditions? Choose a condition or "
    "type your own words."
)
XRAY_CAUTION = (
    "A heat map shows what the network used. It proves no diagnosis, and it is blank where the network saw "
    "nothing: outside the central square."
)
NO_MAP = "No heat map for this text"
UNREADABLE = "This image cannot be read"
NOTHING_YET = "Choose a dermoscopic photograph to see its differential."
OTHER_WEIGHTS = (
    "The heat maps come from other weights than the answer above: one of the services was updated."
)


def batch_stopped(missing: int) -> str:
    verb = "was" if missing == 1 else "were"
    return f"{count(missing, 'image')} {verb} not classified. Start again when it is back."


def sentence(error: Exception) -> str:
    """An error's message, with a capital and a full stop."""
    return f"{first_upper(str(error)).rstrip('.')}."


def percent(share: float) -> str:
    """A share in [0, 1] in whole percent; what is not quite none or all is not rounded to it."""
    if 0 < share <= 0.005:
        return "<1\u00a0%"
    if 0.995 <= share < 1:
        return ">99\u00a0%"
    return f"{100 * share:.0f}\u00a0%"


def count(number: int, singular: str, plural: str | None = None) -> str:
    """``1 image``, ``2 images``."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def rate(value: Mapping[str, Any]) -> str:
    """A share with its interval and, where it is stated, its count."""
    return f"{percent(value['value'])} ({interval(value)})"


def interval(value: Mapping[str, Any]) -> str:
    """``95 % interval 93–100 %, n = 49``."""
    low, high = value["interval_95"]
    number = f", n = {value['n']}" if "n" in value else ""
    return f"95\u00a0% interval {100 * low:.0f}–{100 * high:.0f}\u00a0%{number}"


def typeset(text: str) -> str:
    """With no line break between a number and its percent sign."""
    return text.replace(" %", "\u00a0%")


def first_upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def first_lower(text: str) -> str:
    return text[:1].lower() + text[1:]
