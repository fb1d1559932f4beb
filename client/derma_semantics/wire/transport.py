"""The one place that speaks gRPC, and the one that catches its errors.

    transport = GrpcTransport("127.0.0.1:8001")
    outputs = transport.infer(jpeg_bytes, timeout=10.0)     # {"PROBABILITIES": array, ...}

Protocol: KServe v2 as Triton serves it, with its model-repository extension.
"""

from __future__ import annotations

import asyncio
import re
import struct
import time
from collections.abc import Awaitable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any, Protocol

import grpc  # type: ignore[import-untyped]
import grpc.aio  # type: ignore[import-untyped]
import numpy as np
from google.protobuf.json_format import MessageToDict
from numpy.typing import NDArray

from derma_semantics.domain import errors
from derma_semantics.domain.contract import CLASSIFIER, NETWORK, TICKET, Model
from derma_semantics.wire import tracing
from derma_semantics.wire.admin import GRPC_HEADER, admin_key
from derma_semantics.wire.cancellation import under_way
from derma_semantics.wire.channel import Channel
from derma_semantics.wire.connection import TLS, Address, Connection
from derma_semantics.wire.protocol import METHODS, messages
from derma_semantics.wire.request_id import HEADER as REQUEST_ID

Outputs = dict[str, NDArray[Any]]

_METADATA = messages.ModelMetadataRequest(name=NETWORK.name)
_READY = messages.ModelReadyRequest(name=CLASSIFIER.name)

# Seconds. A timeout of 0 would be none to Triton, and an infinite one no number.
_INSTANT, _LONGEST = 1e-6, 86_400.0

METHOD = f"{METHODS}ModelInfer"
# NumPy's types of the contract's tensors; values travel little-endian, a BOOL as one byte.
_TYPES = {"BOOL": "?", "UINT8": "u1", "INT32": "<i4", "FP32": "<f4"}
# What Triton says when its queue is full or a request waited there too long.
_BEHIND = re.compile(r"maximum queue size|request timeout expired", re.IGNORECASE)
# What it says, with status INTERNAL, once a Python model's process has died.
_DEAD = re.compile(r"stub process .* is not healthy", re.IGNORECASE)
# What it says, with status UNAVAILABLE, of a method that needs the admin key.
_CLOSED = re.compile(r"protocol is restricted", re.IGNORECASE)


class Transport(Protocol):
    """The interface that ``DermaClient`` needs of a connection; tests inject their own.

    ``infer`` may wait within ``cancellation.under_way``, so that another thread can end it.
    """

    def infer(self, image: bytes, timeout: float, request_id: str) -> Outputs: ...
    def network(self, timeout: float) -> dict[str, str]: ...
    def ready(self, timeout: float) -> bool: ...
    def close(self) -> None: ...


class AsyncTransport(Protocol):
    """The interface that ``AsyncDermaClient`` needs of a connection."""

    def infer(self, image: bytes, timeout: float, request_id: str) -> Awaitable[Outputs]: ...
    def network(self, timeout: float) -> Awaitable[dict[str, str]]: ...
    def ready(self, timeout: float) -> Awaitable[bool]: ...
    def close(self) -> Awaitable[None]: ...


class GrpcTransport:
    """Blocking calls to Triton. Safe to share between threads, and with processes forked between calls.

    Args, Raises: see ``Connection``.
    """

    def __init__(self, url: Address, *, tls: TLS | None = None, token: str | None = None) -> None:
        self._channel = Channel(Connection(url, tls, token), grpc)
        self.url = str(self._channel)

    def infer(self, image: bytes, timeout: float, request_id: str = "") -> Outputs:
        """Send one encoded image; returns every output without its batch axis.

        Args:
            request_id: under which the service's logs name it; empty: the service draws one.
        """
        with _traced(self._channel, request_id) as metadata:
            call = self._channel.stub.ModelInfer.future(
                _request(image, request_id, timeout), timeout=timeout, metadata=metadata
            )
            with under_way(call.cancel):
                return _arrays(call.result())

    def network(self, timeout: float) -> dict[str, str]:
        """The network's config parameters, and the ``version`` that serves with them."""
        end = time.monotonic() + timeout
        stub, metadata = self._channel.stub, self._channel.metadata
        with translated(self.url):
            meta = stub.ModelMetadata(_METADATA, timeout=timeout, metadata=metadata)
            request = messages.ModelConfigRequest(name=NETWORK.name, version=_newest(meta))
            config = stub.ModelConfig(request, timeout=max(0.0, end - time.monotonic()), metadata=metadata)
        return _network(config, request.version)

    def ready(self, timeout: float) -> bool:
        """Check that the public model can answer; False too where no server listens."""
        try:
            with translated(self.url):
                return bool(
                    self._channel.stub.ModelReady(
                        _READY, timeout=timeout, metadata=self._channel.metadata
                    ).ready
                )
        except (errors.ServiceUnavailable, errors.DeadlineExceeded):
            return False

    def close(self) -> None:
        if channel := self._channel.release():
            channel.close()


