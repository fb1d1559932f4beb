"""What a calibration aims at.

targets = Targets(sensitivity=0.9)
targets.confidence                  # 0.9
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from derma_semantics.domain.contract import SET_COVERAGE

# Of the odds at review, for engines that compute in bf16 or int8: the hardest melanoma that must be found
# would else lie at the threshold. An export's gate lets the odds of none that becomes routine fall by more.
MARGIN = 1.2


@dataclass(frozen=True)
class Targets:
    """What the thresholds must achieve on new images.

    Attributes:
        sensitivity: of review, for melanoma and for malignancy (MEL, BCC, AKIEC), both at once.
        specificity: of urgent: the share of benign lesions that are not urgent.
        coverage: share of prediction sets that hold the true condition; clients say that it is
            at least ``contract.SET_COVERAGE``.
        confidence: that sensitivity, or specificity, holds in spite of the calibration set's chance.
    """

    sensitivity: float = 0.95
    specificity: float = 0.95
    coverage: float = SET_COVERAGE
    confidence: float = 0.9

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 < value < 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {value}")
        if self.coverage < SET_COVERAGE:
            raise ValueError(f"coverage must be at least {SET_COVERAGE}, as clients say, got {self.coverage}")


DEFAULTS = Targets()
