"""What a request may say: nothing but tickets opens the inner models, no name leads anywhere."""

import hashlib
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from derma_semantics import DermaClient
from derma_semantics.domain.errors import UnsupportedFormat
from derma_semantics.saliency import HttpSaliency

MODEL = "derma_classifier"


@pytest.fixture(scope="module")
def inner(service):
    """Asks one model for what it makes of some inputs."""
    raw = tritonclient.grpc.InferenceServerClient(service.url)
    kinds = {"IMAGE": "BYTES", "PIXELS": "UINT8", "TICKET": "UINT8"}

    def ask(model, **inputs):
        given = []
        for name, array in inputs.items():
            given.append(tritonclient.grpc.InferInput(name, array.shape, kinds[name]))
            given[-1].set_data_from_numpy(array)
        return raw.infer(model, given, client_timeout=60)

    yield ask
    raw.close()


def encoded(*images):
    return np.array([[image] for image in images], object)


def test_no_inner_model_answers_without_the_audit_log(inner, audit_log, jpeg):
    """Pixels are answered with the ticket of their image alone, and then with a line that names it."""
    begin = len(audit_log.read_text().splitlines())
    made = inner("derma_preprocess", IMAGE=encoded(jpeg(0), jpeg(1)))
    pixels, tickets = made.as_numpy("PIXELS"), made.as_numpy("TICKET")
    invented = np.random.default_rng(0).integers(0, 256, tickets.shape, np.uint8)
    claimed = tickets.copy()
    claimed[:, :32] = invented[:, :32]  # another image's digest, under a true signature
    refused = [
        {"PIXELS": pixels},
        {"PIXELS": pixels[:1]},
        {"PIXELS": pixels, "TICKET": np.zeros_like(tickets)},
        {"PIXELS": pixels, "TICKET": invented},
        {"PIXELS": pixels, "TICKET": claimed},
        {"PIXELS": pixels, "TICKET": tickets[::-1].copy()},
        {"PIXELS": pixels, "TICKET": np.stack([tickets[0], invented[1]])},
        {"PIXELS": pixels[:1] ^ 1, "TICKET": tickets[:1]},
    ]
    reason = "keeps an audit log: ask derma_classifier"
    for given in refused:
        with pytest.raises(InferenceServerException, match=reason) as caught:
            inner("derma_biomedclip", **given)
        assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    for model in ("derma_canary", "derma_biomedclip_candidate"):
        with pytest.raises(InferenceServerException, match="unknown model"):
            inner(model, PIXELS=pixels)
    assert len(audit_log.read_text().splitlines()) == begin
    answer = inner("derma_biomedclip", PIXELS=pixels, TICKET=tickets)
    lines = [json.loads(line) for line in audit_log.read_text().splitlines()[begin:]]
    assert [line["image_sha256"] for line in lines] == [
        hashlib.sha256(jpeg(number)).hexdigest() for number in range(2)
    ]
    given = [list(line["probabilities"].values()) for line in lines]
    assert np.array_equal(np.array(given, np.float32), answer.as_numpy("PROBABILITIES"))


def test_refused_pixels_harm_no_other_of_their_batch(service, inner, audit_log, jpeg):
    """Those with a ticket are answered beside them."""
    pixels = inner("derma_preprocess", IMAGE=encoded(jpeg(0))).as_numpy("PIXELS")
    begin = len(audit_log.read_text().splitlines())

    def intrude(_):
        with pytest.raises(InferenceServerException, match="keeps an audit log"):
            inner("derma_biomedclip", PIXELS=pixels)

    with ThreadPoolExecutor(8) as pool, DermaClient(service.url) as client:
        refused = pool.map(intrude, range(64))
        answers = client.classify([jpeg(number) for number in range(32)])
        assert len(list(refused)) == 64
    lines = [json.loads(line) for line in audit_log.read_text().splitlines()[begin:]]
    assert sorted(line["request_id"] for line in lines) == sorted(answer.request_id for answer in answers)


def by_http(ask_http, service, image, members, header=""):
    """Asks with an image and further members of the question's JSON, of any bytes."""
    tensor = len(image).to_bytes(4, "little") + image
    given = b'{"name":"IMAGE","shape":[1,1],"datatype":"BYTES","parameters":{"binary_data_size":%d}}'
    question = b'{%s,"inputs":[%s]}' % (members, given % len(tensor))
    headers = {"Inference-Header-Content-Length": str(len(question)), "x-request-id": header}
    url = f"{service.http}/v2/models/{MODEL}/infer"
    return ask_http("POST", url, body=question + tensor, headers=headers)


UNREADABLE = {
    "id": (b'"id":"\xff\xfe"', ""),
    "parameter": (b'"id":"a","parameters":{"note":"\xff\xfe"}', ""),
    "name of a parameter": (b'"id":"a","parameters":{"\xff":"note"}', ""),
    "header": (b'"id":"a"', "\xff\xfe"),
}


