"""The service one would write without this project: FastAPI, Pillow and PyTorch, fp32, eager.

    python -m derma_bench.servers.baseline_app training/bundles/derma-mini --port 19000
    curl --data-binary @lesion.jpg -H "Content-Type: image/jpeg" 127.0.0.1:19000/classify

Neither tuned nor hindered: open_clip's own transform, FastAPI's thread pool for a
blocking endpoint, PyTorch's default threads. Same weights, same answer.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated, Any

import click
import torch
import uvicorn
from fastapi import Body, FastAPI, HTTPException
from open_clip.transform import image_transform
from PIL import Image, UnidentifiedImageError

from derma_semantics.commands.terminal import help_text
from derma_semantics.domain.conditions import CODES
from derma_semantics.domain.contract import IMAGE_SIZE
from derma_training.bundle import Bundle
from derma_training.network.classifier import Classifier
from derma_training.network.model import pixel_statistics


def create_app(folder: Path) -> FastAPI:
    """The application that serves a bundle."""
    bundle = Bundle.open(folder)
    classifier = Classifier.from_bundle(bundle)
    trunk: Any = classifier.visual.trunk
    for block in trunk.blocks:
        block.attn.fused_attn = True  # timm's default, which our export turns off
    mean, std = (tuple(values) for values in pixel_statistics(folder))
    transform = image_transform(IMAGE_SIZE, is_train=False, mean=mean, std=std)
    app = FastAPI(title="baseline")

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"bundle": bundle.digest}

    @app.post("/classify")
    def classify(image: Annotated[bytes, Body(media_type="image/jpeg")]) -> dict[str, float]:
        try:
            pixels = transform(Image.open(io.BytesIO(image)))
        except (UnidentifiedImageError, OSError) as exc:
            raise HTTPException(400, f"not an image: {exc}") from exc
        with torch.inference_mode():
            embedding = torch.nn.functional.normalize(classifier.visual(pixels[None]), dim=-1)
            logits = classifier.scale * embedding @ classifier.text.T
            return dict(zip(CODES, logits.softmax(dim=-1)[0].tolist()))

    return app


@click.command(help=help_text(__doc__))
@click.argument("folder", metavar="BUNDLE", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--port", default=19000, show_default=True)
def main(folder: Path, port: int) -> None:
    uvicorn.run(create_app(folder), host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main()
