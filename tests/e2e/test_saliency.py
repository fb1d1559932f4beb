"""The sidecar beside a real Triton: the same weights, the same answers."""

import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from derma_semantics.domain import errors
from derma_semantics.domain.conditions import CODES
from derma_semantics.saliency import HttpSaliency

TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def sidecar(service, mini, until, tmp_path_factory):
    """``derma-saliency serve`` as a process; ended by SIGTERM."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    log = tmp_path_factory.mktemp("sidecar") / "log"
    command = [sys.executable, "-m", "derma_saliency", "serve", str(mini)]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--triton", service.url, "--port", str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    url = f"http://127.0.0.1:{port}"
    until(lambda: process.poll() is not None or _healthy(url), 60, "the sidecar answers")
    if process.poll() is not None:
        pytest.fail(log.read_text())
    yield url, log
    process.terminate()
    assert process.wait(40) == 0, log.read_text()


def _healthy(url):
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=2) as answer:
            return answer.status == 200
    except urllib.error.URLError:
        return False


@pytest.fixture
def saliency(sidecar):
    connection = HttpSaliency(sidecar[0])
    yield connection
    connection.close()


def assert_same(explanation, diagnosis):
    served = {f.condition.code: f.probability for f in diagnosis.differential}
    assert max(abs(served[c] - explanation.probabilities[c]) for c in CODES) <= TOLERANCE
    assert explanation.bundle_digest == diagnosis.bundle.digest


def test_probabilities_are_tritons(saliency, client, jpeg):
    for seed in range(12):
        assert_same(saliency.explain(jpeg(seed), condition="MEL"), client.classify(jpeg(seed)))


def test_probabilities_of_real_photographs(saliency, client, isic2018):
    for path in sorted((isic2018 / "ISIC2018_Task3_Training_Input").glob("*.jpg"))[::600]:
        data = path.read_bytes()
        assert_same(saliency.explain(data, prompt="signs of melanoma"), client.classify(data))


def test_probabilities_of_full_size_photographs(saliency, client, fullsize):
    for path in sorted((fullsize / "images").glob("*.jpg"))[:4]:
        data = path.read_bytes()
        explanation = saliency.explain(data, condition="NV")
        assert_same(explanation, client.classify(data))
        assert explanation.map.shape == explanation.size[::-1]


def test_ready_and_the_same_as_triton(saliency, client):
    report = saliency.ready()
    assert report["ready"] is True
    assert report["triton"] == "same"
    assert report["bundle_digest"] == report["triton_digest"] == client.bundle().digest


def test_both_refuse_a_bad_image_alike(saliency, client, jpeg):
    for data in (b"text", jpeg(0)[:3000]):
        kinds = []
        for ask in (lambda d: saliency.explain(d, condition="MEL"), client.classify):
            with pytest.raises(errors.InvalidImage) as caught:
                ask(data)
            kinds.append((type(caught.value), str(caught.value)))
        assert kinds[0] == kinds[1]


def test_nothing_of_a_prompt_or_a_name_is_logged(sidecar, saliency, jpeg):
    saliency.explain(jpeg(0), prompt="Mrs Miller's mole")
    assert "Miller" not in sidecar[1].read_text()
    assert "/v1/saliency ok" in sidecar[1].read_text()
