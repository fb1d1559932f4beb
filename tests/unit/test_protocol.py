"""The client's copy of Triton's protocol is the one in tritonclient, and both live in one process."""

import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from tritonclient.grpc import InferResult, model_config_pb2, service_pb2, service_pb2_grpc

from derma_semantics.domain.contract import CLASSIFIER
from derma_semantics.domain.errors import ServiceError
from derma_semantics.wire.protocol import DESCRIPTION, METHODS, Stub, messages
from derma_semantics.wire.transport import _arrays

TYPES = {"BOOL": np.bool_, "UINT8": np.uint8, "INT32": np.int32, "FP32": np.float32}


def test_the_copy_is_what_tritonclient_has():
    """Otherwise: python docs/protocol.py."""
    theirs = FileDescriptorSet()
    for module in (model_config_pb2, service_pb2):
        module.DESCRIPTOR.CopyToProto(theirs.file.add())
    assert FileDescriptorSet.FromString(DESCRIPTION.read_bytes()) == theirs


class Calls:
    """A channel that keeps what is asked of it."""

    def __init__(self):
        self.methods = {}

    def unary_unary(self, method, request_serializer, response_deserializer, **_):
        self.methods[method] = (request_serializer, response_deserializer)

    def stream_stream(self, *_, **__):
        return None


def test_calls_go_where_tritonclients_go():
    ours, theirs = Calls(), Calls()
    Stub(ours)
    service_pb2_grpc.GRPCInferenceServiceStub(theirs)
    assert ours.methods.keys() == theirs.methods.keys()
    assert f"/{METHODS}ModelInfer" in ours.methods
    with pytest.raises(AttributeError, match="no call 'ModelGuess'"):
        _ = Stub(ours).ModelGuess


def answer(kind, **changed):
    """An answer to one image, in one of the two protocols' classes."""
    given = kind.ModelInferResponse(model_name="derma_classifier")
    for name, tensor in CLASSIFIER.outputs.items():
        shape = [1, *(4 if size == -1 else size for size in tensor.shape)]
        values = np.arange(np.prod(shape)).reshape(shape).astype(TYPES[tensor.datatype])
        output = given.outputs.add(name=name, datatype=changed.get(name, tensor.datatype))
        output.shape.extend(shape)
        given.raw_output_contents.append(values.tobytes())
    return given


def test_the_same_bytes_give_the_same_arrays():
    received = answer(service_pb2).SerializeToString()
    ours = _arrays(messages.ModelInferResponse.FromString(received))
    theirs = InferResult(service_pb2.ModelInferResponse.FromString(received))
    assert list(ours) == list(CLASSIFIER.outputs)
    for name, values in ours.items():
        expected = theirs.as_numpy(name)[0]
        assert values.dtype == expected.dtype
        np.testing.assert_array_equal(values, expected)


def test_an_output_that_the_contract_does_not_know_is_passed_over():
    given = answer(messages)
    given.outputs.add(name="NEWER", datatype="FP64").shape.extend([1, 1])
    given.raw_output_contents.append(bytes(8))
    assert list(_arrays(given)) == list(CLASSIFIER.outputs)


def test_an_answer_that_is_cut_short_is_an_error_of_the_service():
    given = answer(messages)
    given.raw_output_contents[0] = given.raw_output_contents[0][:-4]
    with pytest.raises(ServiceError, match="derma_classifier cannot be read"):
        _arrays(given)
    del given.raw_output_contents[1:]
    with pytest.raises(ServiceError, match="cannot be read"):
        _arrays(given)
    with pytest.raises(ServiceError, match="cannot be read: KeyError"):
        _arrays(answer(messages, RISK="BF16"))
