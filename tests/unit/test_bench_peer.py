"""The public peer: what is sent to it, what it must answer, and what is said when it is missing."""

from __future__ import annotations

import asyncio
import base64
import json
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest

from derma_bench.load.senders import http
from derma_bench.servers.peer import architecture, check, environment, request
from derma_bench.servers.processes import ServiceFailed

URL = "http://127.0.0.1:1"


def answer(*lengths: int) -> dict[str, object]:
    data = [base64.b64encode(np.zeros(length, np.float32).tobytes()).decode() for length in lengths]
    return {"data": [{"object": "embedding", "embedding": one} for one in data]}


def send(image: bytes, *lengths: int, status: int = 200) -> list[httpx.Request]:
    """To a peer that answers embeddings of these lengths."""
    seen: list[httpx.Request] = []

    def peer(sent: httpx.Request) -> httpx.Response:
        seen.append(sent)
        return httpx.Response(status, json=answer(*lengths))

    async def run() -> None:
        transport = httpx.MockTransport(peer)
        async with http(f"{URL}/embeddings", request, partial(check, 512), transport=transport) as send:
            await send(image)

    asyncio.run(run())
    return seen


def test_an_image_travels_as_a_data_uri() -> None:
    (sent,) = send(b"jpeg", 512)
    assert str(sent.url) == f"{URL}/embeddings"
    body = json.loads(sent.content)
    assert body["modality"] == "image"
    assert base64.b64decode(body["input"].removeprefix("data:image/jpeg;base64,")) == b"jpeg"


def test_another_answer_than_one_embedding_of_that_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="192 numbers; an embedding has 512"):
        send(b"jpeg", 192)
    with pytest.raises(ValueError, match="too many"):
        send(b"jpeg", 512, 512)
    with pytest.raises(httpx.HTTPStatusError):
        send(b"jpeg", 512, status=429)


def test_a_missing_environment_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ServiceFailed, match="make peer"):
        environment(tmp_path)


def test_the_peer_gets_the_image_tower_of_the_bundle(mini: Path, tmp_path: Path) -> None:
    assert architecture(mini) == ("vit_tiny_patch16_224", 192)
    config = {"model_cfg": {"embed_dim": 8, "vision_cfg": {"timm_model_name": "resnet50"}}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ServiceFailed, match="resnet50"):
        architecture(tmp_path)
