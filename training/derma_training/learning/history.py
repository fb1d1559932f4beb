"""What a run did, step by step: CSV for tools, TensorBoard for people.

    history = History(run_folder, "full", first_step=120)     # forgets steps after 120
    history.step(120, loss=0.7, learning_rate=1e-4)
    history.epoch(121, epoch=2, balanced_accuracy=0.71)

``<phase>.steps.csv`` is the loss curve, ``<phase>.epochs.csv`` the validation figures.
"""

from __future__ import annotations

import csv
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter


class History:
    """The log of one phase; entries from ``first_step`` on are written anew."""

    def __init__(self, folder: Path, phase: str, *, first_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._phase = phase
        self._files = {kind: folder / f"{phase}.{kind}.csv" for kind in ("steps", "epochs")}
        for path in self._files.values():
            _rewind(path, first_step)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step)

    def step(self, step: int, **values: float) -> None:
        """Log one optimiser step."""
        self._write("steps", step, values)

    def epoch(self, step: int, **values: float) -> None:
        """Log an epoch that ended before ``step``."""
        self._write("epochs", step, values)

    def __enter__(self) -> History:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._board.close()

    def _write(self, kind: str, step: int, values: dict[str, float]) -> None:
        path = self._files[kind]
        new = not path.exists() or not path.stat().st_size
        with path.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if new:
                writer.writerow(["step", *values])
            writer.writerow([step, *values.values()])
        for name, value in values.items():
            self._board.add_scalar(f"{self._phase}/{name}", value, step)


def _rewind(path: Path, first_step: int) -> None:
    """Drop the rows of steps that will run again, and a row that a kill cut short."""
    if not path.exists() or not path.stat().st_size:
        return
    header, *rows = path.read_text().splitlines(keepends=True)
    kept = [row for row in rows if row.endswith("\n") and int(row.split(",")[0]) < first_step]
    path.write_text("".join([header, *kept]))
