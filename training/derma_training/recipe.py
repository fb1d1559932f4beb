"""How ``derma-mini`` is made: every tensor trained here, then sealed with its measurements.

    bundle = make_mini(Path(ISIC2018_DIR), Path("vit_tiny_patch16_224.safetensors"), Path("bundle"))

Phase ``full`` trains both towers from a timm ViT-Tiny; its weights are rounded to fp16
and frozen. Phase ``lora`` trains adapters on top of exactly those rounded weights.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

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
from derma_training.calibrate import calibrate
from derma_training.card import DATA_LICENCE, INTENDED_USE, model_card
from derma_training.classifier import Normalise
from derma_training.data import Example, Parts, labels, load_pixels, read_isic2018, split_by_lesion
from derma_training.evaluate import answers, evaluate
from derma_training.fit import Phase, TrainingSet, fit
from derma_training.model import add_lora, build_model, count_parameters, load_tokenizer, pixel_statistics

PHASES = (
    Phase("full", epochs=10, learning_rate=2e-4, sampling=0.5, fresh=5.0),
    Phase("lora", epochs=3, learning_rate=5e-4, sampling=0.0),
)
DATA = "ISIC 2018 Task 3 training images"
WEIGHTS_STORY = (
    "timm's vit_tiny_patch16_224 (augreg, Apache-2.0) as a start, fully fine-tuned, then LoRA on top."
)


def make_mini(
    data: Path,
    start: Path,
    out: Path,
    *,
    seed: int = 0,
    phases: tuple[Phase, Phase] = PHASES,
) -> Bundle:
    """Train, calibrate, measure and seal a bundle.

    Interrupted, it continues from its last epoch: the state is in ``<out>.checkpoints``
    until the bundle is sealed.

    Args:
        data: folder in the official ISIC 2018 Task 3 layout, with a lesion table.
        start: timm state dict of ``vit_tiny_patch16_224``, safetensors.
        out: the bundle's folder.
    """
    commit = _git_commit()
    parts = split_by_lesion(read_isic2018(data), seed=seed)
    checkpoints = out.with_name(out.name + ".checkpoints")
    train_weights(parts, start, out, checkpoints, seed=seed, phases=phases)
    bundle = finish(parts, out, seed=seed, phases=phases, commit=commit)
    shutil.rmtree(checkpoints)
    return bundle


def train_weights(
    parts: Parts, start: Path, folder: Path, checkpoints: Path, *, seed: int, phases: tuple[Phase, Phase]
) -> None:
    """Run both phases and leave configuration, vocabulary, weights and adapter in ``folder``."""
    full, lora = phases
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    # The trainer of vocabularies breaks ties at random: a run keeps the one it began with.
    if not checkpoints.is_dir():
        architecture.write_mini(folder)
    vocabulary = sha256(folder / "text" / "vocab.txt")
    inputs = f"data {_names_digest(parts.train)} start {sha256(start)} vocabulary {vocabulary}"
    data = TrainingSet(load_pixels(parts.train, label="training images"), labels(parts.train))
    tokenizer = load_tokenizer(folder)
    normalise = Normalise(*pixel_statistics(folder))

    model = build_model(folder, weights=False)
    architecture.load_timm_trunk(model, start)
    print(f"full: {count_parameters(model)}")
    fit(model, tokenizer, data, normalise, full, seed=seed, checkpoints=checkpoints, inputs=inputs)
    save_weights(model, folder / WEIGHTS)

    torch.manual_seed(seed)  # the adapters' start must not depend on whether `full` was resumed
    model = build_model(folder)
    adapted = add_lora(model)
    print(f"lora: {count_parameters(adapted)}")
    fit(model, tokenizer, data, normalise, lora, seed=seed + 1, checkpoints=checkpoints, inputs=inputs)
    adapted.half().save_pretrained(str(folder / "adapter"))


def save_weights(model: nn.Module, path: Path) -> None:
    """All tensors in fp16, safetensors format."""
    save_file({name: t.half().contiguous() for name, t in model.state_dict().items()}, str(path))


def finish(
    parts: Parts, folder: Path, *, seed: int, phases: tuple[Phase, Phase], commit: str | None
) -> Bundle:
    """Calibrate on the calibration part, measure on the test part, write the card, seal."""
    facts = {
        "name": folder.name,
        "base_model": "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k",
        "licence": DATA_LICENCE,
        "intended_use": INTENDED_USE,
        "git_commit": commit,
        "training": {"data": DATA, "seed": seed, "phases": [asdict(phase) for phase in phases]},
    }
    (folder / MANIFEST).unlink(missing_ok=True)  # until it is sealed anew, this is no bundle
    _tidy_adapter(folder / "adapter")
    write_prompts(folder)
    write_json(
        folder / "split.json", {name: _names(getattr(parts, name)) for name in ("calibration", "test")}
    )
    unsealed = Bundle(folder, facts, digest="00" * 32)
    write_calibration(folder, Calibration())
    probabilities, _ = answers(unsealed, parts.calibration)
    calibration = calibrate(probabilities, labels(parts.calibration).numpy(), name=DATA)
    write_calibration(folder, calibration)
    counts = {name: len(getattr(parts, name)) for name in ("train", "calibration", "test")}
    report = {
        "data": DATA,
        "split": {"by": "lesion", "seed": seed, **counts},
        "scorer": "derma-train evaluate",
        **evaluate(unsealed, parts.test),
    }
    write_json(folder / "metrics.json", report)
    card = model_card(folder.name, WEIGHTS_STORY, counts, seed, report, calibration)
    (folder / "MODEL_CARD.md").write_text(card)
    return seal(folder, **facts)


def _names(examples: Sequence[Example]) -> list[str]:
    return sorted(example.path.stem for example in examples)


def _names_digest(examples: Sequence[Example]) -> str:
    return hashlib.sha256("\n".join(_names(examples)).encode()).hexdigest()


def _tidy_adapter(folder: Path) -> None:
    """Drop PEFT's README template and the training machine's path from the adapter."""
    (folder / "README.md").unlink(missing_ok=True)
    config = folder / "adapter_config.json"
    text = json.loads(config.read_text())
    write_json(config, {**text, "base_model_name_or_path": None})


def _git_commit() -> str | None:
    """The commit of this code, with ``-dirty`` where files differ from it."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    here = Path(__file__).parent
    found = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    return found.stdout.strip() or None
