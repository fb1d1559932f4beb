"""A bundle's answers to labelled images, measured.

    report = evaluate(Bundle.open(folder), parts.test)
    print(summary(report))

The answers measured are those of the network that is exported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tqdm import tqdm

from derma_training.bundle import Bundle
from derma_training.calibrate import triage_report
from derma_training.classifier import Classifier
from derma_training.data import Example, labels, load_pixels
from derma_training.metrics import Floats, measure

BATCH = 64


def evaluate(bundle: Bundle, examples: Sequence[Example]) -> dict[str, Any]:
    """Measure the bundle as it would be served: adapter merged, calibrated, with triage."""
    probabilities, triage = answers(bundle, examples)
    truth = labels(examples).numpy()
    return {
        **measure(probabilities, truth),
        "triage": {
            "review": triage_report(triage >= 1, truth),
            "urgent": triage_report(triage >= 2, truth),
        },
    }


@torch.inference_mode()
def answers(bundle: Bundle, examples: Sequence[Example]) -> tuple[Floats, Any]:
    """Probabilities, float64 (N, 7), and triage, int (N,), of every example."""
    classifier = Classifier.from_bundle(bundle)
    pixels = load_pixels(examples)
    parts = [classifier(batch) for batch in tqdm(pixels.split(BATCH), desc="classifying", leave=False)]
    probabilities = torch.cat([part.probabilities for part in parts]).double().numpy()
    triage = torch.cat([part.triage for part in parts]).squeeze(1).numpy()
    return probabilities, triage


def summary(report: dict[str, Any]) -> str:
    """The report's main figures for a terminal."""
    low, high = report["balanced_accuracy"]["interval_95"]
    lines = [
        f"images              {report['images']}",
        f"balanced accuracy   {report['balanced_accuracy']['value']:.3f}"
        f"  (95 % interval {low:.3f} to {high:.3f})",
        f"accuracy            {report['accuracy']:.3f}",
        f"melanoma as top 1   {_both(report['melanoma'])}",
        f"triage review       {_both(report['triage']['review']['melanoma'])} for melanoma",
        f"                    {_both(report['triage']['review']['malignancy'])} for malignancy",
        f"triage urgent       {_both(report['triage']['urgent']['malignancy'])} for malignancy",
        f"melanoma specificity at 95 % sensitivity   {report['melanoma_specificity_at_95_sensitivity']:.3f}",
        f"expected calibration error                 {report['expected_calibration_error']:.3f}",
        "recall              "
        + "  ".join(f"{code} {r['value']:.2f} (n={r['n']})" for code, r in report["recall"].items()),
    ]
    return "\n".join(lines)


def _both(detection: dict[str, Any]) -> str:
    sensitivity, specificity = detection["sensitivity"]["value"], detection["specificity"]["value"]
    return f"sensitivity {sensitivity:.3f}, specificity {specificity:.3f}"
