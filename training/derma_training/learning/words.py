"""Texts for an image tower that stays as it is: locked-image tuning.

    figures = fit_words(model, tokenizer, prompts, normalise, training, validation, phase, run)

Images are embedded once, so what remains, the projection of texts and the scale, trains in seconds.
Noise on the texts stands for other words that mean the same.

Source: Zhai et al., LiT, arXiv 2111.07991; noise: Nukrai et al., CapDec, arXiv 2211.00575.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from derma_semantics.domain.conditions import CONDITIONS
from derma_training.learning import losses
from derma_training.learning.batches import ROWS, TEXTS, TrainingSet, mix, sampling
from derma_training.learning.config import Phase
from derma_training.learning.definitions import Definitions
from derma_training.learning.fit import MAX_LOGIT_SCALE, Run, figures_of
from derma_training.learning.history import History
from derma_training.learning.rates import cosine, parameter_groups
from derma_training.network.classifier import Normalise
from derma_training.network.model import Clip, Tokenizer

BATCH = 64


def fit_words(
    model: Clip,
    tokenizer: Tokenizer,
    prompts: Mapping[str, Sequence[str]],
    normalise: Normalise,
    training: TrainingSet,
    validation: TrainingSet | None,
    phase: Phase,
    run: Run,
) -> dict[str, float]:
    """Train the projection of texts and the scale, in place, in one process.

    Returns:
        ``balanced_accuracy`` and ``macro_auc`` on ``validation``; empty without one.
    """
    device = run.accelerator.device
    model.to(device).requires_grad_(False).eval()
    for part in (model.text.proj, model.logit_scale):
        part.requires_grad_(True)
    images = _embedded(model, normalise.to(device), training.pixels, "training")
    labels = training.labels.to(device)
    weights, prior = sampling(training.labels, phase.balance)
    texts = Definitions(model, tokenizer, prompts)
    optimiser = torch.optim.AdamW(parameter_groups(model, phase))
    steps = phase.epochs * (len(images) // phase.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, cosine(phase, steps))
    seed = mix(run.seed, zlib.crc32(phase.name.encode()))
    with History(run.folder, phase.name, first_step=0) as history:
        bar = tqdm(range(steps), desc=phase.name, unit="batch")
        for step in bar:
            draw = torch.Generator().manual_seed(mix(seed, ROWS, step))
            rows = torch.multinomial(weights, phase.batch_size, replacement=True, generator=draw)
            draw = torch.Generator().manual_seed(mix(seed, TEXTS, step))
            chosen = texts.draw(torch.arange(len(CONDITIONS)), draw)
            text = texts.encode(model, chosen, noise=phase.text_noise, generator=draw)
            scale = model.logit_scale.exp()
            loss = losses.definitions(images[rows], text, labels[rows], scale, prior.to(device))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            with torch.no_grad():
                model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
            history.step(step, loss=loss.item())
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    if validation is None:
        return {}
    embedded = _embedded(model, normalise, validation.pixels, "validation")
    with torch.no_grad():
        logits = model.logit_scale.exp() * embedded @ texts.conditions(model).T
    return figures_of(logits.softmax(dim=-1).cpu(), validation.labels)


@torch.no_grad()
def _embedded(model: Clip, normalise: Normalise, pixels: Tensor, what: str) -> Tensor:
    """Unit vectors of untouched images, fp32 (N, D)."""
    device = model.logit_scale.device
    bar = tqdm(pixels.split(BATCH), desc=f"embedding {what} images", unit="batch", leave=False)
    return torch.cat([model.encode_image(normalise(part.to(device)), normalize=True) for part in bar])
