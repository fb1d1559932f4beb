"""The model card in short: what is served, what it was made and measured with, and its digests.

render(served)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from derma_semantics.app import texts
from derma_semantics.app.markup import Markup, box, element, show
from derma_semantics.domain.diagnosis import ServedBundle
from derma_semantics.domain.numbers import significant


def render(served: ServedBundle | None) -> None:
    if served is None:
        show(box("neutral", texts.SERVICE_DOWN, "Its model card is shown here when it is back."))
        return
    card = served.card or {}
    show(_section("Model", _identity(served, card)))
    show(_section("Measured", _measured(card.get("measured", {}))))
    show(_section("Alert levels", _levels(served.calibration or {})))
    show(_section("Limits", {"Not known": card.get("limits"), "Intended use": card.get("intended_use")}))
    digests = {
        "Bundle": served.digest,
        "Definitions": served.prompts_digest,
        "Source commit": card.get("git_commit"),
    }
    show(_section("Digests (sha256)", digests, "derma-digests"))


def _identity(served: ServedBundle, card: Mapping[str, Any]) -> dict[str, str | None]:
    return {
        "Name": served.name,
        "Version, precision": f"{served.version}, {served.precision}" if served.version else None,
        "Base model": card.get("base_model"),
        "Training data": card.get("data"),
        "Licence": card.get("licence"),
    }


def _measured(measured: Mapping[str, Any]) -> dict[str, str | None]:
    """Sensitivity and specificity stand together, with their counts."""
    rows: dict[str, str | None] = {}
    if images := measured.get("images"):
        rows["Held-out images"] = f"{images:,}"
    if balanced := measured.get("balanced_accuracy"):
        rows["Balanced accuracy"] = texts.rate(balanced)
    melanoma = measured.get("melanoma", {})
    if {"sensitivity", "specificity"} <= melanoma.keys():
        sensitivity, specificity = (texts.rate(melanoma[kind]) for kind in ("sensitivity", "specificity"))
        rows["Melanoma as best match"] = f"sensitivity {sensitivity}; specificity {specificity}"
    return rows


def _levels(calibration: Mapping[str, Any]) -> dict[str, str | None]:
    promises = calibration.get("guarantees", {})
    levels: dict[str, str | None] = {
        texts.first_upper(level): f"Risk score {significant(calibration[level])} and above. "
        f"{promises.get(level, '')}"
        for level in ("review", "urgent")
        if level in calibration
    }
    return {**levels, "Prevalence": calibration.get("assumes", {}).get("prevalence")}


def _section(title: str, rows: dict[str, str | None], name: str = "") -> Markup:
    content = [
        part
        for term, value in rows.items()
        if value
        for part in (element("dt", term), element("dd", texts.typeset(value)))
    ]
    body = element("dl", content) if content else element("p", "Not stated by the service.", "derma-note")
    return element("section", [element("h3", title), body], f"derma-card {name}".strip())
