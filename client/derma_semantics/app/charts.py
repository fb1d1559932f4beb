"""The differential as a bar chart: a row opens to the definitions behind its condition.

show(differential(diagnosis))
"""

from __future__ import annotations

from derma_semantics.app.markup import Markup, element
from derma_semantics.app.texts import first_upper, percent
from derma_semantics.domain.conditions import RiskLevel
from derma_semantics.domain.diagnosis import Diagnosis, Finding

TAGS = {RiskLevel.HIGH: "malignant", RiskLevel.PREMALIGNANT: "pre-malignant"}


def differential(diagnosis: Diagnosis) -> Markup:
    """Seven rows, most probable first; the conditions that stay possible stand out."""
    rows = [
        _row(finding, finding.condition in diagnosis.prediction_set) for finding in diagnosis.differential
    ]
    return element("div", rows, "derma-chart")


def _row(finding: Finding, possible: bool) -> Markup:
    condition, share = finding.condition, finding.probability
    tag = [Markup(" "), element("em", TAGS[condition.risk])] if condition.risk in TAGS else []
    name = [element("span", first_upper(condition.name)), *tag]
    bar = element("i", "", style=f"width:{100 * share:.1f}%")
    summary = [
        element("span", name, "name"),
        element("span", percent(share), "value"),
        element("span", [bar], "bar"),
    ]
    definitions = element("ul", [element("li", first_upper(prompt)) for prompt in condition.prompts])
    content = [element("summary", summary), definitions]
    return element("details", content, "possible" if possible else "unlikely")
