"""How good the input check is: alarms on photographs of lesions, and what it notices of other pictures.

    found = report(bundle, part_of(bundle, examples, "test"), [Path("photographs")])
    print(table(found))

Nothing that is measured here chose a limit or a feature.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from derma_semantics.domain.quality import REASONS
from derma_semantics.evaluation.metrics import rate
from derma_training.bundle import Bundle
from derma_training.data import Example, load_pixels
from derma_training.network.classifier import Classifier
from derma_training.quality.photographs import decoded, halves
from derma_training.quality.pictures import DAMAGES, KINDS, noise

CODES = tuple(reason.code for reason in REASONS)
SEED = 2
DRAWN = 30
DAMAGED = 60
LESIONS = "lesions"


def report(
    bundle: Bundle,
    examples: Sequence[Example],
    others: Sequence[Path] = (),
    *,
    elsewhere: Sequence[Example] = (),
) -> dict[str, Any]:
    """The shares of pictures that are noticed, by kind and reason, with exact 95 % intervals.

    Args:
        examples: photographs of lesions that neither trained the bundle nor chose its limits.
        others: folders of pictures of something else; every second one counts.
        elsewhere: photographs of lesions like ``examples``, of other collections.

    Raises:
        ValueError: the bundle has no limits, or a folder holds no two images.
    """
    if bundle.quality is None:
        raise ValueError(f"{bundle.path} has no input check: give it one with `derma-train quality`")
    lesions = load_pixels(examples, label="test images")
    classifier = Classifier.from_bundle(bundle)
    pictures = [(LESIONS, "lesions, test part", lesions)]
    if elsewhere:
        pixels = load_pixels(elsewhere, label="images of other collections")
        pictures.append((LESIONS, "lesions of other collections", pixels))
    kinds = [
        {"group": group, "kind": kind, **_measured(classifier.in_batches(pixels).quality)}
        for group, kind, pixels in (*pictures, *_pictures(lesions, others))
    ]
    return {"bundle": bundle.name, "bundle_digest": bundle.digest, "kinds": kinds}


def alarms(bundle: Bundle, pixels: Tensor) -> float:
    """The share of these pictures, uint8 (N, 224, 224, 3), that are noticed for any reason."""
    return float(Classifier.from_bundle(bundle).in_batches(pixels).quality.any(dim=1).float().mean())


def table(found: dict[str, Any]) -> str:
    """The report in Markdown."""
    head = ["pictures", "number", "noticed", "95 % interval", *(code.replace("_", " ") for code in CODES)]
    lines = [
        f"{found['bundle']} ({found['bundle_digest'][:12]})",
        "",
        _row(head),
        _row(["---"] * len(head)),
        *(_row(_cells(kind)) for kind in found["kinds"]),
    ]
    return "\n".join(lines) + "\n"


def _pictures(lesions: Tensor, others: Sequence[Path]) -> Iterator[tuple[str, str, Tensor]]:
    """Group, kind and pixels of what should be noticed."""
    for folder in others:
        yield "others", folder.name, decoded(halves(folder)[1])
    drawn = {kind: noise(kind, DRAWN, SEED) for kind in KINDS}
    yield "drawn", "all drawn below", torch.cat(list(drawn.values()))
    for kind, pixels in drawn.items():
        yield "drawn", kind, pixels
    some = lesions[:: -(-len(lesions) // DAMAGED)]
    for kind, damage in DAMAGES.items():
        yield "damaged", f"lesions, {kind}", damage(some)


def _measured(noticed: Tensor) -> dict[str, Any]:
    """Any reason, and each."""
    columns = {code: rate(column.numpy()) for code, column in zip(CODES, noticed.T, strict=True)}
    return {"noticed": rate(noticed.any(dim=1).numpy()), "reasons": columns}


def _cells(kind: dict[str, Any]) -> list[str]:
    share = kind["noticed"]
    low, high = share["interval_95"]
    reasons = [f"{kind['reasons'][code]['value']:.1%}" for code in CODES]
    return [kind["kind"], str(share["n"]), f"{share['value']:.1%}", f"{low:.1%} to {high:.1%}", *reasons]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
