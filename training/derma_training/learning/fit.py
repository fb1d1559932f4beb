"""One phase of training: images against the text definitions of their conditions.

    run = Run(Accelerator(cpu=True), folder, seed=0, inputs="digest of data and start")
    fit(model, tokenizer, prompts, normalise, training, validation, phase, run)

Started again after a kill, it continues at its last checkpoint and ends with the same
weights, on a CPU to the last bit. Under ``torchrun`` every process takes its share of each batch.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from timm.layers import PatchDropout
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from derma_semantics.domain.conditions import CONDITIONS
from derma_semantics.evaluation.metrics import balanced_accuracy, macro_auc
from derma_training.learning import losses
from derma_training.learning.augmentation import blend
from derma_training.learning.batches import DROPOUT, MIXTURES, TEXTS, Batches, TrainingSet, mix
from derma_training.learning.checkpoint import Checkpoint, restore, trainable
from derma_training.learning.config import Phase
from derma_training.learning.definitions import Definitions
from derma_training.learning.history import History
from derma_training.learning.rates import cosine, parameter_groups
from derma_training.learning.teachers import Teachers
from derma_training.network.classifier import Normalise
from derma_training.network.model import Clip, Tokenizer

MAX_LOGIT_SCALE = math.log(100)
CHECKPOINT_STEPS = 100
EVALUATION_BATCH = 64


@dataclass(frozen=True)
class Run:
    """Where and how a phase runs.

    Attributes:
        folder: takes checkpoints, loss curves and TensorBoard logs.
        inputs: identifies what else the result depends on, e.g. digests of data and weights.
    """

    accelerator: Accelerator
    folder: Path
    seed: int
    inputs: str = ""


def fit(
    model: Clip,
    tokenizer: Tokenizer,
    prompts: Mapping[str, Sequence[str]],
    normalise: Normalise,
    training: TrainingSet,
    validation: TrainingSet | None,
    phase: Phase,
    run: Run,
) -> dict[str, float]:
    """Train the parameters of ``model`` that require gradients, in place.

    With ``phase.soup`` they are trained several times from the same start, and the results' mean stays.
    With ``phase.teachers`` others are trained from the same start before, and this one learns from them too.

    Returns:
        ``balanced_accuracy`` and ``macro_auc`` of the result on ``validation``; empty without one.

    Raises:
        ValueError: the folder holds another run's checkpoint, there are too few images for a
            batch, or early stopping has no validation part.
    """
    if phase.patience and validation is None:
        raise ValueError(f"phase {phase.name}: patience needs a validation part")
    _checkpoint(phase, run, phase.name).load()  # refuses another run's at once, not after others
    start, results, teachers = trainable(model), [], Teachers()
    for name in phase.names:
        restore(model, start)
        heard = teachers if name == phase.name else Teachers()
        trainer = _Trainer(model, tokenizer, prompts, normalise, training, phase, run, name, heard)
        with _patch_dropout(model, phase) as drop:
            trainer.train(validation, drop)
        trainer.conclude()
        if phase.teachers and name != phase.name:
            teachers.add(model, trainer.texts)
        results.append(trainable(model))
        run.accelerator.free_memory()
    if phase.soup > 1:
        restore(model, {name: torch.stack([one[name] for one in results]).mean(dim=0) for name in start})
    return trainer.validate(validation, averaged=False) if validation else {}


class Objective(nn.Module):
    """Pixels to loss, so that one call is what ``DistributedDataParallel`` needs."""

    prior: Tensor

    def __init__(
        self,
        model: Clip,
        normalise: Normalise,
        texts: Definitions,
        phase: Phase,
        teachers: Teachers,
        prior: Tensor,
        accelerator: Accelerator,
        seed: int,
    ) -> None:
        super().__init__()
        self.model, self.normalise = model, normalise
        self.texts, self.phase, self.teachers = texts, phase, teachers
        self.accelerator, self.seed = accelerator, seed
        self.register_buffer("prior", prior)

    def forward(self, pixels: Tensor, labels: Tensor, step: int, turn: int) -> Tensor:
        """The loss of uint8 NHWC pixels, batch ``turn`` of a step."""
        images = self.normalise(pixels)
        scale = self.model.logit_scale.exp()
        if self.phase.loss == "definitions":
            draw = torch.Generator().manual_seed(mix(self.seed, TEXTS, step))  # one text for the whole step
            rows = self.texts.draw(torch.arange(len(CONDITIONS)), draw)
            images, target = blend(images, labels, self.phase.mixup, mix(self.seed, MIXTURES, step, turn))
            image, text = self._embed(images), self.texts.encode(self.model, rows)
            answers = self.teachers(images) if self.teachers else None
            with self._exactly():
                loss = losses.definitions(image, text, target, scale, self.prior)
                if answers is None:
                    return loss
                taught = losses.distillation(image, text, scale, answers, self.phase.softness)
                return loss.lerp(taught, self.phase.taught)
        draw = torch.Generator().manual_seed(mix(self.seed, TEXTS, step, turn))
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        rows = self.texts.draw(labels, draw, rank=rank, world=world)
        image, text = self._embed(images), self.texts.encode(self.model, rows)
        with self._exactly():
            if self.phase.loss == "unicl":
                return losses.unicl(image, text, labels, scale)
            return losses.clip(image, text, scale)

    def _exactly(self) -> torch.autocast:
        """Losses in fp32, as similarities are served: bf16 would move logits by tenths."""
        return torch.autocast(self.accelerator.device.type, enabled=False)

    def _embed(self, images: Tensor) -> Tensor:
        return F.normalize(self.model.encode_image(images).float(), dim=-1)


class _Trainer:
    """The moving parts of one phase."""

    def __init__(
        self,
        model: Clip,
        tokenizer: Tokenizer,
        prompts: Mapping[str, Sequence[str]],
        normalise: Normalise,
        training: TrainingSet,
        phase: Phase,
        run: Run,
        name: str,
        teachers: Teachers,
    ) -> None:
        self.phase, self.run, self.accelerator = phase, run, run.accelerator
        self.name = name
        self.model = model.to(run.accelerator.device)
        for block in model.visual.trunk.blocks:  # written out, it is faster on a CPU only
            block.attn.fused_attn = run.accelerator.device.type == "cuda"
        self.start = trainable(model)
        self.seed = mix(run.seed, zlib.crc32(self.name.encode()))  # phases do not repeat each other
        self.stream = Batches(
            training,
            phase,
            seed=self.seed,
            rank=run.accelerator.process_index,
            world=run.accelerator.num_processes,
            device=run.accelerator.device,
        )
        self.total = phase.epochs * self.stream.steps
        self.texts = Definitions(model, tokenizer, prompts)
        self.normalise = normalise.to(run.accelerator.device)
        objective = Objective(
            model, normalise, self.texts, phase, teachers, self.stream.prior, run.accelerator, self.seed
        )
        optimiser = torch.optim.AdamW(parameter_groups(model, phase))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, cosine(phase, self.total))
        self.objective, self.optimiser = self.accelerator.prepare(objective, optimiser)
        self.average = (
            AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(phase.ema)) if phase.ema else None
        )
        self.checkpoint = _checkpoint(phase, run, name)
        self.losses: list[float] = []  # of this epoch
        self.best: dict[str, Any] = {"score": -1.0, "epoch": 0, "weights": {}}
        self.step = self._resume()

    def train(self, validation: TrainingSet | None, drop: PatchDropout | None) -> None:
        """Run the epochs that are left."""
        batches = self.stream.from_step(self.step)
        with History(self._log_folder(), self.name, first_step=self.step) as history:
            while self.step < self.total and not self._stopped():
                self._epoch(batches, drop, history)
                self._finish_epoch(validation, history)

    def conclude(self) -> None:
        """Leave the weights that count in the model: best, averaged or last, with a share of the start."""
        weights = self.best["weights"] if self.phase.patience else trainable(self._current())
        share = self.phase.wise
        restore(self.model, {name: w.lerp(self.start[name], share) for name, w in weights.items()})
        self.model.eval()

    @torch.inference_mode()
    def validate(self, data: TrainingSet, *, averaged: bool = True) -> dict[str, float]:
        """Measure the averaged weights, or those in the model."""
        model = self._current().eval() if averaged else self.model.eval()
        text = self.texts.conditions(model)
        parts = []
        for pixels in data.pixels.split(EVALUATION_BATCH):
            with self.accelerator.autocast():
                image = model.encode_image(self.normalise(pixels.to(text.device)), normalize=True)
            parts.append((model.logit_scale.exp() * image.float() @ text.T).softmax(dim=-1).cpu())
        return figures_of(torch.cat(parts), data.labels)

    def _epoch(
        self, batches: Iterator[tuple[Tensor, Tensor]], drop: PatchDropout | None, history: History
    ) -> None:
        """Steps up to the next end of an epoch."""
        self.model.train()
        epoch = self.step // self.stream.steps + 1
        steps = range(self.step, epoch * self.stream.steps)
        bar = tqdm(
            steps,
            desc=f"{self.name} {epoch}/{self.phase.epochs}",
            unit="batch",
            disable=not self.accelerator.is_main_process,
        )
        for step in bar:
            if drop is not None:
                drop.prob = self.phase.patch_dropout if step < (1 - self.phase.whole) * self.total else 0.0
            rate = self.phase.learning_rate * self.schedule.lr_lambdas[0](step)
            self.losses.append(self._step(batches))
            history.step(step, loss=self.losses[-1], learning_rate=rate)
            bar.set_postfix(loss=f"{np.mean(self.losses[-50:]):.3f}")
            self.step = step + 1
            if self.step % CHECKPOINT_STEPS == 0 and self.step != steps.stop:
                self._save()

    def _step(self, batches: Iterator[tuple[Tensor, Tensor]]) -> float:
        """One optimiser step over all its batches; returns the loss, the mean over processes."""
        total = 0.0
        for turn in range(self.phase.accumulate):
            pixels, labels = next(batches)
            # For drop path and patch dropout.
            torch.manual_seed(mix(self.seed, DROPOUT, self.step, turn, self.accelerator.process_index))
            last = turn == self.phase.accumulate - 1
            with nullcontext() if last else self.accelerator.no_sync(self.objective):
                loss = self.objective(pixels, labels, self.step, turn) / self.phase.accumulate
                self.accelerator.backward(loss)
            total += float(self.accelerator.reduce(loss.detach(), "mean"))
        self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.schedule.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        if self.average is not None:
            self.average.update_parameters(self.model)
        return total

    def _finish_epoch(self, validation: TrainingSet | None, history: History) -> None:
        epoch = self.step // self.stream.steps
        values = {"epoch": float(epoch), "loss": float(np.mean(self.losses))}
        self.losses = []
        if validation is not None:
            # Measured once, so that all processes stop at the same epoch.
            figures = [self.validate(validation) if self.accelerator.is_main_process else {}]
            values |= broadcast_object_list(figures)[0]
            if (score := values["balanced_accuracy"]) > self.best["score"]:
                self.best = {"score": score, "epoch": epoch, "weights": trainable(self._current())}
        history.epoch(self.step - 1, **values)
        if self.accelerator.is_main_process:
            tqdm.write("  ".join(f"{name} {value:.4g}" for name, value in values.items()))
        self._save()

    def _stopped(self) -> bool:
        epoch = self.step // self.stream.steps
        return bool(self.phase.patience and epoch - self.best["epoch"] >= self.phase.patience)

    def _current(self) -> Clip:
        """The model whose weights count so far."""
        return self.model if self.average is None else self.average.module

    def _log_folder(self) -> Path:
        """One a process, so that two never write to one file."""
        rank = self.accelerator.process_index
        return self.run.folder if rank == 0 else self.run.folder / f"process-{rank}"

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            self.checkpoint.save(
                {
                    "step": self.step,
                    "model": trainable(self.model),
                    "average": self.average and trainable(self.average.module),
                    "averaged": self.average and self.average.n_averaged,
                    "optimiser": self.optimiser.state_dict(),
                    "schedule": self.schedule.state_dict(),
                    "best": self.best,
                    "losses": self.losses,
                }
            )
        self.accelerator.wait_for_everyone()

    def _resume(self) -> int:
        state = self.checkpoint.load()
        if state is None:
            return 0
        restore(self.model, state["model"])
        if self.average is not None:
            restore(self.average.module, state["average"])
            self.average.n_averaged.copy_(state["averaged"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.best, self.losses = state["best"], state["losses"]
        return int(state["step"])


def figures_of(probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    """``balanced_accuracy`` and ``macro_auc`` of probabilities (N, 7) for condition indices (N,)."""
    given, truth = probabilities.double().numpy(), labels.numpy()
    area = macro_auc(given, truth)
    return {
        "balanced_accuracy": balanced_accuracy(given.argmax(axis=1), truth),
        "macro_auc": math.nan if area is None else area,
    }


def _checkpoint(phase: Phase, run: Run, name: str) -> Checkpoint:
    """Of one network; its content tells which run it belongs to."""
    settings = f"{phase.model_dump_json()} seed {run.seed} {run.accelerator.mixed_precision} {run.inputs}"
    return Checkpoint(run.folder / "checkpoints" / f"{name}.pt", settings)


@contextmanager
def _patch_dropout(model: Clip, phase: Phase) -> Iterator[PatchDropout | None]:
    """Let the image tower leave patches out while it trains."""
    trunk = model.visual.trunk
    before = trunk.patch_drop
    drop = PatchDropout(phase.patch_dropout, num_prefix_tokens=trunk.num_prefix_tokens)
    try:
        if phase.patch_dropout:
            trunk.patch_drop = drop
        yield drop if phase.patch_dropout else None
    finally:
        trunk.patch_drop = before
