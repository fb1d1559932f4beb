"""``derma-bench engine`` and ``decode`` run in smoke mode, from the command line to the file."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from derma_bench.cli import main
from derma_bench.decode.decoders import DECODERS


def test_engine(mini: Path, tmp_path: Path) -> None:
    out = tmp_path / "engine.json"
    done = CliRunner().invoke(main, ["engine", str(mini), "--smoke", "--out", str(out)])
    assert done.exit_code == 0, done.output
    record = json.loads(out.read_text())
    assert record["smoke"] and "SMOKE" in done.output
    rows = record["figures"]["engines"]
    assert [row["engine"] for row in rows] == 2 * ["torch-fp32", "ort-fp32", "ort-int8-dynamic"]
    assert all(row["fraction"] > 0 and row["ratio"] > 0 for row in rows)
    exact, dynamic = (record["figures"]["fidelity"][number] for number in (1, 2))
    assert exact["max_probability_difference"] < 1e-4 and exact["companion_difference"] < 1e-4
    # One scale for a whole batch: the reason why this engine is not shipped.
    assert dynamic["companion_difference"] > 1e-3


def test_decode(mini: Path, tmp_path: Path) -> None:
    out = tmp_path / "decode.json"
    done = CliRunner().invoke(main, ["decode", "--smoke", "--bundle", str(mini), "--out", str(out)])
    assert done.exit_code == 0, done.output
    rows = {row["decoder"]: row for row in json.loads(out.read_text())["figures"]["decoders"]}
    assert list(rows)[: len(DECODERS)] == list(DECODERS)
    assert all(name.startswith("nvImageCodec") for name in list(rows)[len(DECODERS) :])
    assert rows["simplejpeg + torchvision"]["passes"]
    assert all("probability_difference" in row for row in rows.values())
