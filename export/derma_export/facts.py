"""What a bundle says of itself to people, as parameters of the configuration it is served with.

    facts(bundle)["calibration"]      # '{"review": 0.1235, "urgent": 0.6291, "targets": ...}'

JSON under the names in ``contract.FACTS``; what a bundle does not state is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from derma_semantics.domain.contract import FACTS
from derma_semantics.domain.numbers import DIGITS
from derma_training.bundle import Bundle

STATED = ("base_model", "licence", "intended_use", "git_commit")
MEASURED = ("images", "balanced_accuracy", "melanoma")
LIMITS = "**Limits.** "


def statement(bundle: Bundle, precision: str) -> dict[str, str]:
    """Statements on a version in manifest and configuration: ``contract.PARAMETERS``, ``contract.FACTS``."""
    return {
        "bundle_name": bundle.name,
        "bundle_digest": bundle.digest,
        "prompts_digest": bundle.prompts_digest,
        "precision": precision,
        **facts(bundle),
    }


def facts(bundle: Bundle) -> dict[str, str]:
    """Values of ``contract.FACTS``."""
    values = (_calibration(bundle), _card(bundle))
    return {key: json.dumps(_rounded(value)) for key, value in zip(FACTS, values, strict=True)}


def _calibration(bundle: Bundle) -> dict[str, Any]:
    """Thresholds, what they were set for and what they achieved, with counts and intervals."""
    calibration = bundle.calibration
    report = calibration.report
    stated = {
        "prevalence": calibration.prevalence,
        "targets": report.get("targets"),
        "calibration_set": _only(report.get("calibration_set"), "name", "images"),
        "achieved": _only(report.get("achieved"), "review", "urgent"),
        "guarantees": _only(report.get("guarantees"), "review", "urgent"),
        "assumes": _only(report.get("assumes"), "exchangeability", "scaling", "prevalence"),
    }
    return {"review": calibration.review, "urgent": calibration.urgent, **_present(stated)}


def _card(bundle: Bundle) -> dict[str, Any]:
    """The model card in short."""
    metrics = bundle.path / "metrics.json"
    measured = json.loads(metrics.read_text()) if metrics.is_file() else {}
    stated = {
        "data": measured.get("data"),
        "measured": _only(measured, *MEASURED),
        "limits": _limits(bundle),
    }
    return _present({**_only(bundle.manifest, *STATED), **stated})


def _limits(bundle: Bundle) -> str:
    """The card's paragraph on limits, on one line."""
    card = bundle.path / "MODEL_CARD.md"
    paragraphs = card.read_text().split("\n\n") if card.is_file() else []
    found = (p.removeprefix(LIMITS) for p in paragraphs if p.startswith(LIMITS))
    return " ".join(next(found, "").split())


def _only(given: Mapping[str, Any] | None, *keys: str) -> dict[str, Any]:
    return {key: given[key] for key in keys if key in given} if given else {}


def _present(given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if value}


def _rounded(value: Any) -> Any:
    """To ``DIGITS`` significant digits, so that no share becomes 0."""
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
