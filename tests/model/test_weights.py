"""Before a native backend loads weights, the launcher looks whether they are what was exported."""

import threading

import pytest

from derma_semantics.domain.contract import (
    CANARY,
    CANDIDATE,
    CLASSIFIER,
    FACTS,
    NETWORK,
    PARAMETERS,
    PREPROCESS,
)
from derma_semantics.domain.errors import ServiceUnavailable
from derma_semantics.domain.integrity import sha256
from derma_serving import repository, weights
from derma_serving.model_config import parameters, read, set_parameters, write
from derma_serving.server import TritonServer
from derma_serving.settings import Settings

REFUSED = (
    r"altered weights do not serve: .*{}/model\.onnx is not the graph that was exported: sha256 \w{{12}}"
)


@pytest.fixture
def models(tmp_path):
    """A repository with two versions of a graph that nothing loads."""
    folder, graph = tmp_path / "models", tmp_path / "graph.onnx"
    graph.write_bytes(bytes(range(256)))
    told = dict.fromkeys((*PARAMETERS, *FACTS), "a")
    for model in (NETWORK, NETWORK, CANDIDATE):
        repository.install(folder, graph, {**told, "graph_digest": sha256(graph), "embedding_size": 8}, model)
    return folder


def alter(version):
    path = version / "model.onnx"
    path.write_bytes(path.read_bytes()[::-1])


def test_whole_weights_serve(models):
    for model in (NETWORK, CANDIDATE, CLASSIFIER, PREPROCESS, CANARY):
        weights.check(models, model=model.name)


def test_the_version_that_would_serve_is_looked_at(models):
    alter(models / NETWORK.name / "1")
    weights.check(models)
    config = models / NETWORK.name / "config.pbtxt"
    before = config.read_text()
    config.write_text(before + "\nversion_policy: { all { } }\n")
    with pytest.raises(ServiceUnavailable, match=REFUSED.format(1)):
        weights.check(models)
    config.write_text(before)
    alter(models / NETWORK.name / "2")
    for model in (NETWORK, CLASSIFIER, PREPROCESS):  # with each of these Triton may load the network anew
        with pytest.raises(ServiceUnavailable, match=REFUSED.format(2)):
            weights.check(models, model=model.name)
    weights.check(models, model=CANDIDATE.name)


def test_a_candidate_is_looked_at_by_itself(models):
    alter(models / CANDIDATE.name / "3")
    weights.check(models)
    with pytest.raises(ServiceUnavailable, match=REFUSED.format(3)):
        weights.check(models, model=CANDIDATE.name)


def test_the_profile_that_is_served_must_state_the_same(models):
    profile = models / NETWORK.name / "configs" / "cuda.pbtxt"
    config = read(profile)
    assert parameters(config)["bundle_name"] == "a"
    set_parameters(config, {"bundle_name": "b"})
    write(profile, config)
    weights.check(models)
    weights.check(models, "tensorrt")
    with pytest.raises(ServiceUnavailable, match="states bundle_name b, version 2 was exported with a"):
        weights.check(models, "cuda")


def test_without_a_profile_none_is_looked_for(models):
    (models / NETWORK.name / "configs" / "None.pbtxt").write_text("no configuration")
    weights.check(models)


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx"])
def test_what_is_missing_does_not_serve(models, name):
    (models / NETWORK.name / "2" / name).unlink()
    with pytest.raises(ServiceUnavailable, match="altered weights do not serve"):
        weights.check(models)


@pytest.fixture
def native(models, tmp_path):
    """A server whose Triton only says that it was started."""
    triton = tmp_path / "tritonserver"
    for backend in ("python", "onnxruntime"):
        (triton / "backends" / backend).mkdir(parents=True)
    program = triton / "bin" / "tritonserver"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho started\n")
    program.chmod(0o755)
    ports = dict.fromkeys(("http_port", "grpc_port", "metrics_port"), 0)
    server = TritonServer(Settings(repository=models, state=tmp_path / "state", triton=triton, **ports))
    yield server
    server.stop()


def test_a_native_triton_does_not_start_with_altered_weights(native, models):
    alter(models / NETWORK.name / "2")
    with pytest.raises(ServiceUnavailable, match=REFUSED.format(2)):
        native.start(threading.Event())
    assert native.process is None


def test_a_native_triton_starts_with_whole_ones(native):
    native.start(threading.Event())
    assert native.process.wait(30) == 0
    assert native.last_words() == "started"


def test_nothing_starts_once_the_service_ends(native):
    stopping = threading.Event()
    stopping.set()
    native.start(stopping)
    assert native.process is None
