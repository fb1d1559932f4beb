"""The alert of a diagnosis: how urgent, why, what that means, and what the level was set for.

alert = alert_of(diagnosis)
alert.tone, alert.title, alert.reason
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from derma_semantics.app.markup import Markup, Tone, box, element, folded
from derma_semantics.app.texts import (
    NOT_STATED,
    count,
    first_lower,
    first_upper,
    interval,
    percent,
    rate,
    typeset,
)
from derma_semantics.domain.conditions import RiskLevel
from derma_semantics.domain.contract import Triage
from derma_semantics.domain.diagnosis import Diagnosis
from derma_semantics.domain.numbers import significant

GROUPS = {"melanoma": "melanoma", "malignancy": "malignant or pre-malignant"}
MEANING = {
    "red": "In plain words: a dermatologist should look at a lesion like this first.",
    "amber": "In plain words: not alarming, but not safe to set aside. A dermatologist should see it too.",
    "neutral": "In plain words: nothing here asks for a review. That does not rule out cancer.",
}


@dataclass(frozen=True)
class Alert:
    tone: Tone
    title: str
    reason: str

    @property
    def meaning(self) -> str:
        return MEANING[self.tone]


def alert_of(diagnosis: Diagnosis) -> Alert:
    """Red for high risk, amber for review, neutral for the rest."""
    if diagnosis.high_risk:
        return Alert("red", "High risk", _why_high(diagnosis))
    if diagnosis.triage is Triage.REVIEW:
        return Alert("amber", "Review", _why(diagnosis))
    return Alert("neutral", "Routine", _why(diagnosis))


def alert_markup(diagnosis: Diagnosis) -> Markup:
    """The alert's box, with the calibration behind its level folded into it."""
    alert = alert_of(diagnosis)
    head = box(alert.tone, alert.title, alert.reason, alert.meaning)
    return element("div", [head, *_noticed(diagnosis), _calibrated(diagnosis)], "derma-alert")


def _noticed(diagnosis: Diagnosis) -> list[Markup]:
    """The result of the input check; nothing where no check fired, which is no praise."""
    if not diagnosis.quality:
        return []
    return [box("amber", "Look at the picture", *(first_upper(r.hint) + "." for r in diagnosis.quality))]


def _why_high(diagnosis: Diagnosis) -> str:
    top = diagnosis.top.condition
    if top.risk is not RiskLevel.HIGH:
        return _why(diagnosis)
    if diagnosis.triage is Triage.URGENT:
        return f"{first_upper(top.name)} ranks first. {_why(diagnosis)}"
    return f"{first_upper(top.name)} ranks first, which always raises this alert. {_why(diagnosis)}"


def _why(diagnosis: Diagnosis) -> str:
    """RISK against the thresholds, where the service states them."""
    risk = f"The risk score is {significant(diagnosis.risk)}"
    stated = diagnosis.bundle.calibration or {}
    review, urgent = stated.get("review"), stated.get("urgent")
    if review is None or urgent is None:
        return f"{risk}: {diagnosis.triage.name.lower()}."
    if diagnosis.triage is Triage.URGENT:
        return f"{risk}; {significant(urgent)} and above is urgent."
    if diagnosis.triage is Triage.REVIEW:
        return f"{risk}; {significant(review)} and above is review, {significant(urgent)} and above urgent."
    return f"{risk}; below {significant(review)} is routine."


def _calibrated(diagnosis: Diagnosis) -> Markup:
    """The aim of the deciding threshold and what it achieved. Routine is what review leaves."""
    level = "urgent" if diagnosis.triage is Triage.URGENT else "review"
    stated = diagnosis.bundle.calibration or {}
    promise = stated.get("guarantees", {}).get(level)
    rates = stated.get("achieved", {}).get(level)
    if not promise and not rates:
        return element("p", NOT_STATED, "derma-note")
    parts = [element("p", f"Set for: {first_lower(typeset(promise))}", "derma-note")] if promise else []
    if rates:
        parts += [_table(rates, level), *_in_counts(rates, level)]
    parts.append(folded("What this rests on", [*_measured_on(stated), *_ranked_first(diagnosis)]))
    return element("div", parts, "derma-calibration")


def _measured_on(stated: Mapping[str, Any]) -> list[Markup]:
    images = stated.get("calibration_set", {}).get("images")
    source = [f"Measured on {count(images, 'calibration image')}."] if images else []
    return [element("p", typeset(text)) for text in (*source, *stated.get("assumes", {}).values())]


def _table(rates: dict[str, Any], level: str) -> Markup:
    """Sensitivity never without specificity."""
    head = element("tr", [element("th", text) for text in (f"“{level}” finds", "sensitivity", "specificity")])
    rows = [
        element(
            "tr", [element("th", name), *(_cell(rates[key][kind]) for kind in ("sensitivity", "specificity"))]
        )
        for key, name in GROUPS.items()
        if {"sensitivity", "specificity"} <= rates.get(key, {}).keys()
    ]
    return element("table", [head, *rows], "derma-rates")


def _in_counts(rates: Mapping[str, Any], level: str) -> list[Markup]:
    found = rates.get("malignancy", {})
    if not {"sensitivity", "specificity"} <= found.keys():
        return []
    sick, benign = found["sensitivity"], found["specificity"]
    hits, alarms = round(sick["n"] * sick["value"]), round(benign["n"] * (1 - benign["value"]))
    text = (
        f"That is: {hits} of {sick['n']} malignant or pre-malignant lesions reached “{level}”, and so did "
        f"{alarms} of {benign['n']} benign ones."
    )
    return [element("p", text, "derma-note")]


def _ranked_first(diagnosis: Diagnosis) -> list[Markup]:
    """The precision of a first-ranked melanoma, where that raised the alert."""
    measured = (diagnosis.bundle.card or {}).get("measured", {})
    melanoma = measured.get("melanoma", {})
    if diagnosis.top.condition.code != "MEL" or not {"sensitivity", "specificity"} <= melanoma.keys():
        return []
    text = (
        f"Melanoma as best match, on {count(measured['images'], 'held-out image')}: "
        f"sensitivity {rate(melanoma['sensitivity'])}, specificity {rate(melanoma['specificity'])}."
    )
    return [element("p", text)]


def _cell(value: dict[str, Any]) -> Markup:
    return element("td", [element("b", percent(value["value"])), element("small", interval(value))])
