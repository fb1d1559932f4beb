"""The model card's paragraph on calibration.

    card = f"# Model card\n\n{calibration_paragraph(calibration)}\n\n**Limits.** ..."
    card = recalibrated_card(card, another)

It is found again by its heading, and so can be replaced when a bundle is calibrated anew.
"""

from __future__ import annotations

from derma_semantics.domain.numbers import significant
from derma_training.bundle import Calibration

HEADING = "**Calibration.**"
PARAGRAPH = """{heading} Temperature {temperature:.3f} from {scaling}; thresholds from
{images} images, {name}.
RISK at or above {review} is "review", at or above {urgent} "urgent". {guarantees}
{exchangeability} {prevalence}"""
STALE = """What the card says of triage, of RISK, of prediction sets and of calibration error was measured
before this calibration: `derma-train evaluate` measures it anew."""


def calibration_paragraph(calibration: Calibration) -> str:
    """Thresholds and what they promise."""
    facts = calibration.report
    return PARAGRAPH.format(
        heading=HEADING,
        temperature=calibration.temperature,
        review=significant(calibration.review),
        urgent=significant(calibration.urgent),
        scaling=facts["scaling_fitted_on"],
        name=facts["calibration_set"]["name"],
        images=facts["calibration_set"]["images"],
        guarantees=" ".join(facts["guarantees"].values()),
        prevalence=facts["assumes"]["prevalence"],
        exchangeability=" ".join(
            facts["assumes"][key] for key in ("exchangeability", "scaling") if key in facts["assumes"]
        ),
    )


def recalibrated_card(card: str, calibration: Calibration) -> str:
    """The card with that paragraph replaced; its measurements stay, and are called old."""
    renewed = f"{calibration_paragraph(calibration)}\n{STALE}"
    return "\n\n".join(renewed if p.startswith(HEADING) else p for p in card.split("\n\n"))
