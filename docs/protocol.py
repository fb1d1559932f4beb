"""Write the client's copy of Triton's protocol, from the tritonclient that is installed.

    python docs/protocol.py

A test says when it has to be written anew.
"""

from __future__ import annotations

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from tritonclient.grpc import model_config_pb2, service_pb2

from derma_semantics.wire.protocol import DESCRIPTION


def described() -> bytes:
    """What tritonclient compiles in, each file after those that it imports."""
    found = FileDescriptorSet()
    for module in (model_config_pb2, service_pb2):
        module.DESCRIPTOR.CopyToProto(found.file.add())
    return found.SerializeToString(deterministic=True)


if __name__ == "__main__":
    DESCRIPTION.write_bytes(described())
