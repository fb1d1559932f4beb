"""Graphs in other precisions: what suffers stays in fp32, and the gate has the last word."""

import copy
import json
import math

import click.testing
import numpy as np
import onnx
import pytest
import torch

from derma_export import fusion, gate
from derma_export.cli import main
from derma_export.exact import ClassTokenBlock, class_token_only, whole_pixels
from derma_export.exporter import Task, export_bundle
from derma_export.graph import OnnxClassifier, export_onnx
from derma_export.precision import attempts
from derma_export.samples import labelled_samples, synthetic_samples
from derma_export.sensitivity import by_noise, layers
from derma_serving.model_config import parameters, read
from derma_serving.runtime.engine import Engine, EngineUnavailable, open_session
from derma_serving.runtime.precisions import Limits
from derma_training.bundle import Bundle
from derma_training.network.classifier import Classifier


@pytest.fixture(scope="module")
def classifier(mini):
    return Classifier.from_bundle(Bundle.open(mini))


@pytest.fixture(scope="module")
def samples():
    return synthetic_samples(8)


@pytest.fixture(scope="module")
def graph(classifier, tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    export_onnx(classifier, path)
    return path


def scaled(classifier, block, factor):
    """The same function, with activations between fc1 and fc2 of a block that are ``factor`` larger.

    The activation of the copy is linear, so that the factor can be taken out again by fc2.
    """
    other = copy.deepcopy(classifier)
    mlp = other.visual.trunk.blocks[block].mlp
    mlp.act = torch.nn.ReLU()
    with torch.no_grad():
        mlp.fc1.weight *= factor
        mlp.fc1.bias *= factor
        mlp.fc2.weight /= factor
    return other


def test_class_token_alone_is_the_same_answer(classifier, samples):
    trunk = classifier.visual.trunk
    with torch.inference_mode():
        whole = classifier(samples.pixels)
        with class_token_only(trunk):
            assert isinstance(trunk.blocks[-1], ClassTokenBlock)
            short = classifier(samples.pixels)
    assert not isinstance(trunk.blocks[-1], ClassTokenBlock)
    assert (whole.embedding - short.embedding).abs().max() < 1e-6
    assert (whole.probabilities - short.probabilities).abs().max() < 1e-6


def test_class_token_alone_is_less_work(classifier, samples):
    from torch.utils.flop_counter import FlopCounterMode

    def work():
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            classifier(samples.pixels[:1])
        return counter.get_total_flops()

    whole = work()
    with class_token_only(classifier.visual.trunk):
        assert 0.92 < work() / whole < 0.96


def test_whole_pixels_are_the_same_answer(classifier, samples):
    """And bf16 holds each of the 256 values that the patches' layer gets."""
    layer, pixels = classifier.visual.trunk.patch_embed.proj, []
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    with torch.inference_mode():
        normalised = classifier(samples.pixels)
        with whole_pixels(classifier):
            watch = layer.register_forward_pre_hook(lambda _, inputs: pixels.append(inputs[0]))
            whole = classifier(samples.pixels)
            watch.remove()
    assert (normalised.embedding - whole.embedding).abs().max() < 1e-6
    assert len(pixels[0].unique()) > 200
    assert torch.equal(pixels[0].bfloat16().float(), pixels[0])
    after = classifier.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())


@pytest.mark.parametrize(
    "layer",
    [
        torch.nn.Conv2d(3, 192, 16, 16, padding=1),  # its border of zeros would be no grey any more
        torch.nn.Conv2d(3, 192, 16, 16, bias=False),
        torch.nn.Conv2d(64, 192, 1),  # of a hybrid tower, on features
        torch.nn.Identity(),
    ],
)
def test_whole_pixels_need_a_layer_that_takes_them(classifier, layer):
    other = copy.deepcopy(classifier)
    normalise, other.visual.trunk.patch_embed.proj = other.normalise, layer
    with whole_pixels(other):
        assert other.normalise is normalise
    assert other.visual.trunk.patch_embed.proj is layer


def test_fused_attention_is_the_same_answer(classifier, samples, tmp_path):
    attention = classifier.visual.trunk.blocks[0].attn
    export_onnx(classifier, tmp_path / "fused.onnx", fuse_attention=True)
    assert classifier.visual.trunk.blocks[0].attn is attention
    with torch.inference_mode():
        reference = classifier(samples.pixels)
    answers = OnnxClassifier(tmp_path / "fused.onnx", Engine("cpu"))(samples.pixels)
    assert gate.compare(reference, answers, gate.LIMITS["fp32"]).failures == []
    assert fusion.count(onnx.load(str(tmp_path / "fused.onnx"))) == {
        "Attention": 12,
        "LayerNormalization": 25,
        "Gelu": 12,
    }


