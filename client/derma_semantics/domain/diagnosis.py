"""What the service says about one image, as typed values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from derma_semantics.domain.conditions import CODES, CONDITIONS, Condition, RiskLevel
from derma_semantics.domain.contract import FACTS, PARAMETERS, Triage
from derma_semantics.domain.prevalence import at_prevalence
from derma_semantics.domain.quality import REASONS, Reason


@dataclass(frozen=True)
class Finding:
    """One condition and its calibrated probability, in [0, 1]."""

    condition: Condition
    probability: float


@dataclass(frozen=True)
class ServedBundle:
    """Which weights answered.

    ``digest`` came with the answer itself. ``name``, ``precision`` and ``version`` are
    what the server's configuration says of that digest; None where it names another,
    as it can for the answers in flight during a roll-out. So too ``calibration``
    (thresholds, targets and what they achieved, with counts), ``card`` (licence, data,
    figures and limits), both None where the server states none, and ``prompts_digest``.
    """

    digest: str
    name: str | None = None
    precision: str | None = None
    version: str | None = None
    calibration: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)
    card: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)
    prompts_digest: str | None = field(default=None, repr=False)

    @classmethod
    def from_network(cls, network: Mapping[str, str]) -> ServedBundle:
        """Read the network's config parameters and the ``version`` that serves with them."""
        name, digest, prompts, precision = (network.get(key, "") for key in PARAMETERS)
        calibration, card = (_stated(network.get(key, "")) for key in FACTS)
        return cls(digest, name, precision, network["version"], calibration, card, prompts)


@dataclass(frozen=True)
class Diagnosis:
    """The answer to one image.

    Attributes:
        differential: the seven conditions, most probable first.
        risk: probability of a malignant or pre-malignant lesion at the bundle's prevalence, in [0, 1].
        triage: routine, review or urgent, by the bundle's calibrated thresholds.
        prediction_set: the conditions that remain possible at ``contract.SET_COVERAGE``, most
            probable first; never empty.
        embedding: the image's unit vector, fp32, shape (embedding size,).
        bundle: which weights answered.
        request_id: of the question, as the logs of all parts name it.
        quality: what the input check noticed. Empty does not mean a good image: only that nothing was
            noticed, as it also is where server or bundle have no such check.
    """

    differential: tuple[Finding, ...]
    risk: float
    triage: Triage
    prediction_set: tuple[Condition, ...]
    embedding: NDArray[np.float32] = field(repr=False, compare=False)
    bundle: ServedBundle
    request_id: str | None = field(default=None, compare=False)
    quality: tuple[Reason, ...] = ()

    @property
    def top(self) -> Finding:
        """The most probable condition."""
        return self.differential[0]

    @property
    def high_risk(self) -> bool:
        """The alert: triage is urgent, or melanoma or basal cell carcinoma ranks first."""
        return self.triage is Triage.URGENT or self.top.condition.risk is RiskLevel.HIGH

    def at_prevalence(self, prevalence: Mapping[str, float]) -> dict[str, float]:
        """Probabilities by condition code where conditions are this frequent, most probable first.

        It changes no answer: the name goes by equally frequent conditions, ``risk`` and ``triage`` by the
        bundle's prevalence.

        Args:
            prevalence: how frequent each of the seven is where the photographs come from: shares or counts.

        Raises:
            ValueError: it names other conditions than the seven, or is no frequency.
        """
        if prevalence.keys() != set(CODES):
            named = ", ".join(prevalence) or "none"
            raise ValueError(f"prevalence must name {', '.join(CODES)}, and names {named}")
        codes = [finding.condition.code for finding in self.differential]
        given = np.array([[finding.probability for finding in self.differential]])
        weighed = at_prevalence(given, [prevalence[code] for code in codes])[0].tolist()
        return dict(sorted(zip(codes, weighed, strict=True), key=lambda pair: -pair[1]))

    def to_dict(self) -> dict[str, Any]:
        """Everything but the embedding, as JSON types."""
        return {
            "condition": self.top.condition.code,
            "probabilities": {f.condition.code: f.probability for f in self.differential},
            "risk": self.risk,
            "triage": self.triage.name.lower(),
            "high_risk": self.high_risk,
            "prediction_set": [condition.code for condition in self.prediction_set],
            "quality": [reason.code for reason in self.quality],
            "bundle": self.bundle.name,
            "bundle_digest": self.bundle.digest,
            "precision": self.bundle.precision,
            "version": self.bundle.version,
        }


def _stated(text: str) -> dict[str, Any] | None:
    """A JSON object; None where there is none, or another thing."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def from_outputs(
    outputs: Mapping[str, NDArray[Any]], bundle: ServedBundle, request_id: str | None = None
) -> Diagnosis:
    """Read the public model's outputs, each without its batch axis."""
    findings = [
        Finding(condition, float(probability))
        for condition, probability in zip(CONDITIONS, outputs["PROBABILITIES"], strict=True)
    ]
    ranked = tuple(sorted(findings, key=lambda f: -f.probability))
    possible = set(compress(CONDITIONS, outputs["PREDICTION_SET"]))
    return Diagnosis(
        differential=ranked,
        risk=float(outputs["RISK"][0]),
        triage=Triage(int(outputs["TRIAGE"][0])),
        prediction_set=tuple(f.condition for f in ranked if f.condition in possible),
        embedding=outputs["EMBEDDING"],
        bundle=bundle,
        request_id=request_id,
        quality=tuple(compress(REASONS, outputs.get("QUALITY", ()))),
    )
