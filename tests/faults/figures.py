"""What the promises' tests measured, as a table for docs/reliability.md.

python tests/faults/figures.py [short|full]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / ".run" / "faults"


def rows(form: str) -> list[str]:
    """A Markdown table; empty where nothing was measured."""
    files = sorted((FOLDER / form).glob("*.json"))
    lines = [f"| {file.stem} | {_told(json.loads(file.read_text()))} |" for file in files]
    return ["| promise | measured |", "| --- | --- |", *lines] if lines else []


def _told(measured: dict[str, object]) -> str:
    return "; ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in measured.items())


def _number(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(_number, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {_number(one)}" for name, one in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    print("\n".join(rows(sys.argv[1] if len(sys.argv) > 1 else "full")))
