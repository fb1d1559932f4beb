"""The gate rejects bad graphs; the repository is written in one step or not at all."""

import copy
import json
import shutil
import threading

import click.testing
import pytest
import torch

from derma_export import exporter, gate
from derma_export.cli import main
from derma_export.exporter import Task
from derma_export.facts import facts, statement
from derma_export.graph import OnnxClassifier, export_onnx
from derma_export.samples import folder_samples, synthetic_samples
from derma_semantics.domain.conditions import CODES
from derma_semantics.domain.contract import CANDIDATE, FACTS, MODELS, NETWORK, PARAMETERS
from derma_semantics.domain.integrity import sha256
from derma_serving import drafts, repository, router
from derma_serving.model_config import (
    located,
    parameters,
    profiles,
    read,
    set_parameters,
    set_sizes,
    steps,
    write,
)
from derma_serving.settings import TEMPLATES
from derma_training.bundle import Bundle, Calibration, seal, write_calibration
from derma_training.network.classifier import Answers, Classifier


@pytest.fixture(scope="module")
def classifier(mini):
    return Classifier.from_bundle(Bundle.open(mini))


@pytest.fixture(scope="module")
def samples():
    return synthetic_samples(6)


@pytest.fixture(scope="module")
def reference(classifier, samples):
    with torch.inference_mode():
        return classifier(samples.pixels)


@pytest.fixture
def graph(tmp_path):
    path = tmp_path / "graph.onnx"
    path.write_bytes(b"graph")
    return path