@pytest.mark.parametrize("unreadable", UNREADABLE.values(), ids=UNREADABLE)
def test_a_question_that_cannot_be_named_harms_no_other_of_its_batch(
    service, ask_http, audit_log, jpeg, unreadable
):
    """It alone is refused, as what it says of itself is no text."""
    begin = len(audit_log.read_text().splitlines())
    refused, answered = [], []
    with DermaClient(service.url, retry_for=0) as client, ThreadPoolExecutor(16) as pool:
        for number in range(32):
            refused.append(pool.submit(by_http, ask_http, service, jpeg(0), *unreadable))
            answered.append(pool.submit(client.classify, jpeg(number)))
    answers, told = [one.result() for one in answered], [one.result() for one in refused]
    assert {(one.status, "must be UTF-8" in one.data.decode()) for one in told} == {(400, True)}
    lines = [json.loads(line) for line in audit_log.read_text().splitlines()[begin:]]
    assert sorted(line["request_id"] for line in lines) == sorted(answer.request_id for answer in answers)


def test_the_secret_of_the_tickets_stays_with_triton(service, ask_http):
    """In the environment of its processes, which other accounts cannot read; in no file, no answer."""
    (server,) = [pid for pid, command in service.processes() if "bin/tritonserver " in command]
    environment = Path(f"/proc/{server}/environ").read_bytes()
    secret = environment.partition(b"DERMA_AUDIT_SECRET=")[2].partition(b"\0")[0]
    assert len(secret) == 64
    assert Path(f"/proc/{server}/environ").stat().st_mode & 0o077 == 0
    assert secret not in Path(f"/proc/{service.launcher.pid}/environ").read_bytes()
    assert not [pid for pid in service.sidecars() if secret in Path(f"/proc/{pid}/environ").read_bytes()]
    assert not [path for path in service.state.rglob("*") if path.is_file() and secret in path.read_bytes()]
    for model in ("derma_classifier", "derma_preprocess", "derma_biomedclip"):
        for path in ("config", ""):
            told = ask_http("GET", f"{service.http}/v2/models/{model}/{path}".rstrip("/"))
            assert (told.status, secret in told.data) == (200, False)


@pytest.fixture
def canary():
    """An address to which nothing may connect."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        one.setblocking(False)
        yield f"http://127.0.0.1:{one.getsockname()[1]}"
        with pytest.raises(BlockingIOError):
            one.accept()


def references(url):
    svg = f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{url}/a.png"/></svg>'
    return [url, f"{url}/a.png", "file:///etc/passwd", "/etc/passwd", "../../../etc/passwd", svg]


def test_addresses_and_paths_are_not_followed(service, ask_http, canary):
    """Triton and the sidecar take bytes: what names a place is no image."""
    saliency = HttpSaliency(service.saliency)
    with DermaClient(service.url) as client:
        for text in references(canary):
            for ask in (client.classify, lambda data: saliency.explain(data, prompt="a mole")):
                with pytest.raises(UnsupportedFormat):
                    ask(text.encode())
    form = {"image": canary, "prompt": "a mole"}
    answer = ask_http("POST", f"{service.saliency}/v1/saliency", fields=form)
    assert (answer.status, "no file named image" in answer.json()["message"]) == (422, True)
    saliency.close()


def test_names_of_files_lead_nowhere(service, ask_http, jpeg, tmp_path):
    name = f"../../../../../../..{tmp_path}/planted.jpg"
    form = {"image": (name, jpeg(0)), "condition": "MEL", "format": "json"}
    answer = ask_http("POST", f"{service.saliency}/v1/saliency", fields=form)
    assert (answer.status, "planted" in answer.data.decode()) == (200, False)
    assert list(tmp_path.iterdir()) == []
    for path in ("..%2f..%2f..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "docs/../../etc/passwd"):
        for base in (service.saliency, f"{service.http}/v2/models"):
            assert ask_http("GET", f"{base}/{path}").status in (400, 404)


def test_html_in_a_prompt_stays_text(service, ask_http, jpeg):
    """The sidecar answers JSON, PNG or npy, never HTML."""
    script = "<script>alert(1)</script>"
    for kind, expected in (("json", "application/json"), ("png", "image/png"), ("npy", "application/x-npy")):
        form = {"image": ("image", jpeg(0)), "prompt": script, "format": kind}
        answer = ask_http("POST", f"{service.saliency}/v1/saliency", fields=form)
        assert (answer.status, answer.headers["content-type"]) == (200, expected)
        assert (script.encode() in answer.data) == (kind == "json")
    refused = {"image": ("image", jpeg(0)), "prompt": "a", "format": script}
    answer = ask_http("POST", f"{service.saliency}/v1/saliency", fields=refused)
    assert (answer.status, answer.headers["content-type"]) == (422, "application/json")
