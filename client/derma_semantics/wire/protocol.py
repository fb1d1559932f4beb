"""Triton's gRPC protocol: its messages, its calls, its model configurations.

    stub = Stub(grpc.insecure_channel("127.0.0.1:8001"))
    stub.ModelReady(messages.ModelReadyRequest(name="derma_classifier")).ready

``protocol.binpb`` is what tritonclient compiles in, as ``docs/protocol.py`` writes it (BSD-3-Clause, see
``protocol.LICENSE``): the package itself brings 31 MB of which a client needs nothing else. It lies in a pool
of its own, so that a program may load tritonclient, or KServe's client, as well: one pool holds a name once.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from derma_semantics.domain.regular import read_regular

DESCRIPTION = Path(__file__).with_name("protocol.binpb")
SERVICE = "GRPCInferenceService"


def _files() -> list[Any]:
    """The descriptions, each after those that it imports."""
    pool = DescriptorPool()
    files = FileDescriptorSet.FromString(read_regular(DESCRIPTION)).file
    for file in files:
        pool.Add(file)
    return [pool.FindFileByName(file.name) for file in files]


_CONFIGURATION, _PROTOCOL = _files()
_SERVICE = _PROTOCOL.services_by_name[SERVICE]
METHODS = f"{_SERVICE.full_name}/"  # before the name of a call

new_config = GetMessageClass(_CONFIGURATION.message_types_by_name["ModelConfig"])
messages: Any = SimpleNamespace(
    **{name: GetMessageClass(found) for name, found in _PROTOCOL.message_types_by_name.items()}
)


class Stub:
    """The service's calls on a channel of ``grpc`` or ``grpc.aio``, by their names."""

    def __init__(self, channel: Any) -> None:
        for method in _SERVICE.methods:
            if not method.client_streaming:
                call = channel.unary_unary(
                    f"/{METHODS}{method.name}",
                    request_serializer=GetMessageClass(method.input_type).SerializeToString,
                    response_deserializer=GetMessageClass(method.output_type).FromString,
                )
                setattr(self, method.name, call)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the protocol has no call {name!r}")
