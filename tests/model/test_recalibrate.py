"""``derma-train calibrate``: a sealed bundle before and after, whatever happens between."""

import json
import multiprocessing
import os
import shutil
import signal
import threading
from dataclasses import replace

import click.testing
import numpy as np
import pytest

from derma_semantics.domain.conditions import CODES
from derma_semantics.domain.numbers import significant
from derma_training.bundle import Bundle, folders, seal, write_calibration
from derma_training.bundle.folders import replace_folder
from derma_training.calibration import recalibrate
from derma_training.cli import main
from derma_training.data import read

ON_EACH = 7  # images of each condition


@pytest.fixture
def photos(tmp_path, picture):
    """A folder per class."""
    for index, code in enumerate(CODES):
        (tmp_path / "photos" / code).mkdir(parents=True)
        for number in range(ON_EACH):
            name = f"{code}_{number}.png"
            picture(ON_EACH * index + number).save(tmp_path / "photos" / code / name)
    return tmp_path / "photos"


@pytest.fixture
def bundle(mini, tmp_path):
    """The committed weights; two thirds of the photos are its calibration part."""
    folder = shutil.copytree(mini, tmp_path / "bundles" / "own")
    part = [f"{code}_{number}" for code in CODES for number in range(5)]
    (folder / "split.json").write_text(json.dumps({"calibration": part, "test": []}))
    facts = {k: v for k, v in Bundle.open(mini).manifest.items() if k not in ("schema_version", "files")}
    return seal(folder, **facts)


def run(*arguments):
    return click.testing.CliRunner().invoke(main, ["calibrate", *map(str, arguments)])


def test_own_part(bundle, photos):
    result = run(bundle.path, "--data", photos, "--sensitivity", "0.6", "--confidence", "0.85")
    assert result.exit_code == 0, result.output
    after = Bundle.open(bundle.path)
    assert after.digest != bundle.digest
    changed = {n for n, digest in after.manifest["files"].items() if digest != bundle.manifest["files"][n]}
    assert changed == {"calibration.json", "MODEL_CARD.md"}
    assert {**after.manifest, "files": 0} == {**bundle.manifest, "files": 0}
    report = after.calibration.report
    assert report["calibration_set"]["images"] == 35
    assert report["calibration_set"]["name"] == "the bundle's calibration part"
    assert report["targets"]["sensitivity"] == 0.6
    assert report["achieved"]["review"]["melanoma"]["sensitivity"]["value"] == 1
    assert f"is now {after.digest[:12]}, was {bundle.digest[:12]}: export it again" in result.output
    assert "With 85 % confidence review finds at least 60 % of melanomas" in result.output
    assert "sensitivity 1.000 (n=5), specificity" in result.output
    card = (after.path / "MODEL_CARD.md").read_text()
    assert card.count("**Calibration.**") == 1
    assert f'{significant(after.calibration.review)} is "review"' in card
    assert "**Limits.**" in card
    assert str(photos) not in (after.path / "calibration.json").read_text() + card
    again = run(bundle.path, "--data", photos, "--sensitivity", "0.6", "--confidence", "0.85")
    assert again.exit_code == 0
    assert Bundle.open(bundle.path).digest == after.digest  # the same images, the same thresholds
    assert [p.name for p in bundle.path.parent.iterdir()] == ["own"]


def test_everything_but_not_what_training_saw(bundle, photos):
    refused = run(bundle.path, "--data", photos, "--all")
    assert refused.exit_code == 1
    assert "35 of these images" in refused.output
    assert "training saw the rest" in refused.output
    assert Bundle.open(bundle.path).digest == bundle.digest
    for path in photos.glob("*/*.png"):
        path.rename(path.with_name(f"clinic-{path.name}"))
    result = run(bundle.path, "--data", photos, "--all")
    assert result.exit_code == 0, result.output
    assert (
        "7 melanomas cannot prove a sensitivity of 95 % with 90 % confidence, which takes 45" in result.output
    )
    calibration = Bundle.open(bundle.path).calibration
    assert (calibration.review, calibration.report["calibration_set"]["images"]) == (0.0, 49)
    missing = run(bundle.path, "--data", photos)
    assert missing.exit_code == 1
    assert "the data lacks 35 of 35 images" in missing.output


