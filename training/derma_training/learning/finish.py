"""From trained weights to a sealed bundle: calibrated, measured, with a card.

bundle = finish(config, parts, start, out, git_commit())
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from derma_training.bundle import (
    MANIFEST,
    Bundle,
    Calibration,
    seal,
    write_calibration,
    write_json,
    write_prompts,
)
from derma_training.bundle.limits import write_quality
from derma_training.bundle.split import trained_names, write_split
from derma_training.calibration.recalibrate import one_a_lesion, prevalence_among
from derma_training.calibration.scaling import TRAINING, fit_scaling
from derma_training.calibration.thresholds import calibrate
from derma_training.data import Example, Parts, labels
from derma_training.evaluate import answers, evaluate
from derma_training.learning.card import DATA_LICENCE, INTENDED_USE, model_card
from derma_training.learning.config import Config, Split, dump
from derma_training.learning.start import facts as start_facts
from derma_training.learning.start import start_bundle
from derma_training.prompts.report import report as report_prompts
from derma_training.quality.fit import fit_quality

CONFIGURATION = "training.toml"


def finish(config: Config, parts: Parts, start: Path, folder: Path, commit: str | None) -> Bundle:
    """Calibrate on the calibration part, measure on the test part, write the card, seal."""
    facts: dict[str, Any] = {
        "name": config.name,
        **start_facts(config, start),
        "licence": DATA_LICENCE,
        "intended_use": INTENDED_USE,
        "git_commit": commit,
    }
    (folder / MANIFEST).unlink(missing_ok=True)  # until it is sealed anew, this is no bundle
    _tidy_adapter(folder / "adapter")
    (folder / CONFIGURATION).write_text(dump(config))
    write_prompts(folder)
    before = start_bundle(start)
    write_split(folder, parts, trained_names(before) if before else ())
    unsealed = Bundle(folder, facts, digest="00" * 32)
    calibration = _calibration(unsealed, parts)
    write_calibration(folder, calibration)
    write_quality(folder, fit_quality(unsealed, parts))
    counts = {name: len(examples) for name, examples in parts}
    report = {
        "data": _sources(parts.test),
        "training_data": _sources(parts.train),
        "split": {"by": "lesion", **_settings(config.split), "images": counts},
        "scorer": "derma-train evaluate",
        **evaluate(unsealed, parts.test),
        "text": report_prompts(unsealed, parts),
    }
    if parts.other:
        report["other"] = {"data": _sources(parts.other), **evaluate(unsealed, parts.other, part="other")}
    write_json(folder / "metrics.json", report)
    (folder / "MODEL_CARD.md").write_text(model_card(config, counts, report, calibration, facts.get("start")))
    return seal(folder, **facts)


def git_commit() -> str | None:
    """The commit of this code, with ``-dirty`` where files differ from it."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    here = Path(__file__).parent
    found = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


def _calibration(bundle: Bundle, parts: Parts) -> Calibration:
    """Choose temperature, prevalence and thresholds.

    The temperature comes from the validation part, or from the calibration part where there is none. The
    prevalence is that of the training lesions. The thresholds come from the calibration part.
    """
    write_calibration(bundle.path, Calibration())
    known = parts.validation or parts.calibration
    where = f"the bundle's {'validation' if parts.validation else 'calibration'} part"
    scaling = fit_scaling(answers(bundle, known)[0], labels(known).numpy(), name=where)
    if prevalence := prevalence_among(parts):
        scaling = replace(scaling, prevalence=prevalence, prevalence_from=TRAINING)
    held_out = one_a_lesion(parts.calibration)
    probabilities = scaling.apply(answers(bundle, held_out)[0])
    name = "the bundle's calibration part"
    return calibrate(probabilities, labels(held_out).numpy(), scaling, name=name)


def _settings(split: Split) -> dict[str, Any]:
    """The settings that decided the parts."""
    return {"from_start": True} if split.from_start else split.model_dump(exclude={"from_start"})


def _sources(examples: Iterable[Example]) -> str:
    return ", ".join(sorted({example.source for example in examples}))


def _tidy_adapter(folder: Path) -> None:
    """Drop PEFT's README template and the training machine's path from the adapter."""
    config = folder / "adapter_config.json"
    if not config.is_file():
        return
    (folder / "README.md").unlink(missing_ok=True)
    write_json(config, {**json.loads(config.read_text()), "base_model_name_or_path": None})
