"""Tables and plots of stored runs in one folder.

    write_report([Path("service.json"), Path("engine.json")], Path("report"))

``table.md`` links the plots, so that the folder can be moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from derma_bench.report.plots import draw
from derma_bench.report.record import read
from derma_bench.report.table import markdown


def write_report(runs: Sequence[Path], out: Path) -> list[Path]:
    """Write ``table.md`` and the plots, a folder of plots for each run where there are several.

    Raises:
        ValueError: a file is no run.
    """
    records = [read(path) for path in runs]
    out.mkdir(parents=True, exist_ok=True)
    plots, parts = [], []
    for path, record in zip(runs, records):
        drawn = draw(record, out / path.stem if len(runs) > 1 else out)
        links = "\n".join(f"![{plot.stem}]({plot.relative_to(out).as_posix()})" for plot in drawn)
        parts.append(f"{markdown(record)}\n{links}\n" if links else markdown(record))
        plots += drawn
    (out / "table.md").write_text("# Benchmarks\n\n" + "\n".join(parts))
    return [out / "table.md", *plots]
