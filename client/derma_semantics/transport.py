"""The one place that speaks gRPC, and the one that catches its errors.

    transport = GrpcTransport("127.0.0.1:8001")
    outputs = transport.infer(jpeg_bytes, timeout=10.0)     # {"PROBABILITIES": array, ...}

Protocol: KServe v2 as Triton serves it, with its model-repository extension.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from derma_semantics import errors
from derma_semantics.contract import CLASSIFIER, NETWORK

Outputs = dict[str, NDArray[Any]]

# What Triton says when its queue is full or a request waited there too long.
_BEHIND = re.compile(r"maximum queue size|request timeout expired", re.IGNORECASE)
# What it says, with status INTERNAL, once a Python model's process has died.
_DEAD = re.compile(r"stub process .* is not healthy", re.IGNORECASE)


class Transport(Protocol):
    """What ``DermaClient`` needs of a connection; tests inject their own."""

    def infer(self, image: bytes, timeout: float) -> Outputs: ...
    def network(self, timeout: float) -> dict[str, str]: ...
    def ready(self, timeout: float) -> bool: ...
    def close(self) -> None: ...


class AsyncTransport(Protocol):
    """What ``AsyncDermaClient`` needs of a connection."""

    def infer(self, image: bytes, timeout: float) -> Awaitable[Outputs]: ...
    def network(self, timeout: float) -> Awaitable[dict[str, str]]: ...
    def ready(self, timeout: float) -> Awaitable[bool]: ...
    def close(self) -> Awaitable[None]: ...


class GrpcTransport:
    """A blocking connection to one Triton server. Safe to share between threads."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = triton.InferenceServerClient(url)

    def infer(self, image: bytes, timeout: float) -> Outputs:
        """Send one encoded image; returns every output without its batch axis."""
        with translated(self.url):
            result = self._client.infer(
                CLASSIFIER.name, [_input(image)], outputs=_outputs(), client_timeout=timeout
            )
        return _arrays(result)

    def network(self, timeout: float) -> dict[str, str]:
        """The network's config parameters, and the ``version`` that serves with them."""
        end = time.monotonic() + timeout
        with translated(self.url):
            meta = self._client.get_model_metadata(NETWORK.name, as_json=True, client_timeout=timeout)
            version = _newest(meta)
            config = self._client.get_model_config(
                NETWORK.name, version, as_json=True, client_timeout=max(0.0, end - time.monotonic())
            )
        return _network(config, version)

    def ready(self, timeout: float) -> bool:
        """Whether the public model can answer; False too where no server listens."""
        try:
            with translated(self.url):
                return bool(self._client.is_model_ready(CLASSIFIER.name, client_timeout=timeout))
        except (errors.ServiceUnavailable, errors.DeadlineExceeded):
            return False

    def close(self) -> None:
        self._client.close()


class GrpcAsyncTransport:
    """The asyncio twin of ``GrpcTransport``; it connects in the loop that first uses it."""

    def __init__(self, url: str) -> None:
        self.url = url

    @cached_property
    def _client(self) -> Any:
        return triton_aio.InferenceServerClient(self.url)

    async def infer(self, image: bytes, timeout: float) -> Outputs:
        with translated(self.url):
            result = await self._client.infer(
                CLASSIFIER.name, [_input(image)], outputs=_outputs(), client_timeout=timeout
            )
        return _arrays(result)

    async def network(self, timeout: float) -> dict[str, str]:
        end = time.monotonic() + timeout
        with translated(self.url):
            meta = await self._client.get_model_metadata(NETWORK.name, as_json=True, client_timeout=timeout)
            version = _newest(meta)
            config = await self._client.get_model_config(
                NETWORK.name, version, as_json=True, client_timeout=max(0.0, end - time.monotonic())
            )
        return _network(config, version)

    async def ready(self, timeout: float) -> bool:
        try:
            with translated(self.url):
                return bool(await self._client.is_model_ready(CLASSIFIER.name, client_timeout=timeout))
        except (errors.ServiceUnavailable, errors.DeadlineExceeded):
            return False

    async def close(self) -> None:
        await self._client.close()


class ModelControl:
    """What operators do to a server's models: list, load, unload, inspect."""

    def __init__(self, url: str, *, timeout: float = 120.0) -> None:
        self.url = url
        self.timeout = timeout
        self._client = triton.InferenceServerClient(url)

    def load(self, model: str) -> None:
        """Load or reload a model; returns when the new version serves."""
        with translated(self.url):
            self._client.load_model(model, client_timeout=self.timeout)

    def unload(self, model: str) -> None:
        with translated(self.url):
            self._client.unload_model(model, client_timeout=self.timeout)

    def index(self) -> list[dict[str, str]]:
        """Every known model version: ``name``, ``version``, ``state``, ``reason``."""
        with translated(self.url):
            answer = self._client.get_model_repository_index(as_json=True, client_timeout=self.timeout)
        return [{"version": "", "state": "", "reason": "", **row} for row in answer.get("models", [])]

    def instances(self, model: str) -> int:
        """How many instances of a model its configuration asks for."""
        with translated(self.url):
            config = self._client.get_model_config(model, as_json=True, client_timeout=self.timeout)
        return sum(int(group.get("count", 1)) for group in config["config"].get("instance_group", []))

    def server(self) -> dict[str, Any]:
        """The server's name, version and extensions."""
        with translated(self.url):
            answer = self._client.get_server_metadata(as_json=True, client_timeout=self.timeout)
        return dict(answer)

    def close(self) -> None:
        self._client.close()


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn gRPC errors into this package's."""
    try:
        yield
    except InferenceServerException as exc:
        raise _translate(url, exc.status() or "", exc.message() or str(exc)) from exc


def _translate(url: str, status: str, message: str) -> errors.DermaError:
    code = status.removeprefix("StatusCode.")
    if code == "INVALID_ARGUMENT":
        return errors.from_wire(message) or errors.InvalidRequest(message)
    if code == "DEADLINE_EXCEEDED":
        return errors.DeadlineExceeded(f"{url} did not answer in time")
    if code == "RESOURCE_EXHAUSTED" or _BEHIND.search(message):
        return errors.Overloaded(f"{url} is overloaded: {message}")
    if code in ("UNAVAILABLE", "NOT_FOUND") or _DEAD.search(message):
        return errors.ServiceUnavailable(f"{url} is not available: {message}")
    return errors.ServiceError(f"{url} failed ({code or 'no status'}): {message}")


def _input(image: bytes) -> triton.InferInput:
    tensor = triton.InferInput("IMAGE", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[image]], dtype=np.object_))
    return tensor


def _outputs() -> list[triton.InferRequestedOutput]:
    return [triton.InferRequestedOutput(name) for name in CLASSIFIER.outputs]


def _arrays(result: Any) -> Outputs:
    return {name: result.as_numpy(name)[0] for name in CLASSIFIER.outputs}


def _newest(meta: dict[str, Any]) -> str:
    """The highest version that serves."""
    return str(max((int(version) for version in meta.get("versions", [])), default=""))


def _network(config: dict[str, Any], version: str) -> dict[str, str]:
    parameters = config["config"].get("parameters", {})
    values = {key: value.get("string_value", "") for key, value in parameters.items()}
    return {**values, "version": version}
