"""The public peer: infinity-emb with a CLIP of the bundle's image tower, random weights.

    with peer(Path("training/bundles/derma-mini"), state) as running:
        async with running.connect() as send:
            await send(jpeg)                # an embedding of the right length came back

infinity-emb is a well-kept server of CLIP embeddings: FastAPI, dynamic batching and
PyTorch, all left at their defaults. It embeds and does not classify, which spares
it little. Its environment is ``.peer``, made by ``make peer`` from ``requirements/peer.in``.
"""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from derma_bench.hardware import ROOT
from derma_bench.load.loops import Send
from derma_bench.load.senders import http
from derma_bench.payloads import payloads
from derma_bench.servers.processes import HOST, Running, ServiceFailed, free_ports, healthy, process

ENVIRONMENT = ROOT / ".peer"
MAKE_MODEL = Path(__file__).with_name("peer_model.py")
MODEL = "clip"
# Warming up at its batch size of 32 takes a minute on two idle cores.
START = 600.0
# No telemetry, and no attempt to reach a hub for a model that is a folder.
VARIABLES = {"DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


class Tower(NamedTuple):
    """Sizes of a ViT with patches of 16 pixels at 224."""

    width: int
    depth: int
    heads: int


TOWERS = {
    "vit_tiny_patch16_224": Tower(192, 12, 3),
    "vit_small_patch16_224": Tower(384, 12, 6),
    "vit_base_patch16_224": Tower(768, 12, 12),
}


@contextmanager
def peer(bundle: Path, state: Path, port: int | None = None) -> Iterator[Running]:
    """The peer, serving the image tower that the bundle has.

    Args:
        state: folder for its model and log.
        port: a free one by default.

    Raises:
        ServiceFailed: ``.peer`` is missing, or the peer did not get ready or answers nonsense.
    """
    python = environment()
    tower, projection = architecture(bundle)
    model = state / "model"
    _make(python, model, TOWERS[tower], projection)
    url = f"http://{HOST}:{port or free_ports(1)[0]}"
    connect = partial(http, f"{url}/embeddings", request, partial(check, projection))
    with process(
        _command(python, model, url),
        state / "peer.log",
        partial(healthy, f"{url}/health"),
        deadline=START,
        environment=VARIABLES,
    ) as pid:
        asyncio.run(_first_answers(connect()))
        facts = {**_versions(python), "image_tower": tower, "weights": "random"}
        yield Running("peer", connect, pid=pid, facts=facts)


def environment(folder: Path = ENVIRONMENT) -> Path:
    """The Python of the peer's own environment.

    Raises:
        ServiceFailed: nobody made it.
    """
    python = folder / "bin" / "python"
    if not python.exists():
        raise ServiceFailed("the public peer is not installed here: run `make peer` (about 7 GB)")
    return python


def architecture(bundle: Path) -> tuple[str, int]:
    """The name of the bundle's image tower and the length of its embedding.

    Raises:
        ServiceFailed: it is a tower that CLIP does not have.
    """
    config = json.loads((bundle / "open_clip_config.json").read_text())["model_cfg"]
    name = config["vision_cfg"]["timm_model_name"]
    if name not in TOWERS:
        raise ServiceFailed(f"the peer serves {', '.join(TOWERS)}; the bundle has {name}")
    return name, int(config["embed_dim"])


def request(image: bytes) -> dict[str, Any]:
    """The body that carries a JPEG; the answer comes in base64, the faster of its two encodings."""
    data = base64.b64encode(image).decode()
    body = {
        "model": MODEL,
        "modality": "image",
        "encoding_format": "base64",
        "input": f"data:image/jpeg;base64,{data}",
    }
    return {"json": body}


def check(projection: int, answer: httpx.Response) -> None:
    """Raise ValueError unless the answer is one fp32 embedding of this length."""
    (one,) = answer.json()["data"]
    found = len(base64.b64decode(one["embedding"])) // 4
    if found != projection:
        raise ValueError(f"the peer answered {found} numbers; an embedding has {projection}")


def _make(python: Path, model: Path, tower: Tower, projection: int) -> None:
    sizes = map(str, (*tower, projection))
    model.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [python, MAKE_MODEL, model, *sizes], capture_output=True, text=True, timeout=START, check=False
    )
    if done.returncode:
        raise ServiceFailed(f"the peer's model was not made:\n{done.stderr[-2000:]}")


def _command(python: Path, model: Path, url: str) -> list[str]:
    host, port = url.removeprefix("http://").split(":")
    options = {
        "model-id": str(model),
        "served-model-name": MODEL,
        "host": host,
        "port": port,
        "log-level": "warning",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return [str(python.with_name("infinity_emb")), "v2", *words]


async def _first_answers(connecting: AbstractAsyncContextManager[Send]) -> None:
    """One image, then some at once: the first batch of either kind is slower."""
    images = payloads(None, count=4)
    async with connecting as send:
        await send(images[0])
        await asyncio.gather(*map(send, images))


def _versions(python: Path) -> dict[str, str]:
    packages = ("infinity-emb", "torch", "transformers")
    code = f"import importlib.metadata as m; print(*[m.version(p) for p in {packages}])"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return dict(zip(packages, found.stdout.split()))
