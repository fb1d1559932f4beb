"""A run from a configuration to a sealed bundle.

    config = load("training/configs/derma-mini.toml")
    bundle = make_bundle(config, read(folder), Place(start, Path("derma-mini")))

Everything a run leaves behind while it works is in ``<out>.run``: configuration, loss
curves, TensorBoard logs, checkpoints. A later call with the same arguments goes on.
"""

from __future__ import annotations

import copy
import hashlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator

from derma_semantics.domain.conditions import CONDITIONS
from derma_training.bundle import MANIFEST, Bundle
from derma_training.bundle.split import bundle_parts
from derma_training.data import Example, Parts, Shares, labels, load_pixels, split_by_lesion
from derma_training.learning.batches import TrainingSet
from derma_training.learning.config import Config, LoraPhase, WordsPhase, dump
from derma_training.learning.definitions import Definitions
from derma_training.learning.finish import CONFIGURATION, finish, git_commit
from derma_training.learning.fit import fit
from derma_training.learning.start import check_unseen, first_model, prepare, start_bundle, start_digest
from derma_training.learning.trainer import Run, Task
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

PROMPTS = {condition.code: condition.prompts for condition in CONDITIONS}

Say = Callable[[str], object]


@dataclass(frozen=True)
class Place:
    """The paths of a run: its start and its results.

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

    @property
    def adapter(self) -> Path:
        return self.out / "adapter"


def make_bundle(
    config: Config, examples: Sequence[Example], place: Place, *, say: Say = print
) -> Bundle | None:
    """Train, calibrate, measure and seal.

    Returns:
        The bundle; None in a process that only helped (``torchrun``).
    """
    commit = git_commit()
    parts = split(examples, config, place.start)
    accelerator = train_weights(config, parts, place, say=say)
    if not accelerator.is_main_process:
        return None
    bundle = finish(config, parts, place.start, place.out, commit)
    shutil.rmtree(place.run / "checkpoints")
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
    training = _decoded(parts.train, "training")
    validation = _decoded(parts.validation, "validation") if parts.validation else None
    lists = (_rows(parts.train), _rows(parts.validation), map(str, PROMPTS.items()))
    inputs = " ".join([*map(_digest, lists), start_digest(config, place.start)])
    for number in range(len(config.phases)):
        run = Run(accelerator, place.run, config.seed, f"{inputs} after {config.phases[:number]!r}")
        _run_phase(config, number, training, validation, place, run, say)
    return accelerator


def _run_phase(
    config: Config,
    number: int,
    training: TrainingSet,
    validation: TrainingSet | None,
    place: Place,
    run: Run,
    say: Say,
) -> None:
    phase, main = config.phases[number], run.accelerator.is_main_process
    torch.manual_seed(config.seed)  # what starts at random must not depend on where a run stopped
    model = first_model(config, place.start, place.out) if number == 0 else build_model(place.out)
    learner, adapted = model, None
    if isinstance(phase, LoraPhase):
        adapted = add_lora(model, r=phase.r, alpha=phase.lora_alpha)
    elif isinstance(phase, WordsPhase):
        learner = _as_served(model, place.adapter)
    else:
        model.text.transformer.requires_grad_(False)
    if main:
        say(f"{phase.name}: {count_parameters(learner)}")
    texts = Definitions(learner.to(run.accelerator.device), load_tokenizer(place.out), PROMPTS)
    task = Task(learner, texts, Normalise(*pixel_statistics(place.out)), training, validation)
    figures = fit(task, phase, run)
    if main and adapted is not None:
        adapted.half().save_pretrained(str(place.adapter))
    elif main:
        # In a phase of words the learner is a copy with the adapter merged, which stays apart.
        model.text.proj.load_state_dict(learner.text.proj.state_dict())
        model.logit_scale.data.copy_(learner.logit_scale.data)
        save_weights(model, place.out)
    if main and figures:
        told = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in figures.items())
        say(f"{phase.name}: on validation {told}")
    run.accelerator.free_memory()
    run.accelerator.wait_for_everyone()


def _as_served(model: Clip, adapter: Path) -> Clip:
    """A copy with its adapter merged, of which only the projection of texts and the scale train."""
    tower = copy.deepcopy(model)
    if adapter.is_dir():
        tower = merge_adapter(tower, adapter)
    for part in (tower.requires_grad_(False).text.proj, tower.logit_scale):
        part.requires_grad_(True)
    return tower


def _begin(config: Config, place: Place) -> None:
    """Write what a run can be repeated from, and the untrained part of the bundle.

    Raises:
        ValueError: there is a finished bundle already, or a network that this run does not train.
    """
    if (place.out / MANIFEST).exists():
        raise ValueError(f"{place.out} holds a finished bundle: remove it, or choose another --out")
    names = {name for phase in config.phases for name in phase.networks}
    if strays := [path for path in place.run.glob("checkpoints/*.pt") if path.stem not in names]:
        raise ValueError(f"{strays[0]} belongs to another run. Remove its folder, or choose another --out.")
    prepare(config, place.start, place.out)
    place.run.mkdir(parents=True, exist_ok=True)
    (place.run / CONFIGURATION).write_text(dump(config))


def _decoded(examples: Sequence[Example], part: str) -> TrainingSet:
    return TrainingSet(load_pixels(examples, label=f"{part} images"), labels(examples))


def _rows(examples: Iterable[Example]) -> Iterable[str]:
    """The rows that training draws from, in its order."""
    return (f"{e.name} {e.condition} {e.lesion} {e.source}" for e in examples)


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
