"""``derma-train compare``: figures of several bundles, with mean and spread."""

import json
import shutil

import click.testing
import pytest

from derma_training.bundle import Bundle, seal
from derma_training.cli import main
from derma_training.compare import FIGURES, compare, markdown, metrics_of


@pytest.fixture
def made(mini, tmp_path):
    """The committed bundle under other names, with changed metrics."""

    def make(name, commit=None, **changes):
        folder = shutil.copytree(mini, tmp_path / name)
        metrics = json.loads((folder / "metrics.json").read_text())
        (folder / "metrics.json").write_text(json.dumps({**metrics, **changes}))
        facts = {k: v for k, v in Bundle.open(mini).manifest.items() if k not in ("schema_version", "files")}
        facts["git_commit"] = commit or facts["git_commit"]
        return seal(folder, **facts).path

    return make


def run(*arguments):
    return click.testing.CliRunner().invoke(main, ["compare", *map(str, arguments)])


def test_mean_and_spread_over_bundles(made):
    bundles = {f"fold-{k}": made(f"fold-{k}", accuracy=value) for k, value in enumerate((0.7, 0.8, 0.9))}
    table = compare({name: metrics_of(folder) for name, folder in bundles.items()})
    assert table["accuracy"] == pytest.approx(
        {"fold-0": 0.7, "fold-1": 0.8, "fold-2": 0.9, "mean": 0.8, "sd": 0.1}
    )
    own = json.loads((bundles["fold-0"] / "metrics.json").read_text())
    assert table["melanoma: AUC"]["fold-1"] == own["conditions"]["MEL"]["auc"]
    assert table["balanced accuracy"]["sd"] == pytest.approx(0)
    assert "| accuracy | 0.700 | 0.800 | 0.900 | 0.800 | 0.100 |" in markdown(table).splitlines()


def test_the_committed_bundle_has_every_figure(mini):
    table = compare({"own": metrics_of(mini)})
    assert list(table) == list(FIGURES)
    assert all(row["own"] == row["mean"] is not None and row["sd"] is None for row in table.values())


def test_a_figure_that_one_bundle_lacks_has_no_mean(made):
    table = compare({"old": metrics_of(made("old", text={})), "new": metrics_of(made("new"))})
    row = table["linear head: balanced accuracy"]
    assert row["old"] is row["mean"] is row["sd"] is None
    assert row["new"] > 0
    assert "| linear head: balanced accuracy | - |" in markdown(table)


def test_command_line(made, tmp_path):
    one, two = made("one"), made("two")
    assert run(one, two).output.startswith("|  | one | two | mean | sd |")
    assert json.loads(run(one, two, "--json").output)["accuracy"]["one"] > 0.5
    twice = run(one, one)
    assert twice.exit_code != 0
    assert "two folders have the same name" in twice.output
    mean = run(made("mean"))
    assert mean.exit_code != 0
    assert "no bundle may be called mean" in mean.output
    assert run(tmp_path / "nowhere").exit_code == 2


def test_evaluations_stand_beside_bundles(made, tmp_path):
    evaluation = tmp_path / "evaluation"
    evaluation.mkdir()
    (evaluation / "metrics.json").write_text(json.dumps({"accuracy": 0.25}))
    assert "| accuracy | 0.750 | 0.250 | 0.500 |" in run(made("own", accuracy=0.75), evaluation).output


def test_bundles_of_different_code_are_told(made):
    one, two = made("one"), made("two")
    assert "commits" not in run(one, two).output
    assert "Code of different commits made these bundles: " in run(one, made("old", commit="f" * 40)).output


def test_an_altered_bundle_is_refused(made):
    folder = made("altered")
    (folder / "metrics.json").write_text("{}")
    result = run(folder)
    assert result.exit_code != 0
    assert "metrics.json" in result.output


def test_a_bundle_that_was_never_measured_is_refused(mini, tmp_path):
    folder = shutil.copytree(mini, tmp_path / "new")
    (folder / "metrics.json").unlink()
    facts = {k: v for k, v in Bundle.open(mini).manifest.items() if k not in ("schema_version", "files")}
    seal(folder, **facts)
    result = run(folder)
    assert result.exit_code != 0
    assert "has no metrics.json: it was never measured" in result.output
