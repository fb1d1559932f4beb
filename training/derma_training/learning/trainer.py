"""The loop of every phase: one network, step by step, with its checkpoints and its log.

trainer = Trainer(task, phase, run, phase.name)     # goes on where its checkpoint is
trainer.train()
trainer.validate(task.model)["balanced_accuracy"]
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from derma_semantics.evaluation.metrics import balanced_accuracy, macro_auc
from derma_training.learning.batches import DROPOUT, Batches, TrainingSet, mix
from derma_training.learning.checkpoint import Checkpoint, restore, trainable
from derma_training.learning.config import Phase, WordsPhase
from derma_training.learning.definitions import Definitions
from derma_training.learning.history import History
from derma_training.learning.objective import BATCH, Objective
from derma_training.learning.rates import cosine, parameter_groups
from derma_training.network.classifier import Normalise
from derma_training.network.model import Clip

MAX_LOGIT_SCALE = math.log(100)
CHECKPOINT_STEPS = 100
# Of a phase at most, however many epochs it has.
REPORTS = 20


@dataclass(frozen=True)
class Run:
    """The place and the settings of one phase.

    Attributes:
        folder: takes checkpoints, loss curves and TensorBoard logs.
        inputs: identifies what else the result depends on, e.g. digests of data and weights.
    """

    accelerator: Accelerator
    folder: Path
    seed: int
    inputs: str = ""


@dataclass(frozen=True)
class Task:
    """A network, what it learns from, and what measures it; the texts are on the model's device."""

    model: Clip
    texts: Definitions
    normalise: Normalise
    training: TrainingSet
    validation: TrainingSet | None = None


class Trainer:
    """The moving parts of one network of a phase."""

    def __init__(self, task: Task, phase: Phase, run: Run, name: str) -> None:
        self.task, self.phase, self.run, self.name = task, phase, run, name
        self.accelerator, self.model = run.accelerator, task.model
        self.seed = mix(run.seed, zlib.crc32(name.encode()))  # phases do not repeat each other
        self.stream = Batches(
            task.training,
            phase,
            seed=self.seed,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
            device=self.accelerator.device,
        )
        self.total = phase.epochs * self.stream.steps
        objective = Objective(self.model, task.normalise, task.texts, phase, self.stream.prior, self.seed)
        optimiser = torch.optim.AdamW(parameter_groups(self.model, phase))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, cosine(phase, self.total))
        self.objective, self.optimiser = self.accelerator.prepare(objective, optimiser)
        average = get_ema_multi_avg_fn(phase.ema_decay)
        self.average = AveragedModel(self.model, multi_avg_fn=average) if phase.ema_decay else None
        self.checkpoint = checkpoint_of(phase, run, name)
        self.losses: list[float] = []  # of this epoch
        self.step = self._resume()

    def train(self) -> None:
        """Run the epochs that are left, and leave the averaged or last weights in the model."""
        batches = self.stream.from_step(self.step)
        with History(self._log_folder(), self.name, first_step=self.step) as history:
            for epoch in range(self.step // self.stream.steps, self.phase.epochs):
                self._epoch(epoch, batches, history)
                self._finish_epoch(epoch, history)
        restore(self.model, trainable(self._current()))
        self.model.eval()

    @torch.inference_mode()
    def validate(self, model: Clip) -> dict[str, float]:
        """``balanced_accuracy`` and ``macro_auc`` on the validation part; empty without one."""
        data = self.task.validation
        if data is None:
            return {}
        text, parts = self.task.texts.conditions(model.eval()), []
        for inputs in data.inputs.split(BATCH):
            image = inputs.to(text.device)
            if not isinstance(self.phase, WordsPhase):
                with self.accelerator.autocast():
                    image = model.encode_image(self.task.normalise(image), normalize=True)
            parts.append((model.logit_scale.exp() * image.float() @ text.T).softmax(dim=-1).cpu())
        return figures_of(torch.cat(parts), data.labels)

    def _epoch(self, epoch: int, batches: Iterator[tuple[Tensor, Tensor]], history: History) -> None:
        """Steps up to the end of an epoch."""
        self.model.train()
        steps = range(self.step, (epoch + 1) * self.stream.steps)
        bar = tqdm(
            steps,
            desc=f"{self.name} {epoch + 1}/{self.phase.epochs}",
            unit="batch",
            leave=self._told(epoch),
            disable=not self.accelerator.is_main_process,
        )
        for step in bar:
            rate = self.phase.learning_rate * self.schedule.lr_lambdas[0](step)
            self.losses.append(self._step(batches))
            history.step(step, loss=self.losses[-1], learning_rate=rate)
            bar.set_postfix(loss=f"{np.mean(self.losses[-50:]):.3f}")
            self.step = step + 1
            if self.step % CHECKPOINT_STEPS == 0 and self.step != steps.stop:
                self._save()

    def _step(self, batches: Iterator[tuple[Tensor, Tensor]]) -> float:
        """One optimiser step over all its batches; returns the loss, the mean over processes."""
        total, pieces = 0.0, self.phase.gradient_accumulation
        for turn in range(pieces):
            inputs, labels = next(batches)
            # For drop path.
            torch.manual_seed(mix(self.seed, DROPOUT, self.step, turn, self.accelerator.process_index))
            with nullcontext() if turn == pieces - 1 else self.accelerator.no_sync(self.objective):
                loss = self.objective(inputs, labels, self.step, turn) / pieces
                self.accelerator.backward(loss)
            total += float(self.accelerator.reduce(loss.detach(), "mean"))
        if self.phase.max_grad_norm:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.phase.max_grad_norm)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.schedule.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        if self.average is not None:
            self.average.update_parameters(self.model)
        return total

    def _finish_epoch(self, epoch: int, history: History) -> None:
        values = {"epoch": float(epoch + 1), "loss": float(np.mean(self.losses))}
        self.losses = []
        if self.accelerator.is_main_process:
            values |= self.validate(self._current())
            if self._told(epoch):
                tqdm.write("  ".join(f"{name} {value:.4g}" for name, value in values.items()))
        history.epoch(self.step - 1, **values)
        self._save()

    def _told(self, epoch: int) -> bool:
        return (epoch + 1) % math.ceil(self.phase.epochs / REPORTS) == 0

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
        self.losses = state["losses"]
        return int(state["step"])


def figures_of(probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    """``balanced_accuracy`` and ``macro_auc`` of probabilities (N, 7) for condition indices (N,)."""
    given, truth = probabilities.double().numpy(), labels.numpy()
    area = macro_auc(given, truth)
    return {
        "balanced_accuracy": balanced_accuracy(given.argmax(axis=1), truth),
        "macro_auc": math.nan if area is None else area,
    }


def checkpoint_of(phase: Phase, run: Run, name: str) -> Checkpoint:
    """Of one network; its content tells which run it belongs to."""
    settings = f"{phase.model_dump_json()} seed {run.seed} {run.accelerator.mixed_precision} {run.inputs}"
    return Checkpoint(run.folder / "checkpoints" / f"{name}.pt", settings)
