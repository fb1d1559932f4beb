"""The public peer: what is sent to it, what it must answer, and what is said when it is missing."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import httpx
import numpy as np
import pytest

from derma_bench.servers.peer import TOWERS, PeerSender, architecture, check, environment, request
from derma_bench.servers.processes import ServiceFailed

URL = "http://127.0.0.1:1"


def answer(length: int) -> dict[str, object]:
    embedding = base64.b64encode(np.zeros(length, np.float32).tobytes()).decode()
    return {"object": "list", "data": [{"object": "embedding", "embedding": embedding}]}


def send(image: bytes, length: int, status: int = 200) -> list[httpx.Request]:
    """Through a sender whose peer answers embeddings of this length."""
    seen: list[httpx.Request] = []

    def peer(asked: httpx.Request) -> httpx.Response:
        seen.append(asked)
        return httpx.Response(status, json=answer(length))

    async def run() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(peer)) as client:
            await PeerSender(client, URL, 512).send(image)

    asyncio.run(run())
    return seen


def test_an_image_travels_as_a_data_uri() -> None:
    (asked,) = send(b"jpeg", 512)
    assert str(asked.url) == f"{URL}/embeddings"
    body = json.loads(asked.content)
    assert body == request(b"jpeg")
    assert body["modality"] == "image"
    assert base64.b64decode(body["input"].removeprefix("data:image/jpeg;base64,")) == b"jpeg"


def test_an_embedding_of_another_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="192 numbers; an embedding has 512"):
        send(b"jpeg", 192)


def test_a_refusal_is_an_error() -> None:
    with pytest.raises(httpx.HTTPStatusError):
        send(b"jpeg", 512, status=429)


def test_two_embeddings_are_an_error() -> None:
    with pytest.raises(ValueError, match="too many"):
        check({"data": 2 * answer(4)["data"]}, 4)  # type: ignore[operator]


def test_a_missing_environment_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ServiceFailed, match="make peer"):
        environment(tmp_path)


def test_the_peer_gets_the_image_tower_of_the_bundle(mini: Path, tmp_path: Path) -> None:
    assert architecture(mini) == (TOWERS["vit_tiny_patch16_224"], 192)
    config = {"model_cfg": {"embed_dim": 8, "vision_cfg": {"timm_model_name": "resnet50"}}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ServiceFailed, match="resnet50"):
        architecture(tmp_path)
