"""What a run starts from: timm's weights, a bundle whose image tower goes on, or BiomedCLIP.

    check_unseen(start, parts)                   # a bundle that has learned from what is held out is refused
    prepare(config, start, out)                  # everything in the new bundle that is not trained
    model = first_model(config, start, out)

A start that is a folder with ``bundle.json`` is a bundle, with base ``mini``.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from derma_training.bundle import MANIFEST, Bundle, sha256
from derma_training.bundle.split import SPLIT, trained_names
from derma_training.data import Parts
from derma_training.learning.config import Config
from derma_training.network import architecture, text_package
from derma_training.network.model import Clip, build_model, load_merged

BASES = {
    "mini": "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "biomedclip": "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
}


def start_bundle(start: Path) -> Bundle | None:
    """The bundle that ``start`` is; None where it is something else."""
    return Bundle.open(start) if (start / MANIFEST).is_file() else None


def check_unseen(start: Path, parts: Parts) -> None:
    """Refuse a start that has learned from images, or lesions, which are held out here.

    Raises:
        ValueError: names the part and an image.
    """
    bundle = start_bundle(start)
    if bundle is None:
        return
    trained = trained_names(bundle)
    lesions = {e.lesion for _, examples in parts for e in examples if e.name in trained}
    for part, examples in parts:
        seen = [e.name for e in examples if e.lesion in lesions]
        if part != "train" and seen:
            raise ValueError(
                f"{len(seen)} images of the part {part}, e.g. {seen[0]}, may have trained {start}: "
                f"hold out what it held out ({start / SPLIT}), or start from something else"
            )


def prepare(config: Config, start: Path, out: Path) -> None:
    """Write what no phase trains: configuration, text encoder; BiomedCLIP's own files; a start's adapter.

    Raises:
        ValueError: the start is a bundle, and it or the run is of another base than ``mini``.
    """
    bundle = start_bundle(start)
    if bundle and {config.base, bundle.manifest["base_model"]} != {"mini", BASES["mini"]}:
        raise ValueError(
            f"{start} is a bundle of {bundle.manifest['base_model']}, the run's base is {config.base}: "
            f"only bundles of {BASES['mini']} go on, with base mini"
        )
    for leftover in ("text", "adapter"):
        shutil.rmtree(out / leftover, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    if config.base == "biomedclip":
        shutil.copytree(start, out, dirs_exist_ok=True)
        return
    architecture.write_mini(out)
    if bundle and bundle.adapter and _keeps_adapter(config):
        shutil.copytree(bundle.adapter, out / "adapter")


def first_model(config: Config, start: Path, out: Path) -> Clip:
    """The model before its first step, without the adapter that ``prepare`` may have copied."""
    if config.base == "biomedclip":
        return build_model(start)
    model = build_model(out, weights=False)
    bundle = start_bundle(start)
    if bundle is None:
        architecture.load_timm_trunk(model, start)
        return model
    old = build_model(bundle.path) if _keeps_adapter(config) else load_merged(bundle)
    model.visual.load_state_dict(old.visual.state_dict())
    if text_package.locate(bundle.path) == text_package.locate(out):
        model.text.proj.load_state_dict(old.text.proj.state_dict())
        model.logit_scale.data.copy_(old.logit_scale.data)
    return model


def start_digest(config: Config, start: Path) -> str:
    """Identifies the weights of the start."""
    if bundle := start_bundle(start):
        return bundle.digest
    if config.base == "mini":
        return sha256(start)
    return " ".join(sha256(path) for path in sorted(start.glob("open_clip_*model.*")))


def facts(config: Config, start: Path) -> dict[str, Any]:
    """What the new bundle says of its start."""
    if bundle := start_bundle(start):
        commit = bundle.manifest.get("git_commit")
        known = {"name": bundle.name, "digest": bundle.digest, "git_commit": commit}
        return {"base_model": bundle.manifest["base_model"], "start": known}
    return {"base_model": BASES[config.base]}


def _keeps_adapter(config: Config) -> bool:
    """Only a run of words leaves the image tower, and so the adapter on it, as it was."""
    return all(phase.method == "words" for phase in config.phases)
