"""The coded concepts of a report. What no standard code means exactly is in our own scheme, 99DERMA.

    condition(by_code("MEL"))        # (93655004, SCT, "melanoma")
    own("RISK")                      # (RISK, 99DERMA, "Probability of a malignant or ...")

SNOMED CT's codes are in ``conditions.CONDITIONS``.
"""

from __future__ import annotations

from typing import Any

from derma_semantics.domain.conditions import CONDITIONS, Condition
from derma_semantics.domain.contract import SET_COVERAGE, Triage

SCHEME = "99DERMA"

# Code value: meaning. Values have at most 16 characters, meanings 64 (VR SH and LO).
MEANINGS: dict[str, str] = {
    **{condition.code: condition.name for condition in CONDITIONS},
    **{f"P_{condition.code}": f"Probability of {condition.name}" for condition in CONDITIONS},
    **{level.name: level.name.capitalize() for level in Triage},
    "RISK": "Probability of a malignant or pre-malignant condition",
    "TRIAGE": "Triage",
    "HIGH_RISK": "High-risk alert",
    "TOP": "Most probable condition",
    "PREDICTION_SET": f"Condition that remains possible at {SET_COVERAGE:.0%}",
}


def own(value: str) -> Any:
    """A concept of our scheme, as pydicom's ``Code``.

    Raises:
        KeyError: the table has no such concept.
    """
    from pydicom.sr.coding import Code

    return Code(value, SCHEME, MEANINGS[value])


def condition(condition: Condition) -> Any:
    """SNOMED CT's concept where it means the same, else ours."""
    from pydicom.sr.coding import Code

    return Code(condition.snomed, "SCT", condition.name) if condition.snomed else own(condition.code)


def scheme() -> Any:
    """What 99DERMA is: an item of the Coding Scheme Identification Sequence."""
    from pydicom import Dataset

    item = Dataset()
    item.CodingSchemeDesignator = SCHEME
    item.CodingSchemeName = "Derma-Semantics"
    item.CodingSchemeResponsibleOrganization = "Derma-Semantics"
    return item
