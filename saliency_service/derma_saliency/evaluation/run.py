"""Every measure on every image, kept line by line, then summed up.

    report = evaluate(explainer, find_pairs(images, masks), out, Amount())

``out`` then holds ``metrics.json``, ``table.md``, ``saliency-difference.png``, ``saliency-cascade.png``
and ``rows.jsonl``, from which an interrupted run goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from derma_saliency.evaluation import measures, sanity
from derma_saliency.evaluation.pairs import Pair
from derma_saliency.evaluation.plots import draw_cascade, draw_differences
from derma_saliency.evaluation.report import table
from derma_saliency.evaluation.statistics import RIVALS, Row, summarise
from derma_saliency.explainer import SMOOTHING, Explainer
from derma_saliency.methods import DEFAULT, METHODS
from derma_semantics.domain.conditions import CODES


@dataclass(frozen=True)
class Amount:
    """Numbers of images, evenly spread, for the slower measures.

    Attributes:
        perturbed: deletion and insertion.
        sensitivity: prompt sensitivity.
        cascade: randomisation.
    """

    perturbed: int = 100
    sensitivity: int = 30
    cascade: int = 16


def evaluate(
    explainer: Explainer,
    pairs: Sequence[Pair],
    out: Path,
    amount: Amount,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Measure all methods and write the report.

    Raises:
        ValueError: ``out`` holds rows of another bundle or other settings.
        InvalidImage, OSError: an image cannot be read.
    """
    out.mkdir(parents=True, exist_ok=True)
    settings = {"bundle_digest": explainer.digest, "smoothing": SMOOTHING, "perturbed": amount.perturbed}
    rows = _rows(explainer, pairs, out / "rows.jsonl", settings, amount, progress)
    report = {
        "bundle": explainer.name,
        "bundle_digest": explainer.digest,
        "default": DEFAULT,
        "images": len(rows),
        "target": "true condition" if pairs[0].condition else "first-ranked condition",
        "amount": asdict(amount),
        "maps": {name: summarise(rows, name) for name in (*METHODS, *RIVALS)},
        **_sanity(explainer, pairs, amount),
    }
    (out / "metrics.json").write_text(json.dumps(report, indent=2) + "\n")
    (out / "table.md").write_text(table(report))
    draw_differences(out / "saliency-difference.png", report)
    draw_cascade(out / "saliency-cascade.png", report)
    return report


def spread(pairs: Sequence[Pair], number: int) -> list[Pair]:
    """At most this many of them, evenly spaced."""
    if number >= len(pairs):
        return list(pairs)
    return [pairs[i * len(pairs) // number] for i in range(number)]


def _rows(
    explainer: Explainer,
    pairs: Sequence[Pair],
    path: Path,
    settings: dict[str, Any],
    amount: Amount,
    progress: Callable[[], object],
) -> list[Row]:
    done = _read(path, settings)
    perturbed = {pair.name for pair in spread(pairs, amount.perturbed)}
    rows = []
    with path.open("a") as file:
        for number, pair in enumerate(pairs):
            if pair.name not in done:
                rng = np.random.default_rng(number)
                found = _measured(explainer, pair, pair.name in perturbed, rng)
                done[pair.name] = {**settings, "image": pair.name, "measures": found}
                file.write(json.dumps(done[pair.name]) + "\n")
                file.flush()
            rows.append(done[pair.name])
            progress()
    return rows


def _read(path: Path, settings: dict[str, Any]) -> dict[str, Row]:
    """Rows so far; a last line that a kill cut short is cut off."""
    if not path.exists():
        return {}
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    path.write_bytes(whole + b"\n" if whole else b"")
    rows = [json.loads(line) for line in whole.splitlines()]
    if any(row[key] != value for row in rows for key, value in settings.items()):
        raise ValueError(f"{path} holds rows of another bundle or other settings: give another --out")
    return {row["image"]: row for row in rows}


def _measured(
    explainer: Explainer, pair: Pair, perturb: bool, rng: np.random.Generator
) -> dict[str, dict[str, float]]:
    array, mask = pair.load()
    pixels = _tensor(explainer, [array])
    condition = _target(explainer, pair, pixels)
    direction = explainer.texts.direction(condition=CODES[condition])[None]
    grids = {name: explainer.relevance(pixels, direction, name)[0][0].cpu().numpy() for name in METHODS}
    shape = grids[DEFAULT].shape
    grids |= {"gaussian": measures.gaussian_grid(shape), "random": measures.random_grid(shape, rng)}
    found = {}
    for name, grid in grids.items():
        relevance = measures.enlarged(grid)
        found[name] = {
            "energy": measures.energy(relevance, mask),
            "pointing": measures.pointing(relevance, mask),
        }
        if perturb:
            deletion, insertion = measures.perturbed(explainer.classifier, array, grid, condition)
            found[name] |= {"deletion": deletion, "insertion": insertion}
    return found


def _target(explainer: Explainer, pair: Pair, pixels: Tensor) -> int:
    if pair.condition:
        return CODES.index(pair.condition)
    with torch.inference_mode():
        return int(explainer.classifier(pixels).probabilities.argmax())


def _sanity(explainer: Explainer, pairs: Sequence[Pair], amount: Amount) -> dict[str, Any]:
    texts = _tensor(explainer, [pair.load()[0] for pair in spread(pairs, amount.sensitivity)])
    chosen = spread(pairs, amount.cascade)
    pixels = _tensor(explainer, [pair.load()[0] for pair in chosen])
    codes = [CODES[_target(explainer, pair, one)] for pair, one in zip(chosen, pixels.split(1), strict=True)]
    directions = torch.stack([explainer.texts.direction(condition=code) for code in codes])
    return {
        "prompt_sensitivity": {name: sanity.prompt_sensitivity(explainer, texts, name) for name in METHODS},
        "cascade": {name: sanity.cascade(explainer, pixels, directions, name) for name in METHODS},
    }


def _tensor(explainer: Explainer, arrays: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays)).to(explainer.classifier.text.device)
