"""``derma evaluate`` against a real Triton, on a tiny folder in the official layout."""

import csv
import json

import pytest

from derma_semantics.domain.conditions import CODES
from derma_semantics.evaluation.truth import Case, write_truth


@pytest.fixture(scope="module")
def labelled(tmp_path_factory, jpeg):
    """Fourteen drawn pictures, two of each condition, and one file that is no picture."""
    folder = tmp_path_factory.mktemp("labelled")
    (folder / "images").mkdir()
    cases = [Case(f"ISIC_{i:07d}", i % 7, f"L{i}") for i in range(14)]
    for number, case in enumerate(cases):
        (folder / "images" / f"{case.name}.jpg").write_bytes(jpeg(number) if number < 13 else b"no picture")
    write_truth(folder / "truth.csv", cases)
    return folder


def test_served_answers_are_measured(derma, client, labelled, mini):
    out = labelled / "out"
    arguments = ("evaluate", "--images", labelled / "images", "--truth", labelled / "truth.csv", "--out", out)
    done = derma(*arguments, "--json")
    assert done.returncode == 1, done.stderr  # one image was refused
    report = json.loads(done.stdout)
    _, *rows = csv.reader((out / "submission.csv").open())
    paths = [labelled / "images" / f"{row[0]}.jpg" for row in rows[:13]]
    for row, diagnosis in zip(rows[:13], client.classify(paths), strict=True):
        served = {f.condition.code: f.probability for f in diagnosis.differential}
        assert dict(zip(CODES, map(float, row[1:]), strict=True)) == pytest.approx(served, abs=1e-6)
    assert set(rows[13][1:]) == {"0.0"}
    assert "ISIC_0000013,UnsupportedFormat" in (out / "errors.csv").read_text()
    assert report["bundle"]["bundle_digest"] == client.bundle().digest
    assert report["balanced_accuracy"]["value"] == pytest.approx(report["official"]["balanced_accuracy"])
    again = derma(*arguments)
    assert "balanced accuracy" in again.stdout and "1, counted as wrong" in again.stdout
