"""Spans and trace headers with OpenTelemetry's SDK; nothing without it."""

import asyncio
import subprocess
import sys

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from derma_semantics import AsyncDermaClient, DermaClient
from derma_semantics.domain.errors import CorruptImage

METHOD = "inference.GRPCInferenceService/ModelInfer"
DIGEST = "ab" * 32
FULL = (grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")


@pytest.fixture(scope="module")
def exporter():
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    yield exporter
    exporter.shutdown()  # it would keep the spans of all later tests


@pytest.fixture
def spans(exporter):
    """The spans that ended since the test began, by name."""
    exporter.clear()

    def named(name):
        return [span for span in exporter.get_finished_spans() if span.name == name]

    return named


def parent_of(metadata):
    version, trace_id, span_id, flags = metadata["traceparent"].split("-")
    assert (version, int(flags, 16) & 1) == ("00", 1)  # sampled
    return int(trace_id, 16), int(span_id, 16)


def test_a_span_a_classify_and_one_an_attempt(kserve, spans):
    service, port, _ = kserve()
    service.refusals = [FULL]
    with DermaClient(f"127.0.0.1:{port}") as client, trace.get_tracer("app").start_as_current_span("app"):
        client.classify(b"x")
    (app,), (whole,), (refused, answered) = spans("app"), spans("derma.classify"), spans(METHOD)
    assert whole.parent.span_id == app.context.span_id
    request_id = {"derma.request.id": whole.attributes["derma.request.id"]}
    assert dict(whole.attributes) == {"derma.bundle.digest": DIGEST, **request_id}
    for attempt, metadata in zip((refused, answered), service.metadata, strict=True):
        assert attempt.kind is trace.SpanKind.CLIENT
        assert attempt.parent.span_id == whole.context.span_id
        assert parent_of(metadata) == (attempt.context.trace_id, attempt.context.span_id)
    about = {
        "rpc.system.name": "grpc",
        "rpc.method": METHOD,
        "server.address": f"127.0.0.1:{port}",
        **request_id,
    }
    assert dict(answered.attributes) == {**about, "rpc.response.status_code": "OK"}
    failure = {"rpc.response.status_code": "UNAVAILABLE", "error.type": "Overloaded"}
    assert dict(refused.attributes) == about | failure
    assert refused.status.status_code is trace.StatusCode.ERROR


def test_many_images_have_the_caller_s_span_as_parent(kserve, spans):
    _, port, _ = kserve()
    with DermaClient(f"127.0.0.1:{port}") as client, trace.get_tracer("app").start_as_current_span("app"):
        client.classify([b"x"] * 20)
    assert {span.parent.span_id for span in spans("derma.classify")} == {spans("app")[0].context.span_id}
    assert len(spans("derma.classify")) == 20


def test_asyncio_too(kserve, spans):
    service, port, _ = kserve()

    async def ask():
        async with AsyncDermaClient(f"127.0.0.1:{port}") as client:
            await client.classify([b"x"] * 3)

    asyncio.run(ask())
    contexts = {(span.context.trace_id, span.context.span_id) for span in spans(METHOD)}
    assert {parent_of(metadata) for metadata in service.metadata} == contexts
    assert len(contexts) == len(spans("derma.classify")) == 3


def test_errors_are_marked_and_nothing_of_the_patient_is_told(kserve, spans, tmp_path, exporter):
    service, port, _ = kserve()
    service.refusals = [(grpc.StatusCode.INVALID_ARGUMENT, "CorruptImage: the JPEG is truncated")]
    path = tmp_path / "Erika-Mustermann.jpg"
    path.write_bytes(b"x")
    with DermaClient(f"127.0.0.1:{port}") as client:
        with pytest.raises(CorruptImage):
            client.classify(path)
        with pytest.raises(FileNotFoundError):
            client.classify(path.with_suffix(".png"))
        client.classify(path)
    kinds = [span.attributes.get("error.type") for span in spans("derma.classify")]
    assert kinds == ["CorruptImage", "FileNotFoundError", None]
    told = " ".join(span.to_json() for span in exporter.get_finished_spans())
    for word in ("Mustermann", "truncated", "BCC", "basal", "URGENT", "triage"):
        assert word not in told


WITHOUT = """
import sys
sys.modules["opentelemetry"] = None
from derma_semantics import DermaClient
with DermaClient("127.0.0.1:{port}") as client:
    print(client.classify(b"x").top.condition.code)
"""


def test_without_opentelemetry(kserve):
    service, port, _ = kserve()
    code = WITHOUT.format(port=port)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "BCC"), done.stderr
    assert "traceparent" not in service.metadata[0]
