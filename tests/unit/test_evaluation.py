"""Subgroups, the report and its plots, and what they do with too little to go on."""

import json
import warnings

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from derma_semantics.evaluation import metrics, official
from derma_semantics.evaluation.metrics import measure
from derma_semantics.evaluation.plots import draw_risk
from derma_semantics.evaluation.report import Answers, report_on, write_report
from derma_semantics.evaluation.subgroups import age_band, subgroups
from derma_semantics.evaluation.summary import summary
from derma_semantics.evaluation.truth import read_truth
from tests.unit.cases import cases_of, drawn


def answers_of(probabilities):
    risk = probabilities[:, metrics.MALIGNANT].sum(axis=1)
    return Answers(probabilities, risk, (risk > 0.3).astype(int) + (risk > 0.7), probabilities > 0.1)


# Subgroups


def test_subgroups_state_counts_always_and_figures_where_they_can():
    probabilities, labels = drawn(2, 700)
    about = {
        "age": [None if i >= 690 else (80.0 if i < 20 else 50.0) for i in range(700)],
        "sex": ["female" if i % 2 else "male" for i in range(700)],
        "site": [None] * 700,
    }
    lesions = [f"L{i // 2}" for i in range(700)]
    given = answers_of(probabilities)
    groups = subgroups(cases_of(labels, lesions, **about), probabilities, given.risk, given.triage)
    assert list(groups["age"]) == ["45-59", "75+", "unknown"]
    assert sum(g["images"] for g in groups["sex"].values()) == 700
    assert groups["site"]["unknown"]["lesions"] == 350
    old = groups["age"]["75+"]
    assert old["images"] == 20 and old["images_of"]["MEL"] == 3
    assert old["balanced_accuracy"] is old["accuracy"] is old["melanoma_auc"]["value"] is None
    assert (old["melanoma_auc"]["positives"], old["melanoma_auc"]["negatives"]) == (3, 17)
    melanoma = old["review"]["melanoma"]
    assert melanoma["sensitivity"]["value"] is melanoma["specificity"]["value"] is None
    assert (melanoma["sensitivity"]["n"], melanoma["specificity"]["n"]) == (3, 17)
    many = groups["site"]["unknown"]
    whole = measure(probabilities, labels)
    assert many["balanced_accuracy"] == whole["balanced_accuracy"]["value"]
    assert many["melanoma_auc"]["value"] == whole["conditions"]["MEL"]["auc"]


def test_age_bands():
    ages = (0, 29.9, 30, 44, 45, 59, 60, 74, 75, 100, None)
    bands = ("<30", "<30", "30-44", "30-44", "45-59", "45-59", "60-74", "60-74", "75+", "75+", "unknown")
    assert tuple(map(age_band, ages)) == bands


# The report


@pytest.fixture(scope="module")
def written(tmp_path_factory, few_draws):
    out = tmp_path_factory.mktemp("report")
    probabilities, labels = drawn(4, 350)
    sex = ["female" if i % 2 else "male" for i in range(350)]
    cases = cases_of(labels, sex=sex)
    return out, write_report(out, cases, answers_of(probabilities), {"scorer": "test"}), cases


def test_report_is_written_whole(written):
    out, report, cases = written
    assert json.loads((out / "metrics.json").read_text()) == report
    assert next(iter(report)) == "scorer"
    assert report["official"]["balanced_accuracy"] == pytest.approx(report["balanced_accuracy"]["value"])
    assert [c.condition for c in read_truth(out / "truth.csv")] == [c.condition for c in cases]
    again = official.score(out / "truth.csv", out / "submission.csv")
    assert again == report["official"]


@pytest.mark.parametrize(
    ("name", "least_colours"), [("confusion", 15), ("roc", 7), ("reliability", 3), ("risk", 3)]
)
def test_plots_show_something(written, name, least_colours):
    with Image.open(written[0] / f"{name}.png") as image:
        assert min(image.size) >= 850
        colours = image.convert("RGB").getcolors(maxcolors=2**20)
    large = [count for count, _ in colours if count > 300]
    assert len(large) >= least_colours


def test_plots_survive_what_is_missing(tmp_path):
    labels = np.array([1] * 12)
    report = write_report(tmp_path, cases_of(labels), answers_of(np.zeros((12, 7))))
    assert report["accuracy"] == 0
    assert all(
        (tmp_path / f"{name}.png").stat().st_size > 5000
        for name in ("confusion", "roc", "reliability", "risk")
    )
    assert "- " in summary(report)


@pytest.mark.parametrize(("label", "risk"), [(1, 0.0), (1, 0.2), (0, 0.9), (0, 1e-12)])
def test_risk_is_drawn_on_logarithmic_axes_whatever_it_is(tmp_path, label, risk):
    """Zeros, bins with none or only malignant ones, and thresholds at the ends."""
    labels, given = np.full(30, label), np.linspace(risk, risk / 2, 30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_risk(tmp_path / "risk.png", given, labels, {"review": 0.0, "urgent": 1.0})
    assert (tmp_path / "risk.png").stat().st_size > 5000


def test_thresholds_are_drawn_below_every_risk_too(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Axes, "axvline", lambda axes, x, **style: drawn.append((x, style.get("label"))))
    draw_risk(
        tmp_path / "risk.png", np.linspace(0.2, 1, 30), np.arange(30) % 7, {"review": 9e-4, "urgent": 0.5}
    )
    assert drawn == [(9e-4, "review: 0.0009000"), (9e-4, None), (0.5, "urgent: 0.5000"), (0.5, None)]


def test_no_figure_stands_alone(written):
    """Accuracy only beside balanced accuracy, sensitivity only beside specificity."""
    text = summary(written[1])
    for line in text.splitlines():
        if "accuracy" in line:
            assert "balanced accuracy" in line
        assert line.count("sensitivity") == line.count("specificity")
    assert f"   accuracy {written[1]['accuracy']:.3f}" in text
    assert "official scorer     isic-challenge-scoring" in text
    older = {key: value for key, value in written[1].items() if key != "risk"}
    assert set(text.splitlines()) - set(summary(older).splitlines()) == {
        line for line in text.splitlines() if line.startswith("RISK ")
    }

    def check(node):
        if isinstance(node, dict):
            assert ("sensitivity" in node) == ("specificity" in node)
            if "per_category" not in node and "ppv" not in node:  # of the official scorer's own form
                assert "accuracy" not in node or "balanced_accuracy" in node or "confidence" in node
            for value in node.values():
                check(value)

    check({key: value for key, value in written[1].items() if key != "intervals_95"})


def test_report_without_a_folder_is_the_same(written):
    _, report, cases = written
    probabilities, _ = drawn(4, 350)
    same = report_on(cases, answers_of(probabilities))
    assert same == {key: value for key, value in report.items() if key != "scorer"}
