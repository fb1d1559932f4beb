"""One image and one text to an explanation: the sidecar without its HTTP.

    explainer = Explainer.from_bundle(Bundle.open("training/bundles/derma-mini"))
    explainer.explain(jpeg_bytes, prompt="signs of melanoma").grid      # (14, 14)

Not for several threads at once: methods put hooks on the network while they run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from derma_saliency.methods import DEFAULT, METHODS
from derma_saliency.texts import Texts, check_text
from derma_semantics.domain.conditions import CODES
from derma_semantics.domain.errors import InvalidRequest
from derma_semantics.imaging.guarded import GuardedDecoder
from derma_semantics.imaging.preprocess import crop_box
from derma_semantics.saliency import Explanation
from derma_training.bundle import Bundle
from derma_training.network.classifier import Answers, Classifier
from derma_training.network.model import load_merged, load_tokenizer

# In patches: neighbours see much the same, and a single one that shines is mostly an artefact.
SMOOTHING = 1.0


class Explainer:
    """The bundle's network as it is served, and its text encoder.

    Attributes:
        classifier: its weights are frozen.
        texts: embeds prompts.
    """

    def __init__(self, classifier: Classifier, texts: Texts, name: str) -> None:
        self.classifier = classifier.requires_grad_(False)
        self.texts = texts
        self.name = name
        self.decoder = GuardedDecoder()
        self.digest = bytes(classifier.digest.tolist()).hex()

    @classmethod
    def from_bundle(cls, bundle: Bundle, device: str | torch.device | None = None) -> Explainer:
        """Load on ``device``; by default a GPU where there is one."""
        # Triton's fp32 is compared with ours.
        torch.backends.cudnn.allow_tf32 = False
        with _one_thread():
            model, tokenizer = load_merged(bundle), load_tokenizer(bundle.path)
            classifier = Classifier.around(model, bundle)
        explainer = cls(classifier, Texts(model, tokenizer, classifier.text), bundle.name)
        return explainer.to(device or best_device())

    def to(self, device: str | torch.device) -> Explainer:
        """Move it there."""
        self.classifier.to(device)
        self.texts.to(device)
        return self

    @property
    def device(self) -> str:
        return str(self.classifier.text.device)

    def explain(
        self,
        image: bytes,
        *,
        prompt: str | None = None,
        condition: str | None = None,
        method: str | None = None,
    ) -> Explanation:
        """Explain the score of an encoded image for a prompt or a condition, patch by patch.

        Raises:
            InvalidImage: one of its subclasses, naming the problem and the limit.
            InvalidRequest: the text or the method is refused.
        """
        method = check_method(method)
        check_text(prompt, condition)
        decoded, size = self.decoder.preprocess(image)
        pixels = torch.from_numpy(decoded.copy())[None].to(self.classifier.text.device)
        direction = self.texts.direction(prompt=prompt, condition=condition)[None]
        grids, answers = self.relevance(pixels, direction, method)
        return Explanation(
            text=prompt if prompt is not None else str(condition),
            method=method,
            score=float((answers.embedding * direction).sum()),
            probabilities=dict(zip(CODES, answers.probabilities[0].tolist(), strict=True)),
            grid=grids[0].cpu().numpy(),
            size=size,
            crop=crop_box(size),
            bundle_digest=self.digest,
        )

    def relevance(self, pixels: Tensor, directions: Tensor, method: str) -> tuple[Tensor, Answers]:
        """Smoothed maps in [0, 1], fp32 (B, rows, columns), and the answers of the same forward pass."""
        grids, answers = METHODS[method].relevance(self.classifier, pixels, directions)
        return smooth(grids.detach().float()), Answers(*(tensor.detach() for tensor in answers))


def best_device() -> str:
    """To ask starts CUDA, which no fork survives."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def _one_thread() -> Iterator[None]:
    """For loading, which is many small steps: on a busy machine threads wait for each other in each."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def check_method(method: str | None) -> str:
    """The method's name, the default where none is given.

    Raises:
        InvalidRequest: there is no such method.
    """
    if method is not None and method not in METHODS:
        raise InvalidRequest(f"unknown method: expected one of {', '.join(METHODS)}")
    return method or DEFAULT


def smooth(grids: Tensor) -> Tensor:
    """Blurred by one patch, then scaled to [0, 1] each; a map without any relief is 0."""
    blurred: Tensor = gaussian_blur(grids, [7, 7], [SMOOTHING, SMOOTHING])
    low, high = blurred.amin(dim=(1, 2), keepdim=True), blurred.amax(dim=(1, 2), keepdim=True)
    scaled: Tensor = (blurred - low) / (high - low).clamp_min(torch.finfo(blurred.dtype).tiny)
    return scaled
