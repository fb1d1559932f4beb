"""Temperature, prevalence and thresholds of a bundle: ``calibration.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from derma_semantics.domain.conditions import CODES
from derma_semantics.domain.integrity import BundleError
from derma_training.bundle.files import write_json

FILE = "calibration.json"
RAREST = 1e-6  # share of a condition; less is a mistake
COLDEST, HOTTEST = 0.01, 100.0  # temperatures; a fitted one is between 0.5 and 5
WIDEST = 10.0  # margin of the odds


@dataclass(frozen=True)
class Calibration:
    """Content of ``calibration.json``.

    Attributes:
        temperature: divides the logits before the softmax.
        prevalence: by condition code, how frequent each is where RISK is meant for, as shares or counts;
            empty where all are equally frequent.
        review, urgent: thresholds on RISK, in [0, 1], at or above which TRIAGE is 1, 2.
        margin: by which the odds of RISK may fall in coarse arithmetic before one that ``review`` must find
            is missed; 1 is none.
        prediction_set: by condition code, the lowest probability, in [0, 1], with which the
            condition belongs to PREDICTION_SET. A code that is not named always belongs.
        report: how they were chosen and what they achieved, for people.
    """

    temperature: float = 1.0
    prevalence: dict[str, float] = field(default_factory=dict)
    review: float = 0.5
    urgent: float = 0.5
    margin: float = 1.0
    prediction_set: dict[str, float] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("temperature", "review", "urgent", "margin"):
            _require_number(name, getattr(self, name))
        if not COLDEST <= self.temperature <= HOTTEST:
            raise BundleError(f"temperature must be in [{COLDEST}, {HOTTEST}], got {self.temperature}")
        if not 0 <= self.review <= self.urgent <= 1:
            raise BundleError(
                f"thresholds must satisfy 0 <= review <= urgent <= 1, got {self.review}, {self.urgent}"
            )
        if not 1 <= self.margin <= WIDEST:
            raise BundleError(f"margin must be in [1, {WIDEST}], got {self.margin}")
        if self.prevalence and self.prevalence.keys() != set(CODES):
            named = ", ".join(self.prevalence)
            raise BundleError(f"prevalence must name {', '.join(CODES)}, and names {named}")
        if not _frequent(self.prevalence.values()) or min(self.frequencies) < RAREST:
            raise BundleError(f"prevalence must be finite, no share below {RAREST}, got {self.prevalence}")
        for code, lowest in self.prediction_set.items():
            _require_number(f"prediction_set of {code}", lowest)
            if code not in CODES or not 0 <= lowest <= 1:
                raise BundleError(
                    f"prediction_set must give conditions values in [0, 1], got {code}: {lowest}"
                )

    @property
    def frequencies(self) -> list[float]:
        """``prevalence`` as shares of one, in the order of ``CODES``."""
        given = [self.prevalence.get(code, 1.0) for code in CODES]
        return [value / sum(given) for value in given]

    @property
    def set_thresholds(self) -> list[float]:
        """``prediction_set`` in the order of ``CODES``."""
        return [self.prediction_set.get(code, 0.0) for code in CODES]


def write_calibration(folder: Path, calibration: Calibration) -> None:
    write_json(folder / FILE, asdict(calibration))


def read_calibration(folder: Path) -> Calibration:
    """Read what ``write_calibration`` wrote.

    Raises:
        BundleError: it holds something that no answer takes into account, or an impossible value.
    """
    content = json.loads((folder / FILE).read_text())
    # derma-mini was sealed when a bias could be fitted: it names seven zeros, which change no answer.
    bias = content.pop("bias", {})
    strange = content.keys() - {entry.name for entry in fields(Calibration)}
    if any(bias.values()) or strange:
        raise BundleError(f"{folder / FILE}: unknown entry {', '.join(sorted(strange)) or 'bias'}")
    return Calibration(**content)


def _require_number(name: str, value: object) -> None:
    """Refuse a string, a truth value, NaN and infinity, all of which JSON can hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise BundleError(f"{name} must be a finite number, got {value!r}")


def _frequent(values: Iterable[object]) -> bool:
    """Return True if all are numbers above 0 and below infinity."""
    return all(isinstance(value, (int, float)) and 0 < value < math.inf for value in values)
