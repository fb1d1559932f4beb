"""``derma bulk`` over an injected transport, on seventy images, and the rows of its tables."""

import csv
import json
import threading
from pathlib import Path

import click.testing
import numpy as np
import pyarrow.parquet as pq
import pytest

from derma_semantics.client import DermaClient
from derma_semantics.commands import cli
from derma_semantics.domain.conditions import CODES
from derma_semantics.domain.errors import CorruptImage

DIGEST = "ab" * 32
IMAGES = 70


class FakeTransport:
    """An image is the digits of its number; ``b"bad"`` is refused."""

    def __init__(self):
        self.digest = DIGEST
        self.fails = {}
        self.sent = []
        self.at = {}
        self.lock = threading.Lock()

    def infer(self, image, timeout, request_id):
        if image == b"bad":
            raise CorruptImage("the JPEG is truncated")
        number = int(image)
        if number in self.fails:
            raise self.fails[number]
        with self.lock:
            self.sent.append(number)
        self.at.get(number, lambda: None)()
        probabilities = np.full(7, 0.05, np.float32)
        probabilities[number % 7] = 0.7
        return {
            "PROBABILITIES": probabilities,
            "RISK": np.array([number / 100], np.float32),
            "TRIAGE": np.array([number % 3], np.int32),
            "PREDICTION_SET": probabilities > (0.5 if number % 2 else 0.01),
            "EMBEDDING": np.full(4, number / 7, np.float32),
            "BUNDLE": np.frombuffer(bytes.fromhex(self.digest), np.uint8),
        }

    def network(self, timeout):
        return {"bundle_name": "mini", "bundle_digest": DIGEST, "precision": "fp32", "version": "3"}

    def ready(self, timeout):
        return True

    def close(self):
        pass


@pytest.fixture
def transport():
    return FakeTransport()


@pytest.fixture
def photos(tmp_path):
    """Seventy images, the last ten in a folder of the folder."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for number in range(IMAGES):
        name = f"{number:04d}.jpg" if number < 60 else f"more/{number:04d}.PNG"
        (folder / name).write_bytes(b"%d" % number)
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def bulk(transport, photos, tmp_path):
    """Run ``derma bulk`` on the photographs, or on other sources."""

    def invoke(*arguments, out="out.csv", sources=(photos,), stdin=None):
        given = ["bulk", *map(str, sources), "--out", str(tmp_path / out), *map(str, arguments)]
        return click.testing.CliRunner().invoke(
            cli.main,
            given,
            input=stdin,
            obj=lambda url, **_: DermaClient(url, retry_for=0, transport=transport),
        )

    return invoke


@pytest.fixture
def rows(tmp_path):
    """The rows of a table, in the shape of JSON lines."""

    def read(name):
        path = tmp_path / name
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in path.read_text().splitlines()]
        if path.suffix == ".parquet":
            return [nested(row) for row in pq.read_table(path).to_pylist()]
        with path.open(newline="") as file:
            return [nested(typed(row)) for row in csv.DictReader(file)]

    def nested(row):
        probabilities = {code: row.pop(code) for code in CODES}
        return {**row, "probabilities": probabilities}

    def typed(row):
        numbers = {key: float(row[key]) for key in (*CODES, "risk")}
        row["high_risk"] = {"true": True, "false": False}[row["high_risk"]]
        return {**row, **numbers, **{name: row[name].split() for name in ("prediction_set", "quality")}}

    return read


def numbers(rows):
    return [int(Path(row["image"]).stem) for row in rows]
