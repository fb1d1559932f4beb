"""Bundles: sealed, checked, and refused when altered."""

import json
import math
import shutil

import pytest

from derma_semantics.domain.conditions import CODES
from derma_training.bundle import Bundle, BundleError, Calibration, seal


@pytest.fixture
def copy(mini, tmp_path):
    return shutil.copytree(mini, tmp_path / "derma-mini")


def test_committed_bundle(mini):
    bundle = Bundle.open(mini)
    assert bundle.name == "derma-mini"
    assert tuple(bundle.prompts) == CODES
    assert bundle.adapter == mini / "adapter"
    assert 0 < bundle.calibration.review < bundle.calibration.urgent < 1
    assert "CC BY-NC 4.0" in (mini / "MODEL_CARD.md").read_text()
    size = sum(p.stat().st_size for p in mini.rglob("*") if p.is_file())
    assert size < 30e6


def test_committed_bundle_is_good_enough(mini):
    metrics = json.loads((mini / "metrics.json").read_text())
    assert metrics["balanced_accuracy"]["value"] > 0.65
    assert metrics["split"]["by"] == "lesion"


NAMES = (
    "open_clip_model.safetensors",
    "prompts.json",
    "calibration.json",
    "text/package.json",
    "adapter/adapter_model.safetensors",
    "adapter/adapter_config.json",
    "MODEL_CARD.md",
)


def flip(path, position):
    """Change one bit of a byte."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", NAMES)
def test_altered_files_are_refused(copy, name):
    path = copy / name
    flip(path, path.stat().st_size // 2)
    with pytest.raises(BundleError, match=f"{name} was altered"):
        Bundle.open(copy)
    path.unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        Bundle.open(copy)


def test_an_altered_manifest_is_refused_or_another_bundle(copy):
    """No byte of it can change unnoticed: the digest is that of all of them."""
    path, digest = copy / "bundle.json", Bundle.open(copy).digest
    original, outcomes = path.read_bytes(), set()
    for position in range(0, len(original), len(original) // 40):
        flip(path, position)
        try:
            assert Bundle.open(copy).digest != digest
            outcomes.add("another")
        except BundleError:
            outcomes.add("refused")
        path.write_bytes(original)
    assert outcomes == {"another", "refused"}


@pytest.mark.parametrize("content", ["", "null", "[]", "{", '{"schema_version": 1, "files": ["a"]}', "\x00"])
def test_a_manifest_that_is_none_is_named(copy, content):
    (copy / "bundle.json").write_text(content)
    with pytest.raises(BundleError, match=r"bundle\.json was altered|schema version"):
        Bundle.open(copy)


def test_linked_folders_are_refused(copy, tmp_path):
    """Files behind them would be used without having been checked."""
    (copy / "adapter").rename(tmp_path / "elsewhere")
    (copy / "adapter").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match=r"adapter/\S+ is missing"):
        Bundle.open(copy)


@pytest.mark.parametrize("name", ["adapter/more.safetensors", "model.pt", "text/extra.txt"])
def test_added_files_are_refused(copy, name):
    (copy / name).write_bytes(b"x")
    with pytest.raises(BundleError, match="does not belong to the bundle"):
        Bundle.open(copy)


def test_a_manifest_must_name_the_essentials(copy):
    manifest = json.loads((copy / "bundle.json").read_text())
    (copy / "bundle.json").write_text(json.dumps({**manifest, "files": {}}))
    with pytest.raises(BundleError, match="is missing"):
        Bundle.open(copy)


def test_unknown_schema_and_strange_folders_are_refused(copy, tmp_path):
    manifest = json.loads((copy / "bundle.json").read_text())
    (copy / "bundle.json").write_text(json.dumps({**manifest, "schema_version": 99}))
    with pytest.raises(BundleError, match="schema version 99"):
        Bundle.open(copy)
    with pytest.raises(BundleError, match="is not a bundle"):
        Bundle.open(tmp_path)


def test_prompts_must_cover_the_conditions(copy):
    (copy / "prompts.json").write_text(json.dumps({"MEL": ["melanoma"]}))
    bundle = seal(copy, name="short")
    with pytest.raises(BundleError, match=r"prompts\.json must define MEL, NV"):
        bundle.prompts  # noqa: B018


def test_digest_follows_the_content(copy):
    before = Bundle.open(copy).digest
    (copy / "prompts.json").write_text((copy / "prompts.json").read_text().replace("melanoma", "Melanoma"))
    assert seal(copy, **{"name": "derma-mini"}).digest != before


@pytest.mark.parametrize("values", [(0, 0.1, 0.2), (1, 0.3, 0.2), (1, -0.1, 0.2), (1, 0.1, 1.2)])
def test_impossible_calibrations_are_refused(values):
    with pytest.raises(BundleError):
        Calibration(*values[:1], review=values[1], urgent=values[2])


@pytest.mark.parametrize("name", ["temperature", "review", "urgent", "margin"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "0.5", None, True, [0.5]])
def test_calibrations_hold_finite_numbers(name, value):
    with pytest.raises(BundleError, match=f"{name} must be a finite number, got"):
        Calibration(**{"review": 0.1, "urgent": 0.2, name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("temperature", 1e-300), ("temperature", 1e9), ("margin", 0.5), ("margin", 1e6)]
)
def test_calibrations_stay_in_range(name, value):
    with pytest.raises(BundleError, match=rf"{name} must be in \["):
        Calibration(**{name: value})


def test_a_bias_is_read_only_where_it_changes_nothing(copy):
    """The committed bundle was sealed when one could be fitted, and names seven zeros."""
    path = copy / "calibration.json"
    content = json.loads(path.read_text())
    assert set(content["bias"].values()) == {0.0}
    for changed in ({"bias": {**content["bias"], "MEL": 0.1}}, {"offset": 1}):
        path.write_text(json.dumps({**content, **changed}))
        with pytest.raises(BundleError, match=r"calibration\.json: unknown entry (bias|offset)"):
            seal(copy, name="other").calibration  # noqa: B018


def test_set_thresholds_follow_the_conditions():
    calibration = Calibration(prediction_set={"BCC": 0.2, "MEL": 0.1})
    assert calibration.set_thresholds == [0.1, 0, 0.2, 0, 0, 0, 0]  # not named: always in the set
    assert Calibration(temperature=2, review=0.1, urgent=0.2).set_thresholds == [0] * 7
    with pytest.raises(BundleError, match="prediction_set of MEL must be a finite number, got nan"):
        Calibration(prediction_set={"MEL": math.nan})
    for wrong in ({"XYZ": 0.1}, {"MEL": 1.1}, {"MEL": -0.1}):
        with pytest.raises(BundleError, match="prediction_set must give conditions values in"):
            Calibration(prediction_set=wrong)


def test_prevalence_names_every_condition_or_none():
    assert Calibration().frequencies == pytest.approx([1 / 7] * 7)
    counts = dict(zip(CODES, (1, 2, 3, 4, 5, 5, 5), strict=True))
    assert Calibration(prevalence=counts).frequencies == pytest.approx([n / 25 for n in counts.values()])
    with pytest.raises(BundleError, match="prevalence must name MEL, NV, .* and names MEL, NV"):
        Calibration(prevalence={"MEL": 1, "NV": 2})
    for wrong in (0, -1, 1e-6, 1e308, math.inf, math.nan, "1", None, [1]):
        with pytest.raises(BundleError, match="prevalence must be finite"):
            Calibration(prevalence=counts | {"DF": wrong})
