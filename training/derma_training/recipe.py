"""A run from a configuration to a sealed bundle.

    bundle = make_bundle(load("training/configs/derma-mini.toml"), read(folder), start, Path("derma-mini"))

Everything a run leaves behind while it works is in ``<out>.run``: configuration, loss
curves, TensorBoard logs, checkpoints. A later call with the same arguments goes on.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import save_file

from derma_semantics.conditions import CONDITIONS
from derma_training import architecture
from derma_training.bundle import (
    MANIFEST,
    WEIGHTS,
    Bundle,
    Calibration,
    seal,
    sha256,
    write_calibration,
    write_json,
    write_prompts,
)
from derma_training.calibration.recalibrate import one_a_lesion
from derma_training.calibration.scaling import fit_scaling
from derma_training.calibration.thresholds import calibrate
from derma_training.card import DATA_LICENCE, INTENDED_USE, model_card
from derma_training.classifier import Normalise
from derma_training.data import Example, Parts, Shares, downsample, labels, load_pixels, pick, split_by_lesion
from derma_training.evaluate import answers, evaluate
from derma_training.learning.batches import TrainingSet
from derma_training.learning.config import Config, dump
from derma_training.learning.fit import Run, fit
from derma_training.model import (
    Clip,
    add_lora,
    build_model,
    count_parameters,
    load_tokenizer,
    pixel_statistics,
    trained_state,
)
from derma_training.prompts.report import report as report_prompts
from derma_training.quality.fit import fit_quality
from derma_training.quality.limits import write_quality

CONFIGURATION = "training.toml"
SPLIT = "split.json"
PROMPTS = {condition.code: condition.prompts for condition in CONDITIONS}
BASES = {
    "mini": "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "biomedclip": "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
}

Say = Callable[[str], object]


@dataclass(frozen=True)
class Place:
    """Where a run reads its start and writes its results.

    Attributes:
        start: timm weights (base ``mini``), or the folder of ``derma-train fetch-base``.
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
    workers: int = 0,
    say: Say = print,
) -> Bundle | None:
    """Train, calibrate, measure and seal.

    Returns:
        The bundle; None in a process that only helped (``torchrun``).
    """
    commit = _git_commit()
    parts = split(examples, config)
    accelerator = train_weights(config, parts, place, workers=workers, say=say)
    if not accelerator.is_main_process:
        return None
    bundle = finish(config, parts, place, commit)
    shutil.rmtree(place.run / "checkpoints")
    return bundle


def split(examples: Sequence[Example], config: Config) -> Parts:
    """The parts that the configuration asks for."""
    settings = config.split
    shares = Shares(settings.test, settings.calibration, settings.validation)
    return split_by_lesion(
        examples, seed=settings.seed, fold=settings.fold, shares=shares, target=settings.target
    )


def bundle_parts(bundle: Bundle, examples: Sequence[Example]) -> Parts:
    """The parts that a bundle was made with; every image it did not hold out trained it.

    The part ``other`` may be missing from ``examples``, with the collections that it is of.
    """
    held_out = json.loads((bundle.path / SPLIT).read_text())
    other = set(held_out.pop("other", ()))
    parts = {name: pick(examples, names) for name, names in held_out.items()}
    kept = other.union(*held_out.values())
    train = [example for example in examples if example.name not in kept]
    return Parts(train, **parts, other=[example for example in examples if example.name in other])


def train_weights(config: Config, parts: Parts, place: Place, *, workers: int, say: Say) -> Accelerator:
    """Run all phases and leave configuration, text encoder, weights and adapter in ``place.out``."""
    accelerator = Accelerator(mixed_precision=config.precision)
    if accelerator.is_main_process:
        _begin(config, place)
    accelerator.wait_for_everyone()
    lists = (_rows(parts.train), _rows(parts.validation), map(str, PROMPTS.items()))
    inputs = " ".join([*map(_digest, lists), _start_digest(config, place)])
    run = Run(accelerator, place.run, config.seed, inputs, workers)
    for number in range(len(config.phases)):
        _run_phase(config, number, parts, place, run, say)
    return accelerator


def _run_phase(config: Config, number: int, parts: Parts, place: Place, run: Run, say: Say) -> None:
    phase, main = config.phases[number], run.accelerator.is_main_process
    torch.manual_seed(config.seed)  # what starts at random must not depend on where a run stopped
    model = _start(config, place) if number == 0 else build_model(place.out)
    if phase.method == "lora":
        adapted = add_lora(model, r=phase.lora.r, alpha=phase.lora.alpha, text=phase.lora.text)
    else:
        model.text.transformer.requires_grad_(False)
    if main:
        say(f"{phase.name}: {count_parameters(model)}")
    run = replace(run, inputs=f"{run.inputs} after {config.phases[:number]!r}")
    chosen = parts.train
    if phase.balance.max_nevi:
        chosen = downsample(chosen, most=phase.balance.max_nevi, seed=config.seed)
    validation = _decoded(parts.validation, "validation") if parts.validation else None
    normalise = Normalise(*pixel_statistics(place.out))
    tokenizer = load_tokenizer(place.out)
    figures = fit(model, tokenizer, PROMPTS, normalise, _decoded(chosen, "training"), validation, phase, run)
    if main:
        if phase.method == "lora":
            adapted.half().save_pretrained(str(place.out / "adapter"))
        else:
            save_weights(model, place.out)
        if figures:
            told = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in figures.items())
            say(f"{phase.name}: on validation {told}")
    run.accelerator.free_memory()
    run.accelerator.wait_for_everyone()


