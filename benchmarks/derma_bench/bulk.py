"""``derma-bench bulk``: the service's highest rate and that of ``derma bulk``, by turns; then kills.

figures, rows, subject = measure(Path("photographs"), state, repeats=3, seconds=20, kills=2)
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from derma_bench.load.generator import Generator
from derma_bench.payloads import jpegs, payloads
from derma_bench.servers.ours import OURS, REPOSITORY, ours, served
from derma_bench.servers.processes import ServiceFailed
from derma_bench.turns import Measured, Row, by_turns, column, ratio, spread
from derma_semantics.domain.contract import MAX_BATCH

POLL = 0.05
# Slower than an image in five seconds is a service that hangs.
PATIENCE = 60.0
SLOWEST = 5.0


def measure(
    folder: Path,
    state: Path,
    *,
    repeats: int = 3,
    seconds: float = 20.0,
    kills: int = 2,
    repository: Path = REPOSITORY,
    url: str | None = None,
) -> Measured:
    """Start the service, measure by turns, kill and go on.

    Args:
        folder: of JPEG files; all of them are classified in each run.
        seconds: that the service's own highest rate is measured before each run.
        kills: of the last run.
        url: of a running service; one is started where it is None.

    Raises:
        ServiceFailed: the service did not start, the command failed, or rows are missing or double.
        ValueError: the folder holds no JPEG.
    """
    images, names = payloads(folder), state / "names.txt"
    names.write_text("".join(f"{path.resolve()}\n" for path in jpegs(folder)))
    with ours(url, repository, state / OURS) as running, Generator(images) as generator:

        def alone() -> Row:
            load = generator.closed(running.connect, MAX_BATCH, seconds)
            return {"rate": load.throughput, "failures": load.failures}

        def bulk() -> Row:
            begin = time.perf_counter()
            Run(running.url, names, state / f"run-{begin}.csv").finish(len(images))
            return {"rate": len(images) / (time.perf_counter() - begin)}

        subject = served(running.url)
        generator.closed(running.connect, MAX_BATCH, seconds / 4)
        rows = by_turns([({"of": "service"}, alone), ({"of": "derma bulk"}, bulk)], repeats)
        kept = _killed(kills, running.url, names, len(images))
    service, command = column(rows, "rate", of="service"), column(rows, "rate", of="derma bulk")
    figures = {
        "images": len(images),
        "under_way": MAX_BATCH,
        "service_images_per_second": spread(service),
        "bulk_images_per_second": spread(command),
        "bulk_over_service": ratio(command, service),
        "kills": len(kept),
        "answered_before_each_kill": kept,
        "rows_after_the_kills": len(images),
    }
    return figures, rows, subject


class Run:
    """``derma bulk`` over a list of images, as a process."""

    def __init__(self, url: str, names: Path, out: Path) -> None:
        self.out = out
        command = [sys.executable, "-m", "derma_semantics", "bulk", "-", "--out", str(out), "--json"]
        with names.open("rb") as listed:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, "DERMA_URL": url},
                text=True,
                stdin=listed,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )

    def finish(self, images: int) -> dict[str, Any]:
        """Wait for its end; return its summary.

        Raises:
            ServiceFailed: it failed, hung, or its table has not one row an image.
        """
        try:
            output, errors = self.process.communicate(timeout=PATIENCE + SLOWEST * images)
        except subprocess.TimeoutExpired as exc:
            self.kill()
            raise ServiceFailed(f"derma bulk did not end within {exc.timeout:.0f} s") from exc
        if self.process.returncode:
            raise ServiceFailed(f"derma bulk ended with {self.process.returncode}:\n{errors[-2000:]}")
        with self.out.open(newline="") as table:
            rows = [row["image"] for row in csv.DictReader(table)]
        if len(rows) != images or len(set(rows)) != images:
            raise ServiceFailed(f"{len(rows)} rows, {len(set(rows))} different, for {images} images")
        summary: dict[str, Any] = json.loads(output)
        return summary

    def answers(self) -> int:
        """Of this run and those before it."""
        journal = self.out.with_name(f"{self.out.name}.journal")
        return journal.read_bytes().count(b"\n") if journal.exists() else 0

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def _killed(kills: int, url: str, names: Path, images: int) -> list[int]:
    """Answers that lay on disk after each kill; the run after the last one ends complete."""
    out, kept = names.with_name("killed.csv"), list[int]()
    for number in range(1, kills + 1):
        run, end = Run(url, names, out), time.monotonic() + PATIENCE + SLOWEST * images
        while run.answers() < number * images // (kills + 1):
            if run.process.poll() is not None or time.monotonic() > end:
                run.kill()
                raise ServiceFailed("derma bulk ended, or hung, before it could be killed")
            time.sleep(POLL)
        run.kill()
        kept.append(run.answers())
    summary = Run(url, names, out).finish(images)
    if summary["resumed"] != (kept[-1] if kept else 0):
        raise ServiceFailed(f"after {kept} answers, derma bulk went on with {summary['resumed']}")
    return kept