AIMS = ("--sensitivity", "0.6", "--confidence", "0.85")
SAID = "MEL = 40, NV=900,BCC=30,AKIEC=10,BKL=10,DF=5,VASC=5"
SHARES = [0.04, 0.9, 0.03, 0.01, 0.01, 0.005, 0.005]


def older(bundle, **parts):
    """As older code made it, without a prevalence, and with more parts in its split."""
    told = json.loads((bundle.path / "calibration.json").read_text())
    del told["prevalence"]
    (bundle.path / "calibration.json").write_text(json.dumps(told))
    split = json.loads((bundle.path / "split.json").read_text())
    (bundle.path / "split.json").write_text(json.dumps({**split, **parts}))
    return seal(bundle.path, name="older")


def test_the_bundle_keeps_its_prevalence(bundle, photos):
    """From one calibration to the next, until somebody gives another, which is then kept as well."""
    assert run(bundle.path, "--data", photos, *AIMS).exit_code == 0
    kept = Bundle.open(bundle.path).calibration
    assert kept.frequencies == pytest.approx(bundle.calibration.frequencies)
    assert kept.report["prevalence_from"] == "kept from an earlier calibration"
    assert "not taken from the calibration images" in kept.report["assumes"]["prevalence"]
    said = run(bundle.path, "--data", photos, *AIMS, "--prevalence", SAID)
    assert said.exit_code == 0
    again = run(bundle.path, "--data", photos)
    for result in (said, again):
        assert "MEL 4%, NV 90%" in result.output
        assert "(given by hand). The guarantees of review and urgent hold only if" in result.output
    calibration = Bundle.open(bundle.path).calibration
    assert calibration.frequencies == pytest.approx(SHARES)
    assert calibration.report["prevalence_from"] == "given by hand"
    assert "not taken from the calibration images" in (bundle.path / "MODEL_CARD.md").read_text()


def test_an_older_bundle_counts_what_trained_it(bundle, photos):
    """Of the images that it names, not of others that it does not know."""
    older(bundle, train=["MEL_5", *(f"{code}_{number}" for code in CODES[1:] for number in (5, 6))])
    result = run(bundle.path, "--data", photos, *AIMS)
    assert result.exit_code == 0, result.output
    assert "MEL 10%, NV 15%" in result.output
    assert "(the bundle's training lesions)" in result.output
    known = Bundle.open(bundle.path).calibration
    assert known.frequencies == pytest.approx([2 / 20, *[3 / 20] * 6])
    assert known.report["prevalence_from"] == "the bundle's training lesions"
    assert "MEL 10%, NV 15%" in (bundle.path / "MODEL_CARD.md").read_text()
    for path in photos.glob("*/*.png"):
        path.rename(path.with_name(f"clinic-{path.name}"))
    assert run(bundle.path, "--data", photos, *AIMS, "--all").exit_code == 0
    after = Bundle.open(bundle.path).calibration
    assert after.prevalence == known.prevalence
    assert after.report["prevalence_from"] == "the bundle's training lesions"


def test_a_bundle_that_names_no_training_images_counts_what_it_does_not_hold_out(bundle, photos):
    older(bundle, validation=["MEL_6"])
    assert run(bundle.path, "--data", photos, *AIMS).exit_code == 0
    known = Bundle.open(bundle.path).calibration
    assert known.frequencies == pytest.approx([2 / 20, *[3 / 20] * 6])
    assert known.report["prevalence_from"] == "lesions that the bundle does not hold out"


