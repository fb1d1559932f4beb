"""Shared by all tests: markers by folder, images, and where real data is."""

from __future__ import annotations

import io
import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest
from PIL import Image

from derma_semantics.evaluation.truth import Case, write_truth
from derma_semantics.imaging.synthetic import draw

# Before PyTorch loads, here and in what tests start: on a busy machine threads that spin while they wait
# keep each other waiting.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers share the cores
pytest_plugins = ["tests.offline", "tests.services"]
ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("unit", "model", "parity", "e2e", "faults")


def pytest_configure() -> None:
    # A shell's background jobs ignore Ctrl-C, and so would all that tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was skipped and why; with DERMA_SKIPPED, a file, of the runs before this one too."""
    found = Counter(
        (Path(report.location[0]).as_posix(), str(report.longrepr[2]).removeprefix("Skipped: "))
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple)
    )
    lines = [f"{path}: {count} skipped: {reason}" for (path, reason), count in sorted(found.items())]
    if kept := os.environ.get("DERMA_SKIPPED"):
        path = Path(kept)
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [*(path.read_text().splitlines() if path.exists() else []), *lines]
        path.write_text("".join(f"{line}\n" for line in lines))
    if lines:
        terminalreporter.section("skipped")
        terminalreporter.write_line("\n".join(lines))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        layer = Path(item.fspath).relative_to(ROOT / "tests").parts[0]
        if layer in LAYERS:
            item.add_marker(layer)


@pytest.fixture(scope="session")
def mini() -> Path:
    """The committed bundle."""
    return ROOT / "training" / "bundles" / "derma-mini"


@pytest.fixture(scope="session")
def picture() -> Callable[[int], Image.Image]:
    """A drawn picture by seed, 300 x 225."""
    return lambda seed: draw(seed, (300, 225)).image


@pytest.fixture(scope="session")
def jpeg(picture: Callable[[int], Image.Image]) -> Callable[[int], bytes]:
    """A drawn picture by seed, as JPEG; drawn once, as many tests send thousands."""

    @cache
    def encode(seed: int) -> bytes:
        buffer = io.BytesIO()
        picture(seed).save(buffer, "JPEG", quality=92)
        return buffer.getvalue()

    return encode


@pytest.fixture(scope="session")
def write_isic(jpeg: Callable[[int], bytes]) -> Callable[[Path, Sequence[Case]], Path]:
    """Writes drawn pictures of these cases into a folder, in the official ISIC 2018 layout."""

    def write(folder: Path, cases: Sequence[Case]) -> Path:
        images = folder / "ISIC2018_Task3_Training_Input"
        images.mkdir()
        for number, case in enumerate(cases):
            (images / f"{case.name}.jpg").write_bytes(jpeg(number))
        write_truth(folder / "ISIC2018_Task3_Training_GroundTruth.csv", cases)
        rows = [f"{case.lesion},{case.name},50,female,back" for case in cases]
        (folder / "HAM10000_metadata.csv").write_text(
            "\n".join(["lesion_id,image_id,age,sex,localization", *rows])
        )
        return folder

    return write


def folder_from(variable: str) -> Path:
    """The folder an environment variable names; skips the test where it is not set."""
    if not os.environ.get(variable):
        pytest.skip(f"{variable} is not set")
    return Path(os.environ[variable])


@pytest.fixture(scope="session")
def isic2018() -> Path:
    return folder_from("ISIC2018_DIR")


@pytest.fixture(scope="session")
def biomedclip_config() -> Path:
    return folder_from("BIOMEDCLIP_CONFIG_DIR")


@pytest.fixture(scope="session")
def fullsize() -> Path:
    return folder_from("FULLSIZE_DIR")
