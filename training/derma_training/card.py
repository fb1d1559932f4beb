"""The model card of a bundle, written from its measurements."""

from __future__ import annotations

from typing import Any

from derma_training.bundle import Calibration
from derma_training.evaluate import summary

INTENDED_USE = (
    "Research and software development on dermoscopic photographs. Not a medical device: it must not be "
    "used to diagnose, treat or triage people."
)
DATA_LICENCE = "CC BY-NC 4.0"

CARD = """# Model card: {name}

{intended_use}

**Weights.** {weights} Every published tensor was trained by this repository. The training data's licence
is {licence}: the weights are for non-commercial research.

**Data.** ISIC 2018 Task 3 / HAM10000 (Tschandl et al., Scientific Data 5, 180161, 2018; {licence}), split
by lesion: {train} images for training, {calibration} for calibration, {test} for the figures below
(seed {seed}). Nothing here comes from the official ISIC 2018 test set.

**Measured** on the {test} held-out images, with the project's own scorer (`derma-train evaluate`):

```
{summary}
```

Intervals: balanced accuracy by bootstrap within conditions; proportions in `metrics.json` are exact
(Clopper-Pearson). Rare conditions have few test images (see n), so their recall is uncertain.

**Calibration.** Temperature {temperature:.3f}. RISK at or above {review:.4f} is "review", at or above
{urgent:.4f} "urgent"; the thresholds were chosen on the calibration images for a review sensitivity of
{target:.0%} and need not reach it on others. Probabilities assume that the seven conditions are equally
frequent; in practice most lesions are nevi, so RISK is a score for ranking and triage, not a prevalence.

**Limits.** Mostly light skin from two centres (Vienna and Queensland); other skin tones, devices, clinical
(non-dermoscopic) photographs and other conditions were not measured. It answers for any picture at all,
also one that shows no lesion.
"""


def model_card(
    name: str,
    weights: str,
    counts: dict[str, int],
    seed: int,
    report: dict[str, Any],
    calibration: Calibration,
) -> str:
    """Markdown for ``MODEL_CARD.md``.

    Args:
        weights: a sentence on where the weights come from.
        counts: images in the parts ``train``, ``calibration`` and ``test``.
    """
    return CARD.format(
        name=name,
        intended_use=INTENDED_USE,
        weights=weights,
        licence=DATA_LICENCE,
        **counts,
        seed=seed,
        summary=summary(report),
        temperature=calibration.temperature,
        review=calibration.review,
        urgent=calibration.urgent,
        target=calibration.report["target"]["review_sensitivity"],
    )
