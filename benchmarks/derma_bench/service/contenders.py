"""Contenders of ``derma-bench service``: services under load, and the bare engine.

    ServiceContender(running, Generator(images)).measure(8, Plan())
    LoopContender(graph, Engine("cpu"), images).measure(1, Plan())

The loop is no service: it says what serving costs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from derma_bench.load.generator import Generator
from derma_bench.servers.processes import Running
from derma_bench.service import triton_statistics
from derma_bench.turns import Row
from derma_semantics.domain.contract import NETWORK
from derma_semantics.imaging.preprocess import preprocess
from derma_serving.runtime.configuration import engine_for
from derma_serving.runtime.engine import Engine, open_session

BATCHES = (1, 8)
LOOP = "engine loop"


@dataclass(frozen=True)
class Plan:
    """Lengths and repeats; ``concurrency`` are the numbers of requests in flight."""

    concurrency: tuple[int, ...] = (1, 2, 4, 8, 16)
    seconds: float = 10.0
    repeats: int = 3
    warm_up: float = 2.0


class ServiceContender:
    """A service under closed-loop load while the others stand idle."""

    def __init__(self, running: Running, generator: Generator) -> None:
        self.name = running.name
        self._running, self._generator = running, generator

    def measure(self, concurrency: int, plan: Plan) -> Row:
        url = self._running.url
        before = triton_statistics.snapshot(url) if url else {}
        load = self._generator.closed(self._running.connect, concurrency, plan.seconds, warm_up=plan.warm_up)
        row = load.to_dict()
        return row | (triton_statistics.since(before, url, load.latency_ms.get("mean", 0.0)) if url else {})


class LoopContender:
    """The served graph in a bare loop of one process: decode a batch, run it, again.

    What a service could reach if serving cost nothing and nothing overlapped; of two batch
    sizes the better.
    """

    name = LOOP

    def __init__(self, graph: Path, engine: Engine, images: Sequence[bytes]) -> None:
        session = open_session(graph, engine)
        self._images = images
        self._engine = f"{engine.provider} {engine.precision}"
        self._run: Callable[[NDArray[np.uint8]], object] = lambda pixels: session.run(
            list(NETWORK.outputs), {"PIXELS": pixels}
        )
        for batch in BATCHES:
            self._turn(batch, 0.0)

    def measure(self, concurrency: int, plan: Plan) -> Row:
        """Run batches; ``concurrency`` has no effect."""
        rates = {batch: self._turn(batch, plan.seconds / len(BATCHES)) for batch in BATCHES}
        best = max(rates, key=lambda batch: rates[batch])
        by_batch = {str(batch): rate for batch, rate in rates.items()}
        return {
            "throughput": rates[best],
            "batch": best,
            "by_batch": by_batch,
            "engine": self._engine,
            "latency_ms": {},
            "failures": {},
        }

    def _turn(self, batch: int, seconds: float) -> float:
        """Images a second."""
        images, done, begin = cycle(self._images), 0, time.perf_counter()
        while not done or time.perf_counter() - begin < seconds:
            self._run(np.stack([preprocess(image) for image in islice(images, batch)]))
            done += batch
        return done / (time.perf_counter() - begin)


def served_engine(config: Mapping[str, Any], kind: str = "") -> Engine:
    """The engine that a served model's configuration names, with every core for one process.

    Args:
        config: as Triton gives it, ``servers.ours.configuration``.
        kind: CPU or GPU; by default what the first instance runs on.

    Raises:
        ValueError: the configuration asks for what does not exist.
    """
    groups = config.get("instance_group") or [{}]
    kind = kind or ("GPU" if groups[0].get("kind") == "KIND_GPU" else "CPU")
    engine = engine_for(
        config, kind, cores=len(os.sched_getaffinity(0)), available=onnxruntime.get_available_providers()
    )
    return replace(engine, threads=0)


def served_graph(repository: Path) -> Path:
    """The newest version's graph.

    Raises:
        ValueError: the repository holds none.
    """
    versions = [path for path in (repository / NETWORK.name).glob("[0-9]*") if path.name.isdigit()]
    if not versions:
        raise ValueError(f"{repository.name} holds no version of {NETWORK.name}: run derma-export")
    return max(versions, key=lambda path: int(path.name)) / "model.onnx"
