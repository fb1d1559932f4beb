"""One phase of training: images against the text definitions of their conditions.

    run = Run(Accelerator(cpu=True), folder, seed=0, inputs="digest of data and start")
    fit(Task(model, texts, normalise, training, validation), phase, run)

Started again after a kill, it continues at its last checkpoint and ends with the same
weights, on a CPU to the last bit. Under ``torchrun`` every process takes its share of each batch.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from derma_training.learning.checkpoint import restore, trainable
from derma_training.learning.config import Phase, WordsPhase
from derma_training.learning.objective import embedded
from derma_training.learning.trainer import Run, Task, Trainer, checkpoint_of


def fit(task: Task, phase: Phase, run: Run) -> dict[str, float]:
    """Train the parameters of the task's model that require gradients, in place.

    A soup is trained several times from the same start, and the mean of the results stays.

    Returns:
        ``balanced_accuracy`` and ``macro_auc`` of the result on the validation part; empty without one.

    Raises:
        ValueError: the folder holds another run's checkpoint, or there are too few images for a batch.
    """
    for name in phase.networks:
        checkpoint_of(phase, run, name).load()  # refuses another run's at once, not after others
    task = _placed(task, phase, run)
    start, results = trainable(task.model), []
    for name in phase.networks:
        restore(task.model, start)
        trainer = Trainer(task, phase, run, name)
        trainer.train()
        results.append(trainable(task.model))
        run.accelerator.free_memory()
    if len(results) > 1:
        restore(task.model, {name: torch.stack([one[name] for one in results]).mean(dim=0) for name in start})
    return trainer.validate(task.model)


def _placed(task: Task, phase: Phase, run: Run) -> Task:
    """The task on the run's device; for a phase of words with its images embedded."""
    device = run.accelerator.device
    task.model.to(device).eval()
    for block in task.model.visual.trunk.blocks:  # written out, it is faster on a CPU only
        block.attn.fused_attn = device.type == "cuda"
    task.normalise.to(device)
    if not isinstance(phase, WordsPhase):
        return task
    model, normalise, validation = task.model, task.normalise, task.validation
    if validation:
        validation = embedded(model, normalise, validation, "validation")
    return replace(
        task, training=embedded(model, normalise, task.training, "training"), validation=validation
    )