def test_a_tower_that_reads_all_tokens_stays_as_it_is(classifier):
    trunk = copy.deepcopy(classifier.visual.trunk)
    trunk.global_pool = "avg"
    with class_token_only(trunk):
        assert not isinstance(trunk.blocks[-1], ClassTokenBlock)


def test_a_provider_that_is_not_there_is_an_error(graph):
    with pytest.raises(EngineUnavailable, match="has no TensorrtExecutionProvider"):
        open_session(graph, Engine("tensorrt"))


@pytest.mark.parametrize("batch", [3, 8])
def test_bf16_does_not_depend_on_the_batch(graph, samples, batch):
    run = OnnxClassifier(graph, Engine("openvino", "bf16"))
    alone = gate.in_batches(run, samples.pixels, 1).probabilities
    together = gate.in_batches(run, samples.pixels, batch).probabilities
    assert (alone - together).abs().max() <= gate.LIMITS["bf16"].companions


def test_layers_are_named_by_their_place(graph):
    nodes = layers(onnx.load(str(graph)))
    assert len(nodes) == 4 * 12 + 2  # the last block has three for q, k, v
    assert "blocks.3.mlp.fc2" in {layer.place for layer in by_noise(graph, synthetic_samples(1).pixels)}


def test_int8_ranks_the_layer_with_an_outlier_first(classifier, samples, tmp_path):
    """One channel of fc2's input a hundred times larger: it takes the steps of all others."""
    other = copy.deepcopy(classifier)
    mlp = other.visual.trunk.blocks[5].mlp
    with torch.no_grad():
        mlp.fc1.bias[7] = 1000.0
        mlp.fc2.weight[:, 7] = 0.0  # so that the answer stays the same
    export_onnx(other, tmp_path / "outlier.onnx")
    assert by_noise(tmp_path / "outlier.onnx", samples.pixels)[0].place == "blocks.5.mlp.fc2"


def test_fp16_keeps_what_would_overflow(classifier, samples, tmp_path):
    """Processors compute fp16 in fp32 and see no overflow, so the gate cannot be asked."""
    other = scaled(classifier, 4, 2e4)
    assert other.visual.trunk.blocks[4].mlp.fc1.weight.abs().max() < 1e4
    with torch.inference_mode():
        reference = other(samples.pixels)
    export_onnx(other, tmp_path / "large.onnx")
    attempt = next(attempts(tmp_path / "large.onnx", "fp16", samples.pixels, tmp_path))
    assert [layer.place for layer in attempt.kept] == ["blocks.4.mlp"]
    assert attempt.kept[0].value > 65_504
    answers = OnnxClassifier(attempt.graph, Engine("cpu", "fp16"))(samples.pixels)
    assert gate.compare(reference, answers, gate.LIMITS["fp16"]).failures == []


def test_fp16_without_large_values_keeps_nothing(graph, samples, tmp_path):
    assert next(attempts(graph, "fp16", samples.pixels, tmp_path)).kept == ()


def test_export_retries_and_says_what_it_kept(mini, samples, tmp_path):
    """The gate rejects twice; the third graph is the one that is installed."""
    told = []

    def rejecting(path, engine):
        run = OnnxClassifier(path, engine)
        if path.name in ("fp16-0.onnx", "fp16-2.onnx"):
            return lambda pixels: run(pixels.flip(-1))
        return run

    target = tmp_path / "models"
    task = Task(samples, "fp16")
    assert export_bundle(Bundle.open(mini), target, task, say=told.append, run_graph=rejecting) == 1
    manifest = json.loads((target / "derma_biomedclip" / "1" / "manifest.json").read_text())
    assert len(manifest["kept"]) == 4
    assert manifest["precision"] == "fp16"
    assert manifest["fused"] == {"Attention": 12, "LayerNormalization": 25, "Gelu": 12}
    assert manifest["gate"]["probability"] <= gate.LIMITS["fp16"].probability
    assert sum(line.startswith("kept") for line in told) == 2
    assert all(place in told[-2] for place in manifest["kept"])
    for config in (target / "derma_biomedclip").rglob("*.pbtxt"):
        assert parameters(read(config))["precision"] == "fp16"