def snapshot(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_gate_passes_the_same_answers(reference, samples):
    report = gate.compare(reference, reference, gate.LIMITS["fp32"])
    assert report.failures == []
    report.require(samples.names)


def planted(classifier, fault):
    """The classifier with one mistake that exports make."""

    def run(pixels):
        with torch.inference_mode():
            if fault == "channels":
                return classifier(pixels.flip(-1))
            if fault == "mean":
                return classifier((pixels.float() + 20).clamp(0, 255).to(torch.uint8))
            answers = classifier(pixels)
            if fault == "nan":
                return answers._replace(probabilities=answers.probabilities * float("nan"))
            if fault == "risk":
                return answers._replace(risk=answers.risk + 2e-4)
            if fault == "triage":
                return answers._replace(triage=(answers.triage + 1) % 3)
            if fault == "prediction set":
                return answers._replace(prediction_set=answers.prediction_set.logical_not())
            return answers._replace(embedding=-answers.embedding)

    return run


@pytest.mark.parametrize(
    "fault", ["channels", "mean", "nan", "risk", "triage", "prediction set", "embedding"]
)
def test_gate_rejects_planted_faults(classifier, reference, samples, fault):
    report = gate.compare(reference, planted(classifier, fault)(samples.pixels), gate.LIMITS["fp32"])
    with pytest.raises(gate.GateFailed, match="synthetic"):
        report.require(samples.names)


def test_failed_gate_leaves_the_repository_untouched(mini, classifier, samples, tmp_path):
    target = tmp_path / "models"
    with pytest.raises(gate.GateFailed, match="probabilities differ"):
        exporter.export_bundle(
            Bundle.open(mini),
            target,
            Task(samples),
            say=lambda _: None,
            run_graph=lambda *_: planted(classifier, "channels"),
        )
    assert not target.exists()


def test_failed_bundle_exits_1(mini, tmp_path):
    broken = shutil.copytree(mini, tmp_path / "broken")
    (broken / "prompts.json").write_text("{}")
    result = click.testing.CliRunner().invoke(main, [str(broken), "--repository", str(tmp_path / "models")])
    assert result.exit_code == 1
    assert "prompts.json was altered" in result.output
    assert not (tmp_path / "models").exists()


@pytest.fixture
def templates(tmp_path, monkeypatch):
    """A copy of what people wrote, to change."""
    copied = shutil.copytree(TEMPLATES, tmp_path / "templates")
    monkeypatch.setattr(repository, "TEMPLATES", copied)
    return copied


def edit(path, change):
    config = read(path)
    change(config)
    write(path, config)


def without_accelerator(config):
    config.ClearField("optimization")


@pytest.mark.parametrize("provider", ["openvino", "cpu"])
def test_the_gate_runs_what_will_serve(mini, samples, tmp_path, templates, provider):
    target = tmp_path / "models"
    if provider == "cpu":
        edit(templates / NETWORK.name / "config.pbtxt", without_accelerator)
    engines = []

    def opened(graph, engine):
        engines.append(engine)
        return OnnxClassifier(graph, engine)

    task = Task(samples, "fp32")
    exporter.export_bundle(Bundle.open(mini), target, task, say=lambda _: None, run_graph=opened)
    assert [engine.provider for engine in engines] == [provider]
    assert repository.check(target)["1"]["engine"] == provider


def test_a_gate_without_labels_is_not_enough_where_there_are_some(mini, samples, tmp_path):
    bundle, target = Bundle.open(mini), tmp_path / "models"
    exporter.export_bundle(bundle, target, Task(samples), say=lambda _: None)
    assert repository.is_newest(target, statement(bundle, "fp32"))
    assert not repository.is_newest(target, statement(bundle, "fp32"), labelled=True)


def test_export_writes_a_whole_version(mini, samples, tmp_path):
    """And leaves the checkout as it is."""
    bundle, target, written = Bundle.open(mini), tmp_path / "models", snapshot(TEMPLATES)
    assert not repository.is_newest(target, statement(bundle, "fp32"))
    assert exporter.export_bundle(bundle, target, Task(samples), say=lambda _: None) == 1
    assert {p.name for p in target.iterdir()} == {m.name for m in MODELS}
    manifest = json.loads((target / NETWORK.name / "1" / "manifest.json").read_text())
    assert manifest["bundle_digest"] == bundle.digest
    assert (
        manifest["files"]["open_clip_model.safetensors"]
        == bundle.manifest["files"]["open_clip_model.safetensors"]
    )
    assert manifest["gate"]["probability"] <= 1e-4
    assert manifest["gate"]["merge"] <= 1e-5
    assert repository.stated(target)["bundle_digest"] == bundle.digest
    assert repository.is_newest(target, statement(bundle, "fp32"))
    config_file = target / NETWORK.name / "config.pbtxt"
    right = config_file.read_text()
    config_file.write_text(right.replace(bundle.digest, "0" * 64))
    manifest_file = target / NETWORK.name / "1" / "manifest.json"
    for other in ({"outputs": manifest["outputs"][1:]}, {"engine": "cpu"}, {"bundle_digest": "0" * 64}):
        manifest_file.write_text(json.dumps(manifest | other))
        assert not repository.is_newest(target, statement(bundle, "fp32"))
    manifest_file.write_text(json.dumps(manifest))
    result = click.testing.CliRunner().invoke(main, [str(mini), "--repository", str(target), "--if-needed"])
    assert result.exit_code == 0
    assert "already" in result.output
    assert config_file.read_text() == right
    assert [p.name for p in (target / NETWORK.name).iterdir() if p.name.isdigit()] == ["1"]
    assert snapshot(TEMPLATES) == written


def manifest_of(name):
    return dict.fromkeys((*PARAMETERS, *FACTS), name) | {"embedding_size": 8}


def shorter_queue(config):
    config.dynamic_batching.default_queue_policy.max_queue_size = 7


def smaller_batches(config):
    config.max_batch_size = 16


def test_what_people_change_reaches_what_is_served(graph, tmp_path, templates):
    """At the next step, whichever; a canary under way stays."""
    target = tmp_path / "models"
    repository.install(target, graph, manifest_of("a"))
    router.add(target, 20)
    router.ask(target, True)
    for model in ("derma_preprocess", NETWORK.name):
        edit(templates / model / "config.pbtxt", shorter_queue)
    edit(
        templates / "derma_classifier" / "config.pbtxt", lambda config: setattr(config, "max_batch_size", 16)
    )
    (templates / NETWORK.name / "configs" / "cuda.pbtxt").unlink()
    repository.restamp(target, target / NETWORK.name / "1")
    for model in ("derma_preprocess", NETWORK.name):
        config = read(target / model / "config.pbtxt")
        assert config.dynamic_batching.default_queue_policy.max_queue_size == 7
    public = read(target / "derma_classifier" / "config.pbtxt")
    assert (public.max_batch_size, list(steps(public))) == (16, ["derma_preprocess", "derma_canary"])
    assert router.share(target) == 20
    assert not (target / NETWORK.name / "configs" / "cuda.pbtxt").exists()
    before = snapshot(target)
    repository.restamp(target, target / NETWORK.name / "1")
    assert snapshot(target) == before
    router.ask(target, False)
    assert list(steps(read(target / "derma_classifier" / "config.pbtxt")))[1] == NETWORK.name


def test_versions_count_up_and_survive_rivals(graph, tmp_path):
    """Ten exporters at once get ten versions."""
    target, versions = tmp_path / "models", []
    told = manifest_of("a") | {"graph_digest": sha256(graph)}
    threads = [
        threading.Thread(target=lambda: versions.append(repository.install(target, graph, told)))
        for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(versions) == list(range(1, 11))
    assert repository.check(target)["10"] == {"version": 10, **told}
    assert not list(target.rglob(".*.incoming"))


def test_a_failed_write_leaves_no_half_version(graph, tmp_path, monkeypatch):
    target = tmp_path / "models"

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(drafts, "flush", full_disk)
    with pytest.raises(OSError, match="No space"):
        repository.install(target, graph, manifest_of("a"))
    assert snapshot(target) == {}


@pytest.mark.parametrize("model", [NETWORK, CANDIDATE])
def test_only_what_is_stated_of_a_version_is_added(mini, graph, tmp_path, model):
    """Every character of it."""
    strange = {"card": json.dumps({"it's": 'a "b" \\ c\nd \\" é'}), "calibration": "\\"}
    told = statement(Bundle.open(mini), "fp32") | strange
    repository.install(tmp_path, graph, {**told, "embedding_size": 512}, model)
    folder = tmp_path / model.name
    for path in (located(folder), *profiles(folder)):
        config, template = read(path), read(TEMPLATES / NETWORK.name / path.relative_to(folder))
        assert {key: parameters(config)[key] for key in told} == told
        template.name = model.name
        set_parameters(template, told)
        set_sizes(template, NETWORK, 512)
        assert -1 not in [size for output in config.output for size in output.dims]
        assert config == template
    assert (folder / "labels.txt").read_text().split() == list(CODES)


def test_what_a_bundle_says_of_itself_is_what_was_measured(mini):
    bundle = Bundle.open(mini)
    calibration, card = (json.loads(text) for text in facts(bundle).values())
    known = bundle.calibration
    assert (calibration["review"], calibration["urgent"]) == pytest.approx(
        (known.review, known.urgent), abs=1e-4
    )
    assert calibration["targets"]["sensitivity"] == 0.95
    assert list(calibration["prevalence"].values()) == pytest.approx(known.frequencies, abs=1e-4)
    found = calibration["achieved"]["review"]["melanoma"]["sensitivity"]
    measured = known.report["achieved"]["review"]["melanoma"]["sensitivity"]
    assert (found["value"], found["n"]) == (pytest.approx(measured["value"], abs=1e-4), measured["n"])
    assert calibration["guarantees"]["review"].startswith("With 90 % confidence review finds at least 95 %")
    assert card["licence"] == "CC BY-NC 4.0"
    assert card["measured"]["images"] == json.loads((mini / "metrics.json").read_text())["images"]
    assert set(card["measured"]["melanoma"]) == {"sensitivity", "specificity"}
    assert card["limits"].startswith("Mostly light skin")


def test_without_prevalence_all_are_equally_frequent(mini, tmp_path, samples):
    """A bundle of older code names none: its RISK is the sum of the probabilities, as it was."""
    folder = shutil.copytree(mini, tmp_path / "older")
    told = json.loads((folder / "calibration.json").read_text())
    told.pop("prevalence", None)
    (folder / "calibration.json").write_text(json.dumps(told))
    with torch.inference_mode():
        answers = Classifier.from_bundle(seal(folder, name="older"))(samples.pixels)
    assert torch.equal(answers.risk, answers.probabilities[:, [0, 2, 3]].sum(dim=1, keepdim=True))


def test_a_bundle_that_states_little(mini, tmp_path):
    """One from elsewhere: no metrics, no card, thresholds without a report."""
    folder = shutil.copytree(mini, tmp_path / "bare")
    for name in ("metrics.json", "MODEL_CARD.md"):
        (folder / name).unlink()
    rare = dict.fromkeys(CODES, 1.0) | {"MEL": 1.23456e-5}
    write_calibration(folder, Calibration(review=1.234e-5, urgent=0.7, prevalence=rare))
    calibration, card = (json.loads(text) for text in facts(seal(folder, name="bare")).values())
    told = dict.fromkeys(CODES, 1.0) | {"MEL": 1.235e-5}
    assert calibration == {"review": 1.234e-5, "urgent": 0.7, "prevalence": told}
    assert card == {}


def test_gate_images_from_a_folder(tmp_path, jpeg):
    for seed in range(5):
        (tmp_path / f"{seed}.jpg").write_bytes(jpeg(seed))
    assert folder_samples(tmp_path, most=3).names == ("0.jpg", "2.jpg", "4.jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no image"):
        folder_samples(tmp_path / "empty")


def test_answers_follow_the_contract(reference):
    assert tuple(name.upper() for name in Answers._fields) == tuple(NETWORK.outputs)
    for tensor, (name, spec) in zip(reference, NETWORK.outputs.items(), strict=True):
        assert {"FP32": torch.float32, "INT32": torch.int32, "UINT8": torch.uint8, "BOOL": torch.bool}[
            spec.datatype
        ] == tensor.dtype
        assert all(want in (-1, got) for want, got in zip(spec.shape, tensor.shape[1:], strict=True)), name


def test_risk_and_triage_are_what_they_say(classifier, reference, mini):
    calibration = Bundle.open(mini).calibration
    probabilities = reference.probabilities
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(6), atol=1e-6)
    # MEL, BCC, AKIEC
    weighed = probabilities * torch.tensor(calibration.frequencies)
    risk = weighed[:, [0, 2, 3]].sum(dim=1, keepdim=True) / weighed.sum(dim=1, keepdim=True)
    assert torch.allclose(reference.risk, risk, atol=1e-6)
    triage = (reference.risk >= calibration.review).int() + (reference.risk >= calibration.urgent).int()
    assert torch.equal(reference.triage, triage)
    lowest = torch.tensor(calibration.set_thresholds)
    belongs = (probabilities >= lowest) | (probabilities == probabilities.amax(dim=1, keepdim=True))
    assert torch.equal(reference.prediction_set, belongs)
    assert 6 < reference.prediction_set.sum() < 6 * 7
    assert torch.allclose(reference.embedding.norm(dim=1), torch.ones(6), atol=1e-5)
    assert bytes(reference.bundle[0].tolist()).hex() == Bundle.open(mini).digest


def test_prediction_sets_are_computed_in_the_graph(classifier, samples, tmp_path):
    """What reaches its threshold, and the most probable condition whatever its probability."""
    thresholds = [0.05, 0.3, 0.9, 1.0, 0.0, 0.2, 0.5]
    stricter = copy.deepcopy(classifier)
    stricter.set_thresholds = torch.tensor(thresholds)
    export_onnx(stricter, tmp_path / "model.onnx")
    answers = OnnxClassifier(tmp_path / "model.onnx")(samples.pixels)
    expected = answers.probabilities >= torch.tensor(thresholds)
    expected[torch.arange(len(expected)), answers.probabilities.argmax(dim=1)] = True
    assert torch.equal(answers.prediction_set, expected)
    assert 0 < expected.float().mean() < 1
    strictest = copy.deepcopy(classifier)
    strictest.set_thresholds = torch.ones(7)
    with torch.inference_mode():
        assert (strictest(samples.pixels).prediction_set.sum(dim=1) == 1).all()
