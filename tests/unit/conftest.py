"""Unit tests load no PyTorch, start no process and open no socket: one that tries fails."""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any, NoReturn

import grpc
import pytest
import urllib3  # noqa: F401  # binds a port as it is imported, to see whether there is IPv6

from derma_semantics.evaluation import report

FOLDER = Path(__file__).resolve().parent
HEAVY = {"accelerate", "datasets", "onnx", "onnxruntime", "open_clip", "peft", "timm", "torch"}
PROCESSES = {"os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen"}
SOCKETS = {"socket.bind", "socket.connect", "socket.getaddrinfo", "socket.sendto"}
CHANNELS = ("server", "insecure_channel", "secure_channel")


class Guard(MetaPathFinder):
    """Fails what a unit test must not do, while it is armed; heavy modules are as if not installed."""

    def __init__(self) -> None:
        self.armed = False
        self.elsewhere: list[str] = []  # in other threads, whose exceptions may get lost

    def refuse(self, what: str) -> NoReturn:
        if threading.current_thread() is not threading.main_thread():
            self.elsewhere.append(what)
        pytest.fail(f"a unit test may not use {what}: move it to tests/model")

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if self.armed and name.partition(".")[0] in HEAVY:
            raise ModuleNotFoundError(f"a unit test may not use {name}: move it to tests/model", name=name)

    def audit(self, event: str, _: tuple[Any, ...]) -> None:
        if self.armed and event in PROCESSES | SOCKETS:
            self.refuse(event)

    @contextmanager
    def arm(self) -> Iterator[None]:
        self.armed = True
        try:
            yield
        finally:
            self.armed = False


guard = Guard()
sys.addaudithook(guard.audit)
sys.meta_path.insert(0, guard)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    with guard.arm():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """pytest calls it for tests of other folders too."""
    guard.elsewhere.clear()
    with guard.arm() if item.path.is_relative_to(FOLDER) else nullcontext():
        return (yield)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call() -> Generator[None, Any, Any]:
    result = yield
    if guard.elsewhere:
        guard.refuse(", ".join(guard.elsewhere))
    return result


@pytest.fixture(autouse=True)
def _no_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC opens its sockets in C, unseen by audit hooks."""
    for module in (grpc, grpc.aio):
        for name in CHANNELS:
            what = f"{module.__name__}.{name}"
            monkeypatch.setattr(module, name, lambda *_, _what=what, **__: guard.refuse(_what))


@pytest.fixture(scope="module")
def few_draws() -> Iterator[None]:
    """Bootstrap intervals of 40 resamples: quick, for tests that only need them to be there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "DRAWS", 40)
        patch.setitem(report.report_on.__kwdefaults__, "draws", 40)
        yield
