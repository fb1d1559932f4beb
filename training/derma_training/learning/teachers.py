"""Networks trained before, whose answers are targets too (Hinton et al., arXiv 1503.02531).

    teachers = Teachers([one, other], tokenizer, prompts, torch.device("cpu"))
    teachers(images, prior)          # probabilities, shape (B, conditions)

They see what the student sees, augmentation included, but every patch of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from derma_training.model import Clip, Tokenizer, encode_conditions


class Teachers:
    """No module, so that whoever holds it neither trains nor stores these networks."""

    def __init__(
        self,
        models: Sequence[Clip],
        tokenizer: Tokenizer,
        prompts: Mapping[str, Sequence[str]],
        device: torch.device,
    ) -> None:
        self.models = [model.to(device).eval() for model in models]
        self.texts = [encode_conditions(model, tokenizer, prompts).clone() for model in self.models]

    @torch.no_grad()
    def __call__(self, images: Tensor, prior: Tensor) -> Tensor:
        """Their mean probabilities of normalised NCHW images, where conditions are as frequent as ``prior``.

        Returns:
            fp32, shape (B, conditions).
        """
        logits = [
            self._logits(model, text, model.encode_image(images, normalize=True))
            for model, text in zip(self.models, self.texts, strict=True)
        ]
        return torch.stack([(rows + prior.log()).softmax(dim=-1) for rows in logits]).mean(dim=0)

    @staticmethod
    def _logits(model: Clip, text: Tensor, image: Tensor) -> Tensor:
        with torch.autocast(image.device.type, enabled=False):  # bf16 would move them by tenths
            logits: Tensor = model.logit_scale.exp() * image.float() @ text.T
        return logits
