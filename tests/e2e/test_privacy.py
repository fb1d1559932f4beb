"""What is written down: nothing that was sent, but for the audit log's line on each answer."""

import hashlib
import json
import os
import signal
import subprocess
import sys

import pytest
import urllib3
from PIL import Image, PngImagePlugin

from derma_semantics.domain.contract import CLASSIFIER

CANARY = "Kanarienvogel7"
KEYS = ["time", "request_id", "image_sha256", "bundle_digest", "probabilities", "triage", "caller"]
INFER = f"v2/models/{CLASSIFIER.name}/infer"

# As a program of the clinic: with tracing, its log as JSON, every file and prompt; it keeps errors to itself.
PROGRAM = """
import contextlib, json, sys
from pathlib import Path
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from derma_semantics import DermaClient
from derma_semantics.domain.errors import DermaError
from derma_semantics.wire.logs import configure

configure("clinic")
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
url, saliency, folder, canary = sys.argv[1:]
with DermaClient(url, saliency_url=saliency) as client:
    for path in sorted(Path(folder).iterdir()):
        with contextlib.suppress(DermaError):
            client.classify(path)
        with contextlib.suppress(DermaError):
            client.explain(path, f"signs of {canary}")
"""


@pytest.fixture(scope="module")
def folder(picture, mini, tmp_path_factory):
    """Good and bad files whose name and content hold the canary."""
    folder = tmp_path_factory.mktemp("images")
    exif = Image.Exif()
    exif[0x010E] = exif[0x9286] = f"{CANARY} of Erika"
    picture(0).save(folder / f"{CANARY}-0.jpg", exif=exif)
    note = PngImagePlugin.PngInfo()
    note.add_text("Comment", CANARY)
    picture(1).save(folder / f"{CANARY}-1.png", pnginfo=note)
    whole = (folder / f"{CANARY}-0.jpg").read_bytes()
    (folder / f"{CANARY}-2.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / f"{CANARY}-3.jpg").write_text(CANARY * 100)
    (folder / f"{CANARY}-4.dcm").write_bytes(_dicom(picture(2)))
    (folder / f"{CANARY}-5.dcm").write_bytes(_dicom(picture(3))[:2000])
    return folder


def _dicom(image):
    from io import BytesIO

    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        SecondaryCaptureImageStorage,
        generate_uid(),
    )
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.PatientName, data.PatientID, data.PatientComments = f"{CANARY}^Erika", CANARY, CANARY
    data.Rows, data.Columns = image.height, image.width
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.PixelData = image.tobytes()
    buffer = BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def post(url, body, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    kind = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "0"}
    with urllib3.PoolManager(retries=False) as pool:
        return pool.request("POST", url, body=body, headers=kind | headers, timeout=60)


def audited(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def service(start_service, mini, tmp_path, monkeypatch):
    monkeypatch.setenv("DERMA_LOG_FORMAT", "json")
    return start_service(f"--bundle={mini}", f"--audit-log={tmp_path / 'audit.jsonl'}")


def _program(service, folder):
    arguments = [service.url, service.saliency, str(folder), CANARY]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=200, check=True
    )
    return done.stdout, done.stderr


def _others(service, good, tmp_path):
    """All that the client would not send; returns how many were answered."""
    text = f"{CANARY} of Erika"
    answers = [
        post(f"{service.http}/{INFER}", good, derma_caller="alice", X_Request_Id="http-1"),
        post(f"{service.http}/{INFER}", good, derma_caller=text, X_Request_Id=text),
        post(f"{service.http}/{INFER}", CANARY.encode()),
        post(f"{service.http}/v2/models/{CANARY}/infer", good),
    ]
    body = {"id": text, "parameters": {"note": CANARY}, "inputs": []}
    tensor = {"name": CANARY, "shape": [1, 1], "datatype": "BYTES", "data": [CANARY]}
    for name in (CANARY, "IMAGE"):
        whole = json.dumps({**body, "inputs": [{**tensor, "name": name}]})
        answers.append(
            post(f"{service.http}/{INFER}", whole, Content_Type="application/json",
                 Inference_Header_Content_Length=str(len(whole)))
        )  # fmt: skip
    with urllib3.PoolManager(retries=False) as pool:
        for more in ({"prompt": text}, {"condition": CANARY}, {"prompt": "a", "method": CANARY}):
            form = {"image": (f"{CANARY}.jpg", good), **more}
            pool.request("POST", f"{service.saliency}/v1/saliency", fields=form, timeout=60)
        pool.request("GET", f"{service.saliency}/{CANARY}?prompt={CANARY}", timeout=60)
        pool.request("GET", f"{service.http}/{CANARY}?prompt={CANARY}", timeout=60)
    command = [sys.executable, "-m", "derma_semantics", "bulk", str(tmp_path / "bulk"), "--json",
               "--out", str(tmp_path / "out.jsonl")]  # fmt: skip
    (tmp_path / "bulk").mkdir()
    (tmp_path / "bulk" / f"{CANARY}.jpg").write_bytes(good)
    environment = {**os.environ, "DERMA_URL": service.url}
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=120)
    return [answer.status for answer in answers].count(200) + 1


def test_nothing_that_was_sent_is_written_down(service, folder, tmp_path):
    good = (folder / f"{CANARY}-0.jpg").read_bytes()
    spans, client_log = _program(service, folder)
    answered = 3 + _others(service, good, tmp_path)
    with urllib3.PoolManager(retries=False) as pool:
        metrics = [
            pool.request("GET", f"{url}/metrics", timeout=30).data
            for url in (f"http://127.0.0.1:{service.ports['metrics']}", service.saliency)
        ]
    service.launcher.send_signal(signal.SIGTERM)
    launcher, _ = service.launcher.communicate(timeout=60)
    files = [path for path in service.state.rglob("*") if path.is_file()] + [tmp_path / "audit.jsonl"]
    written = {str(path.name): path.read_bytes() for path in files}
    written |= {"spans": spans.encode(), "client": client_log.encode(), "launcher": launcher.encode()}
    written |= {"Triton's metrics": metrics[0], "sidecar's metrics": metrics[1]}
    expected = ("triton.log", "saliency.log", "spans", "client", "launcher", "Triton's metrics")
    assert [name for name in expected if not written[name]] == []
    found = [name for name, content in written.items() if CANARY.lower().encode() in content.lower()]
    assert found == []

    lines = audited(tmp_path / "audit.jsonl")
    assert len(lines) == answered
    assert all(list(line) == KEYS for line in lines)
    assert hashlib.sha256(good).hexdigest() == lines[0]["image_sha256"]
    by_http = next(line for line in lines if line["request_id"] == "http-1")
    assert by_http["caller"] == "alice" and {line["caller"] for line in lines} == {"alice", None}
    # The client's log, its spans, the sidecar's log and the audit log name a question alike.
    said = [json.loads(line) for line in client_log.splitlines()]
    assert all({"time", "level", "part", "event", "request_id"} == set(line) for line in said)
    assert lines[0]["request_id"] == said[0]["request_id"] and said[0]["request_id"] in spans
    sidecar = [json.loads(line) for line in written["saliency.log"].decode().splitlines()]
    assert {line["part"] for line in sidecar} == {"saliency"}
    assert said[1]["request_id"] in {line.get("request_id") for line in sidecar}
