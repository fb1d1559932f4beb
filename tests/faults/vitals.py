"""What the service's processes use, read from outside.

vitals(service)["derma_biomedclip_0_0"].rss     # MiB
pending(service)                                # requests that wait in Triton's queues
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psutil
import urllib3

from tests.services import Service

SIDECAR = ("sidecar_keeper", "sidecar_worker")


@dataclass(frozen=True)
class Vitals:
    """Memory in MiB; ``private`` is that of ``rss`` which neither a file nor another process has too."""

    pid: int
    rss: float
    private: float
    descriptors: int
    threads: int


def vitals(service: Service) -> dict[str, Vitals]:
    """Of Triton and of each model instance, by name; a process that ends meanwhile is left out."""
    found = {}
    sidecars = zip(service.sidecars(), SIDECAR, strict=False)
    for pid, name in [*((pid, _name(command)) for pid, command in service.processes()), *sidecars]:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            memory = process.memory_info()
            rss, private = memory.rss / 2**20, (memory.rss - memory.shared) / 2**20
            found[name] = Vitals(pid, rss, private, process.num_fds(), process.num_threads())
    return found


def _name(command: str) -> str:
    instance = re.search(r" (derma_\w+_\d+_\d+) ", command)
    return instance[1] if instance else "tritonserver"


def pending(service: Service) -> int:
    """Requests in the queues of all models."""
    url = f"http://127.0.0.1:{service.ports['metrics']}/metrics"
    text = urllib3.request("GET", url, timeout=5.0).data.decode()
    return int(sum(map(float, re.findall(r"^nv_inference_pending_request_count\{.*\} (\S+)", text, re.M))))


@dataclass
class Record:
    """Memory by process, in MiB, and when it was read, in seconds."""

    times: list[float] = field(default_factory=list)
    memory: dict[str, list[float]] = field(default_factory=dict)


@contextmanager
def recorded(service: Service, every: float = 0.5) -> Iterator[Record]:
    """Reads memory in the background while the block runs."""
    record, done, begun = Record(), threading.Event(), time.monotonic()

    def read() -> None:
        while not done.wait(every):
            record.times.append(time.monotonic() - begun)
            for name, one in vitals(service).items():
                record.memory.setdefault(name, []).append(one.rss)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield record
    finally:
        done.set()
        reader.join(30)
