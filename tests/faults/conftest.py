"""Promises that hold when something goes wrong. docs/reliability.md states them.

    make test       # a short form of each
    make faults     # the full form, up to 20 minutes: DERMA_FAULTS=full

What is measured lands in .run/faults/<form>/. It is printed at the end, and by
`python tests/faults/figures.py`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TypeVar

import pytest

from tests.faults import figures

T = TypeVar("T")

FORM = "full" if os.environ.get("DERMA_FAULTS") == "full" else "short"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FORM == "full" and "faults" in item.keywords:
            item.add_marker(pytest.mark.timeout(900 + 60 * float(os.environ.get("DERMA_SOAK_MINUTES", 0))))


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