class GrpcAsyncTransport:
    """The asyncio twin of ``GrpcTransport``; it connects in the event loop that uses it."""

    def __init__(self, url: Address, *, tls: TLS | None = None, token: str | None = None) -> None:
        self._channel = Channel(Connection(url, tls, token), grpc.aio, asyncio.get_running_loop)
        self.url = str(self._channel)

    async def infer(self, image: bytes, timeout: float, request_id: str = "") -> Outputs:
        with _traced(self._channel, request_id) as metadata:
            call = self._channel.stub.ModelInfer(
                _request(image, request_id, timeout), timeout=timeout, metadata=metadata
            )
            return _arrays(await call)

    async def network(self, timeout: float) -> dict[str, str]:
        end = time.monotonic() + timeout
        stub, metadata = self._channel.stub, self._channel.metadata
        with translated(self.url):
            meta = await stub.ModelMetadata(_METADATA, timeout=timeout, metadata=metadata)
            request = messages.ModelConfigRequest(name=NETWORK.name, version=_newest(meta))
            config = await stub.ModelConfig(
                request, timeout=max(0.0, end - time.monotonic()), metadata=metadata
            )
        return _network(config, request.version)

    async def ready(self, timeout: float) -> bool:
        try:
            with translated(self.url):
                answer = await self._channel.stub.ModelReady(
                    _READY, timeout=timeout, metadata=self._channel.metadata
                )
                return bool(answer.ready)
        except (errors.ServiceUnavailable, errors.DeadlineExceeded):
            return False

    async def close(self) -> None:
        if channel := self._channel.release():
            await channel.close()


class ModelControl:
    """Operators' calls about a server's models: list, load, unload, inspect.

    Args:
        timeout: seconds, for each call.
        key: the server's admin key; default: ``admin_key()``. It is sent only where nobody else can read it.

    The other arguments, and what is raised: see ``Connection``; AccessDenied without the key.
    """

    def __init__(
        self,
        url: Address,
        *,
        timeout: float = 120.0,
        tls: TLS | None = None,
        token: str | None = None,
        key: str | None = None,
    ) -> None:
        connection = Connection(url, tls, token)
        self._channel = Channel(connection, grpc)
        key = key or admin_key()
        self._key = ((GRPC_HEADER, key),) if key and connection.private else ()
        self.url = str(self._channel)
        self.timeout = timeout

    def load(self, model: str) -> None:
        """Load or reload a model; returns when the new version serves."""
        self._ask("RepositoryModelLoad", messages.RepositoryModelLoadRequest(model_name=model))

    def unload(self, model: str) -> None:
        self._ask("RepositoryModelUnload", messages.RepositoryModelUnloadRequest(model_name=model))

    def index(self) -> list[dict[str, str]]:
        """Every known model version: ``name``, ``version``, ``state``, ``reason``."""
        answer = self._ask("RepositoryIndex", messages.RepositoryIndexRequest())
        return [{"version": "", "state": "", "reason": "", **row} for row in answer.get("models", [])]

    def configuration(self, model: str) -> dict[str, Any]:
        """A model's configuration, as the server completed it."""
        answer = self._ask("ModelConfig", messages.ModelConfigRequest(name=model))
        return dict(answer["config"])

    def instances(self, model: str) -> int:
        """The number of instances in a model's configuration."""
        groups = self.configuration(model).get("instance_group", [])
        return sum(int(group.get("count", 1)) for group in groups)

    def infer(self, model: Model, pixels: NDArray[np.uint8]) -> Outputs:
        """Run a model on pixels, uint8 (N, 224, 224, 3); its outputs keep the batch axis."""
        tensor = messages.ModelInferRequest.InferInputTensor(
            name="PIXELS", datatype="UINT8", shape=pixels.shape
        )
        request = messages.ModelInferRequest(
            model_name=model.name, inputs=[tensor], raw_input_contents=[pixels.tobytes()]
        )
        with translated(self.url):
            answer = self._channel.stub.ModelInfer(
                request, timeout=self.timeout, metadata=self._channel.metadata
            )
            return _tensors(answer, model)

    def steps(self) -> tuple[list[str], bool]:
        """By the public model's configuration: the models that answer, in order; whether a log is kept."""
        steps = self.configuration(CLASSIFIER.name)["ensemble_scheduling"]["step"]
        audited = any(TICKET in step.get("input_map", {}) for step in steps)
        return [step["model_name"] for step in steps], audited

    def audited(self) -> bool:
        """True where the server keeps an audit log: pixels then travel with a ticket."""
        return self.steps()[1]

    def statistics(self) -> dict[str, Any]:
        """The server's counters since it started; 64-bit numbers are text, zeros are left out."""
        return self._ask("ModelStatistics", messages.ModelStatisticsRequest())

    def server(self) -> dict[str, Any]:
        """The server's name, version and extensions."""
        return self._ask("ServerMetadata", messages.ServerMetadataRequest())

    def close(self) -> None:
        if channel := self._channel.release():
            channel.close()

    def _ask(self, method: str, request: Any) -> dict[str, Any]:
        with translated(self.url):
            call = getattr(self._channel.stub, method)
            metadata = (*self._channel.metadata, *self._key)
            answer = call(request, timeout=self.timeout, metadata=metadata)
        return dict(MessageToDict(answer, preserving_proto_field_name=True))


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn gRPC's errors into this package's."""
    try:
        yield
    except grpc.FutureCancelledError as exc:
        raise CancelledError from exc
    except grpc.RpcError as exc:
        raise _translate(url, exc.code().name, exc.details() or "") from exc


@contextmanager
def _traced(channel: Channel, request_id: str) -> Iterator[tuple[tuple[str, str], ...]]:
    """One inference, as OpenTelemetry's conventions for RPC describe it; yields its metadata."""
    about = {"rpc.system.name": "grpc", "rpc.method": METHOD, "server.address": str(channel)}
    if request_id:
        about["derma.request.id"] = request_id
    with tracing.span(METHOD, about, tracing.CLIENT) as span, translated(str(channel)):
        try:
            yield (*channel.metadata, *([(REQUEST_ID, request_id)] if request_id else []))
            span.set_attribute("rpc.response.status_code", "OK")
        except grpc.RpcError as exc:
            span.set_attribute("rpc.response.status_code", exc.code().name)
            raise