@pytest.mark.parametrize("recorded", [True, False])
def test_without_any_prevalence_all_stay_equally_frequent_until_some_can_be_counted(bundle, photos, recorded):
    older(bundle)
    names = {path: path.with_name(f"clinic-{path.name}") for path in photos.glob("*/*.png")}
    for path, other in names.items():
        path.rename(other)
    result = run(bundle.path, "--data", photos, *AIMS, "--all")
    assert (
        "Probabilities and RISK are those of a clinic that sees all conditions equally often" in result.output
    )
    equal = Bundle.open(bundle.path).calibration
    assert equal.frequencies == pytest.approx([1 / 7] * 7)
    assert equal.report["prevalence_from"] == "nothing was counted"
    if not recorded:  # as older code left it
        report = {key: value for key, value in equal.report.items() if key != "prevalence_from"}
        write_calibration(bundle.path, replace(equal, report=report))
        seal(bundle.path, name="older")
    for path, other in names.items():
        other.rename(path)
    (photos / "MEL" / "MEL_6.png").unlink()
    assert run(bundle.path, "--data", photos, *AIMS).exit_code == 0
    assert Bundle.open(bundle.path).calibration.frequencies == pytest.approx([2 / 20, *[3 / 20] * 6])


REST = "NV=1,BCC=1,AKIEC=1,BKL=1,DF=1,VASC=1"


@pytest.mark.parametrize(
    "said",
    ["MEL=40", "", "MEL", *(f"{text},{REST}" for text in ("MEL=x", "MEL=0", "MEL=1,MEL=2", "MEL=1,stray"))],
)
def test_impossible_prevalence_is_refused(bundle, photos, said):
    refused = run(bundle.path, "--data", photos, "--prevalence", said)
    assert refused.exit_code == 2
    words = " ".join(refused.output.split())
    assert "must give each of MEL, NV, BCC, AKIEC, BKL, DF, VASC a number above zero" in words
    assert Bundle.open(bundle.path).digest == bundle.digest


def test_less_than_clients_promise_is_refused(bundle, photos):
    result = run(bundle.path, "--data", photos, "--coverage", "0.8")
    assert result.exit_code == 1
    assert "coverage must be at least 0.95" in result.output
    assert run(bundle.path, "--data", photos, "--confidence", "1").exit_code == 2


def test_lesions_count_once(photos):
    examples = read(photos)
    assert recalibrate.one_a_lesion([*examples, *examples]) == examples


@pytest.fixture
def fast(monkeypatch):
    """Drawn answers instead of the network's, so that a forked process need not use torch's threads."""

    def answers(bundle, examples):
        return np.random.default_rng(0).dirichlet(np.ones(7), len(examples)), None

    monkeypatch.setattr(recalibrate, "answers", answers)


@pytest.mark.parametrize(
    "step", ["write_calibration", "recalibrated_card", "seal", "replace_folder", "after"]
)
def test_killed_at_any_step_it_leaves_a_whole_bundle(bundle, photos, fast, monkeypatch, step):
    def kill(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    if step == "after":
        monkeypatch.setattr(folders.shutil, "rmtree", kill)  # the folders are swapped, the old one is there
    else:
        owner = recalibrate if hasattr(recalibrate, step) else folders
        monkeypatch.setattr(owner, step, kill)
    process = multiprocessing.get_context("fork").Process(
        target=recalibrate.recalibrate, args=(bundle, read(photos)), kwargs={"name": "drawn"}
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert (Bundle.open(bundle.path).digest == bundle.digest) == (step != "after")


def test_readers_always_find_the_folder(tmp_path):
    def write(name):
        (tmp_path / name).mkdir()
        (tmp_path / name / "content").write_text("whole")
        return tmp_path / name

    folder, done, absent = write("folder"), threading.Event(), []

    def watch():
        while not done.is_set():
            if not (folder / "content").is_file():
                absent.append(1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(300):
        replace_folder(write("new"), folder)
    done.set()
    watcher.join(10)
    assert absent == []
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_folders_are_replaced_where_they_cannot_be_swapped(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "_exchange", lambda one, other: False)
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "absent", tmp_path / "old")
    assert (tmp_path / "old" / "old").is_file()  # put back
    replace_folder(tmp_path / "new", tmp_path / "old")
    assert [path.name for path in tmp_path.rglob("*")] == ["old", "new"]