def test_a_precision_that_never_passes_writes_nothing(mini, samples, tmp_path):
    def wrong(path, engine):
        run = OnnxClassifier(path, engine)
        return lambda pixels: run(pixels.flip(-1))

    with pytest.raises(gate.GateFailed, match=r"worst images: .*synthetic"):
        export_bundle(
            Bundle.open(mini), tmp_path / "m", Task(samples, "bf16"), say=lambda _: None, run_graph=wrong
        )
    assert not (tmp_path / "m").exists()


def test_labels_add_two_limits(classifier, samples):
    """A candidate that makes a melanoma routine fails, unless calibration left a margin for it."""
    with torch.inference_mode():
        answers = classifier(samples.pixels)
    found = answers._replace(triage=torch.full_like(answers.triage, 2), risk=answers.risk.clone())
    labels = answers.probabilities.argmax(dim=1)
    labels[:2] = torch.tensor([gate.MELANOMA, gate.MELANOMA + 1])
    found.risk[:] = 0.3

    def missing(fall):
        """The melanoma and a nevus, routine because their odds fell by that much."""
        missed = found._replace(triage=found.triage.clone(), risk=found.risk.clone())
        odds = 0.3 / 0.7 / fall
        missed.triage[:2], missed.risk[:2] = 0, odds / (1 + odds)
        return missed

    limits = Limits(probability=1, cosine=1, companions=1, top1=1, triage=1, prediction_set=1, quality=1)
    assert gate.compare(found, found, limits, labels=labels).failures == []
    report = gate.compare(found, missing(1.19), limits, labels=labels, margin=1.2)
    assert report.failures == []
    assert report.melanoma[0] > report.melanoma[1]
    for fall, margin in ((1.21, 1.2), (1.01, 1.0), (math.nan, 1.2)):
        report = gate.compare(found, missing(fall), limits, labels=labels, margin=margin)
        assert (report.lost, report.failures[-1]) == ((0,), "melanomas became routine: 1, limit 0")
    worse = found._replace(probabilities=found.probabilities.roll(1, dims=1))
    failures = gate.compare(found, worse, limits, labels=labels).failures
    assert [failure.split(" by ")[0] for failure in failures] == ["balanced accuracy fell"]


def test_a_batch_s_companions_are_noticed(classifier, samples):
    """As dynamic int8 does it: one scale for the whole batch."""

    def run(pixels):
        with torch.inference_mode():
            answers = classifier(pixels)
        return answers._replace(probabilities=answers.probabilities * (1 + pixels.float().mean() / 1e3))

    effect = gate.companion_effect(run, samples.pixels)
    assert effect > 1e-3
    with torch.inference_mode():
        answers = classifier(samples.pixels)
    report = gate.compare(answers, answers, gate.LIMITS["fp32"], companions=effect)
    assert report.failures[0].startswith("companions in the batch change probabilities")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a BUNDLE"),
        (["--architecture", "biomedclip"], "needs --random-weights"),
    ],
)
def test_usage(arguments, message):
    result = click.testing.CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_int8_without_training_images_is_refused(mini, tmp_path):
    arguments = [str(mini), "--precision", "int8", "--repository", str(tmp_path)]
    result = click.testing.CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "int8 takes its ranges from training images" in result.output
    assert not list(tmp_path.iterdir())


def test_int8_on_real_images(mini, isic2018, tmp_path):
    """The whole way with labels: gated on validation and calibration, static, the same in every batch."""
    arguments = [str(mini), "--precision", "int8", "--data", str(isic2018), "--repository", str(tmp_path)]
    result = click.testing.CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    manifest = json.loads((tmp_path / "derma_biomedclip" / "1" / "manifest.json").read_text())
    before, after = manifest["gate"]["balanced_accuracy"]
    assert before - after <= 0.005
    assert 0.6 < after < 1
    operations = {
        node.op_type for node in onnx.load(str(tmp_path / "derma_biomedclip" / "1" / "model.onnx")).graph.node
    }
    assert "QuantizeLinear" in operations
    assert "DynamicQuantizeLinear" not in operations


def test_labelled_samples_leave_the_test_part_alone(mini, isic2018):
    from derma_training.bundle.split import bundle_parts
    from derma_training.data import read

    parts = bundle_parts(Bundle.open(mini), read(isic2018))
    samples = labelled_samples(parts)
    assert not set(samples.names) & {example.name for example in parts.test}
    assert len(samples.labels) == len(samples.names) == len(parts.validation) + len(parts.calibration)
    assert np.asarray(samples.pixels).shape[1:] == (224, 224, 3)
