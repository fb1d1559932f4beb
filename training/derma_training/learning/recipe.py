"""A run from a configuration to a sealed bundle.

    bundle = make_bundle(load("training/configs/derma-mini.toml"), read(folder), start, Path("derma-mini"))

Everything a run leaves behind while it works is in ``<out>.run``: configuration, loss
curves, TensorBoard logs, checkpoints. A later call with the same arguments goes on.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from derma_semantics.domain.conditions import CONDITIONS
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
from derma_training.bundle.split import bundle_parts, trained_names, write_split
from derma_training.calibration.recalibrate import one_a_lesion, prevalence_among
from derma_training.calibration.scaling import TRAINING, fit_scaling
from derma_training.calibration.thresholds import calibrate
from derma_training.data import Example, Parts, Shares, downsample, labels, load_pixels, split_by_lesion
from derma_training.evaluate import answers, evaluate
from derma_training.learning.batches import TrainingSet
from derma_training.learning.card import DATA_LICENCE, INTENDED_USE, model_card
from derma_training.learning.config import Config, Phase, Split, dump
from derma_training.learning.fit import Run, fit
from derma_training.learning.start import check_unseen, first_model, prepare, start_bundle, start_digest
from derma_training.learning.start import facts as start_facts
from derma_training.learning.words import fit_words
from derma_training.network.classifier import Normalise
from derma_training.network.lora import add_lora, merge_adapter
from derma_training.network.model import (
    Clip,
    build_model,
    count_parameters,
    load_tokenizer,
    pixel_statistics,
    save_weights,
)
from derma_training.prompts.report import report as report_prompts
from derma_training.quality.fit import fit_quality

CONFIGURATION = "training.toml"
PROMPTS = {condition.code: condition.prompts for condition in CONDITIONS}

Say = Callable[[str], object]


@dataclass(frozen=True)
class Place:
    """Where a run reads its start and writes its results.

    Attributes:
        start: timm weights or a bundle to go on from (base ``mini``), or the folder of
            ``derma-train fetch-base``.
        out: the bundle's folder.
    """

    start: Path
    out: Path

    @property
    def run(self) -> Path:
        return self.out.with_name(self.out.name + ".run")


def make_bundle(
    config: Config,
    examples: Sequence[Example],
    place: Place,
    *,
    say: Say = print,
) -> Bundle | None:
    """Train, calibrate, measure and seal.

    Returns:
        The bundle; None in a process that only helped (``torchrun``).
    """
    commit = _git_commit()
    parts = split(examples, config, place.start)
    accelerator = train_weights(config, parts, place, say=say)
    if not accelerator.is_main_process:
        return None
    bundle = finish(config, parts, place, commit)
    shutil.rmtree(place.run / "checkpoints", ignore_errors=True)  # a run of words has none
    return bundle


def split(examples: Sequence[Example], config: Config, start: Path) -> Parts:
    """The parts that the configuration asks for, or those of the bundle at ``start``.

    Raises:
        ValueError: the parts are to be the start's, and it is no bundle.
    """
    settings = config.split
    if settings.from_start:
        if bundle := start_bundle(start):
            return bundle_parts(bundle, examples)
        raise ValueError(f"split.from_start needs a bundle to start from, and {start} is none")
    shares = Shares(settings.test, settings.calibration, settings.validation)
    return split_by_lesion(
        examples, seed=settings.seed, fold=settings.fold, shares=shares, target=settings.target
    )


def train_weights(config: Config, parts: Parts, place: Place, *, say: Say) -> Accelerator:
    """Run all phases and leave configuration, text encoder, weights and adapter in ``place.out``."""
    check_unseen(place.start, parts)
    accelerator = Accelerator(mixed_precision=config.precision)
    if accelerator.is_main_process:
        _begin(config, place)
    accelerator.wait_for_everyone()
    lists = (_rows(parts.train), _rows(parts.validation), map(str, PROMPTS.items()))
    inputs = " ".join([*map(_digest, lists), start_digest(config, place.start)])
    run = Run(accelerator, place.run, config.seed, inputs)
    for number in range(len(config.phases)):
        _run_phase(config, number, parts, place, run, say)
    return accelerator


def _run_phase(config: Config, number: int, parts: Parts, place: Place, run: Run, say: Say) -> None:
    phase, main = config.phases[number], run.accelerator.is_main_process
    torch.manual_seed(config.seed)  # what starts at random must not depend on where a run stopped
    model = first_model(config, place.start, place.out) if number == 0 else build_model(place.out)
    if phase.method == "words":
        _run_words(config, number, model, parts, place, run, say)
        return
    if phase.method == "lora":
        adapted = add_lora(model, r=phase.lora.r, alpha=phase.lora.alpha, text=phase.lora.text)
    else:
        model.text.transformer.requires_grad_(False)
    if main:
        say(f"{phase.name}: {count_parameters(model)}")
    run = replace(run, inputs=f"{run.inputs} after {config.phases[:number]!r}")
    normalise, tokenizer = Normalise(*pixel_statistics(place.out)), load_tokenizer(place.out)
    figures = fit(model, tokenizer, PROMPTS, normalise, *_sets(config, phase, parts), phase, run)
    if main:
        if phase.method == "lora":
            adapted.half().save_pretrained(str(place.out / "adapter"))
        else:
            save_weights(model, place.out)
        _tell(phase, figures, say)
    run.accelerator.free_memory()
    run.accelerator.wait_for_everyone()


def _run_words(
    config: Config, number: int, model: Clip, parts: Parts, place: Place, run: Run, say: Say
) -> None:
    """Let the texts learn from the tower as it is served, adapter merged; what else is in ``out`` stays."""
    phase, adapter = config.phases[number], place.out / "adapter"
    if run.accelerator.is_main_process:
        tower = merge_adapter(copy.deepcopy(model), adapter) if adapter.is_dir() else copy.deepcopy(model)
        normalise, tokenizer = Normalise(*pixel_statistics(place.out)), load_tokenizer(place.out)
        sets = _sets(config, phase, parts)
        figures = fit_words(tower, tokenizer, PROMPTS, normalise, *sets, phase, run)
        model.text.proj.load_state_dict(tower.text.proj.state_dict())
        model.logit_scale.data.copy_(tower.logit_scale.data)
        save_weights(model, place.out)
        _tell(phase, figures, say)
    run.accelerator.wait_for_everyone()


def _sets(config: Config, phase: Phase, parts: Parts) -> tuple[TrainingSet, TrainingSet | None]:
    """Images for training and, where there are any, for validation."""
    chosen = parts.train
    if phase.balance.max_nevi:
        chosen = downsample(chosen, most=phase.balance.max_nevi, seed=config.seed)
    validation = _decoded(parts.validation, "validation") if parts.validation else None
    return _decoded(chosen, "training"), validation


def _tell(phase: Phase, figures: dict[str, float], say: Say) -> None:
    if figures:
        told = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in figures.items())
        say(f"{phase.name}: on validation {told}")


def finish(config: Config, parts: Parts, place: Place, commit: str | None) -> Bundle:
    """Calibrate on the calibration part, measure on the test part, write the card, seal."""
    folder = place.out
    facts: dict[str, Any] = {
        "name": config.name,
        **start_facts(config, place.start),
        "licence": DATA_LICENCE,
        "intended_use": INTENDED_USE,
        "git_commit": commit,
    }
    (folder / MANIFEST).unlink(missing_ok=True)  # until it is sealed anew, this is no bundle
    _tidy_adapter(folder / "adapter")
    (folder / CONFIGURATION).write_text(dump(config))
    write_prompts(folder)
    before = (bundle := start_bundle(place.start)) and trained_names(bundle)
    write_split(folder, parts, before or ())
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


def _begin(config: Config, place: Place) -> None:
    """Write what a run can be repeated from, and the untrained part of the bundle.

    Raises:
        ValueError: there is a finished bundle already, or a network that this run does not train.
    """
    if (place.out / MANIFEST).exists():
        raise ValueError(f"{place.out} holds a finished bundle: remove it, or choose another --out")
    names = {name for phase in config.phases for name in phase.names}
    if strays := [path for path in place.run.glob("checkpoints/*.pt") if path.stem not in names]:
        raise ValueError(f"{strays[0]} belongs to another run. Remove its folder, or choose another --out.")
    prepare(config, place.start, place.out)
    place.run.mkdir(parents=True, exist_ok=True)
    (place.run / CONFIGURATION).write_text(dump(config))


def _decoded(examples: Sequence[Example], part: str) -> TrainingSet:
    return TrainingSet(load_pixels(examples, label=f"{part} images"), labels(examples))


def _settings(split: Split) -> dict[str, Any]:
    """What decided the parts."""
    return {"from_start": True} if split.from_start else split.model_dump(exclude={"from_start"})


def _sources(examples: Iterable[Example]) -> str:
    return ", ".join(sorted({example.source for example in examples}))


def _rows(examples: Iterable[Example]) -> Iterable[str]:
    """What training draws from, in its order."""
    return (f"{e.name} {e.condition} {e.lesion} {e.source}" for e in examples)


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _tidy_adapter(folder: Path) -> None:
    """Drop PEFT's README template and the training machine's path from the adapter."""
    config = folder / "adapter_config.json"
    if not config.is_file():
        return
    (folder / "README.md").unlink(missing_ok=True)
    write_json(config, {**json.loads(config.read_text()), "base_model_name_or_path": None})


def _git_commit() -> str | None:
    """The commit of this code, with ``-dirty`` where files differ from it."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    here = Path(__file__).parent
    found = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    return found.stdout.strip() or None
