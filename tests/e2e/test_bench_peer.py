"""The public peer itself, where ``make peer`` has installed it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from derma_bench.load.loops import closed_loop
from derma_bench.load.outcome import Request
from derma_bench.payloads import payloads
from derma_bench.servers.peer import ENVIRONMENT, peer
from derma_bench.servers.processes import Running

pytestmark = [
    pytest.mark.skipif(not ENVIRONMENT.exists(), reason="make peer has not been run"),
    pytest.mark.timeout(900),
]


def test_the_peer_answers_and_ends(mini: Path, tmp_path: Path) -> None:
    async def load(running: Running) -> list[Request]:
        async with running.connect() as send:
            return await closed_loop(send, payloads(None, count=2), workers=2, seconds=1)

    with peer(mini, tmp_path) as running:
        requests = asyncio.run(load(running))
        assert requests and not any(one.failure for one in requests)
        assert running.facts["infinity-emb"] and running.facts["weights"] == "random"
    assert running.pid is not None and not Path(f"/proc/{running.pid}").exists()