def save_weights(model: Clip, folder: Path) -> None:
    """All tensors of ours in fp16, safetensors format, in the place of a start's own file."""
    for path in folder.glob("open_clip_pytorch_model.*"):
        path.unlink()
    state = trained_state(model, folder)
    save_file({name: t.half().contiguous().cpu() for name, t in state.items()}, str(folder / WEIGHTS))


def finish(config: Config, parts: Parts, place: Place, commit: str | None) -> Bundle:
    """Calibrate on the calibration part, measure on the test part, write the card, seal."""
    folder = place.out
    facts = {
        "name": config.name,
        "base_model": BASES[config.base],
        "licence": DATA_LICENCE,
        "intended_use": INTENDED_USE,
        "git_commit": commit,
    }
    (folder / MANIFEST).unlink(missing_ok=True)  # until it is sealed anew, this is no bundle
    _tidy_adapter(folder / "adapter")
    (folder / CONFIGURATION).write_text(dump(config))
    write_prompts(folder)
    held_out = {name: examples for name, examples in parts if name != "train"}
    write_json(folder / SPLIT, {name: _names(examples) for name, examples in held_out.items() if examples})
    unsealed = Bundle(folder, facts, digest="00" * 32)
    calibration = _calibration(unsealed, parts)
    write_calibration(folder, calibration)
    write_quality(folder, fit_quality(unsealed, parts))
    counts = {name: len(examples) for name, examples in parts}
    report = {
        "data": _sources(parts.test),
        "training_data": _sources(parts.train),
        "split": {"by": "lesion", **config.split.model_dump(), "images": counts},
        "scorer": "derma-train evaluate",
        **evaluate(unsealed, parts.test),
        "text": report_prompts(unsealed, parts),
    }
    if parts.other:
        report["other"] = {"data": _sources(parts.other), **evaluate(unsealed, parts.other, part="other")}
    write_json(folder / "metrics.json", report)
    (folder / "MODEL_CARD.md").write_text(model_card(config, counts, report, calibration))
    return seal(folder, **facts)


def _calibration(bundle: Bundle, parts: Parts) -> Calibration:
    """Scaling from the validation part, where there is one; thresholds from the calibration part."""
    write_calibration(bundle.path, Calibration())
    known = parts.validation or parts.calibration
    where = f"the bundle's {'validation' if parts.validation else 'calibration'} part"
    scaling = fit_scaling(answers(bundle, known)[0], labels(known).numpy(), name=where)
    held_out = one_a_lesion(parts.calibration)
    probabilities = scaling.apply(answers(bundle, held_out)[0])
    name = "the bundle's calibration part"
    return calibrate(probabilities, labels(held_out).numpy(), scaling, name=name)


def _begin(config: Config, place: Place) -> None:
    """Write what a run can be repeated from, and the untrained part of the bundle.

    Raises:
        ValueError: there is a finished bundle already.
    """
    if (place.out / MANIFEST).exists():
        raise ValueError(f"{place.out} holds a finished bundle: remove it, or choose another --out")
    for leftover in ("text", "adapter"):
        shutil.rmtree(place.out / leftover, ignore_errors=True)
    place.run.mkdir(parents=True, exist_ok=True)
    (place.run / CONFIGURATION).write_text(dump(config))
    place.out.mkdir(parents=True, exist_ok=True)
    if config.base == "mini":
        architecture.write_mini(place.out)
    else:
        shutil.copytree(place.start, place.out, dirs_exist_ok=True)


def _start(config: Config, place: Place) -> Clip:
    """The model before its first step."""
    if config.base == "biomedclip":
        return build_model(place.start)
    model = build_model(place.out, weights=False)
    architecture.load_timm_trunk(model, place.start)
    return model


def _start_digest(config: Config, place: Place) -> str:
    if config.base == "mini":
        return sha256(place.start)
    return " ".join(sha256(path) for path in sorted(place.start.glob("open_clip_*model.*")))


def _decoded(examples: Sequence[Example], part: str) -> TrainingSet:
    return TrainingSet(load_pixels(examples, label=f"{part} images"), labels(examples))


def _names(examples: Sequence[Example]) -> list[str]:
    return sorted(example.name for example in examples)


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
