"""Promises that hold when something goes wrong. docs/reliability.md states them.

    make test       # a short form of each
    make faults     # the full form, up to 20 minutes: DERMA_FAULTS=full

What is measured lands in .run/faults/<form>/. It is printed at the end, and by
`python tests/faults/figures.py`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from derma_export.exporter import Task, export_bundle
from derma_export.samples import synthetic_samples
from derma_semantics import DermaClient
from derma_training.bundle import Bundle
from tests.e2e.conftest import Service, start, stop, until
from tests.faults import figures

T = TypeVar("T")

FORM = "full" if os.environ.get("DERMA_FAULTS") == "full" else "short"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FORM == "full" and "faults" in item.keywords:
            item.add_marker(pytest.mark.timeout(900))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if rows := figures.rows(FORM):
        terminalreporter.section(f"promises, {FORM} form, as last measured")
        terminalreporter.write_line("\n".join(rows))


@pytest.fixture(scope="session")
def amount() -> Callable[[T, T], T]:
    """Chooses between the short form's number and the full form's."""
    return lambda short, full: full if FORM == "full" else short


@pytest.fixture(scope="session")
def note() -> Callable[..., None]:
    """Keeps what was measured for a promise."""

    def keep(promise: str, **measured: object) -> None:
        path = figures.FOLDER / FORM / f"{promise}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(measured, indent=1))

    return keep


@pytest.fixture(scope="session")
def repository(mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with the committed bundle as version 1."""
    folder = tmp_path_factory.mktemp("repository") / "models"
    export_bundle(Bundle.open(mini), folder, Task(synthetic_samples(4)), say=lambda _: None)
    return folder


@pytest.fixture(scope="session")
def service(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """For what must leave it as it was: all these tests share it."""
    service = start(repository, tmp_path_factory.mktemp("state"))
    yield service
    output = stop(service)
    assert service.launcher.returncode == 0, output
    assert service.processes() == []
    assert service.segments() == []


@pytest.fixture
def client(service: Service) -> Iterator[DermaClient]:
    with DermaClient(service.url) as client:
        yield client


@pytest.fixture
def start_service(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Service]]:
    """Starts services that the test may break or end."""
    services = []

    def begin(*options: str) -> Service:
        services.append(start(repository, tmp_path_factory.mktemp("state"), *options))
        return services[-1]

    yield begin
    for service in services:
        if service.launcher.poll() is None:
            stop(service)


@pytest.fixture(scope="session", name="until")
def _until() -> Callable[..., object]:
    return until