def _translate(url: str, code: str, message: str) -> errors.DermaError:
    if code == "INVALID_ARGUMENT":
        return errors.from_wire(message) or errors.InvalidRequest(message)
    if _CLOSED.search(message):
        return errors.AccessDenied(
            f"{url} wants its admin key for this: set DERMA_ADMIN_KEY or DERMA_ADMIN_KEY_FILE"
        )
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return errors.AccessDenied(f"{url} refused the caller: {message}")
    if code == "DEADLINE_EXCEEDED":
        return errors.DeadlineExceeded(f"{url} did not answer in time")
    if code == "RESOURCE_EXHAUSTED" or _BEHIND.search(message):
        return errors.Overloaded(f"{url} is overloaded: {message}")
    if code in ("UNAVAILABLE", "NOT_FOUND", "CANCELLED") or _DEAD.search(message):
        return errors.ServiceUnavailable(f"{url} is not available: {message}")
    return errors.ServiceError(f"{url} failed ({code or 'no status'}): {message}")


def _request(image: bytes, request_id: str, timeout: float) -> Any:
    """BYTES travel with their length before them, in four bytes, little-endian.

    No outputs are named, which asks for all there are: an older server would refuse a newer name. Triton
    receives the timeout, or its queues would hold, and compute, what nobody waits for any more.
    """
    tensor = messages.ModelInferRequest.InferInputTensor(name="IMAGE", datatype="BYTES", shape=[1, 1])
    request = messages.ModelInferRequest(
        model_name=CLASSIFIER.name,
        id=request_id,
        inputs=[tensor],
        raw_input_contents=[struct.pack("<I", len(image)) + image],
    )
    request.parameters["timeout"].int64_param = int(1e6 * min(max(_INSTANT, timeout), _LONGEST))
    return request


def _arrays(response: Any) -> Outputs:
    """The outputs of a request with one image, in the contract's order."""
    found = _tensors(response, CLASSIFIER)
    return {name: found[name][0] for name in CLASSIFIER.outputs if name in found}


def _tensors(response: Any, model: Model) -> Outputs:
    """The outputs that the contract knows, with their batch axis.

    Raises:
        ServiceError: their bytes are not what their types and shapes say.
    """
    try:
        return {
            output.name: np.frombuffer(content, _TYPES[output.datatype]).reshape(output.shape)
            for output, content in zip(response.outputs, response.raw_output_contents, strict=True)
            if output.name in model.outputs
        }
    except (KeyError, ValueError) as exc:
        raise errors.ServiceError(f"an answer of {model.name} cannot be read: {exc!r}") from exc


def _newest(meta: Any) -> str:
    """The highest version that serves."""
    return str(max(map(int, meta.versions), default=""))


def _network(answer: Any, version: str) -> dict[str, str]:
    values = {key: value.string_value for key, value in answer.config.parameters.items()}
    return {**values, "version": version}
