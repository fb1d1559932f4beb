"""docs/grpc.md and its proto say what the contract and Triton's own proto say."""

import re
from pathlib import Path

import pytest
from tritonclient.grpc import service_pb2

from derma_semantics.domain import contract
from derma_semantics.domain.conditions import CODES

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "grpc.md").read_text()
PROTO = (DOCS / "examples" / "kserve.proto").read_text()
FIELD = re.compile(r"(repeated |)([\w<>, ]+) (\w+) = (\d+);")
KINDS = {"bool": 8, "bytes": 12, "int64": 3, "string": 9, "message": 11}


def fields(proto):
    """(message, field, number, type, repeated) of every field, read line by line."""
    stack = []
    for line in (line.strip() for line in proto.splitlines()):
        if opened := re.fullmatch(r"(message|oneof|service) (\w+) {", line):
            stack.append(opened.groups())
        elif line == "}":
            stack.pop()
        elif field := FIELD.fullmatch(line):
            repeated, kind, name, number = field.groups()
            many = bool(repeated) or kind.startswith("map<")
            messages = tuple(name for sort, name in stack if sort == "message")
            yield messages, name, int(number), kind, many


def described(messages):
    found = service_pb2.DESCRIPTOR.message_types_by_name[messages[0]]
    for name in messages[1:]:
        found = found.nested_types_by_name[name]
    return found


def test_the_proto_is_a_part_of_tritons():
    checked = list(fields(PROTO))
    assert len(checked) == len(re.findall(r"= \d+;", PROTO))
    for messages, name, number, kind, many in checked:
        theirs = described(messages).fields_by_name[name]
        ours = (number, KINDS.get(kind, KINDS["message"]), many)
        assert (theirs.number, theirs.type, theirs.is_repeated) == ours, (messages, name)
        if theirs.message_type and not theirs.message_type.GetOptions().map_entry:
            assert theirs.message_type.name == kind


def test_its_calls_are_tritons():
    (service,) = service_pb2.DESCRIPTOR.services_by_name.values()
    assert f"package {service_pb2.DESCRIPTOR.package};" in PROTO and f"service {service.name} {{" in PROTO
    calls = re.findall(r"rpc (\w+)\((\w+)\) returns \((\w+)\)", PROTO)
    assert {name for name, *_ in calls} == {"ModelReady", "ModelInfer"}
    for name, request, answer in calls:
        method = service.methods_by_name[name]
        assert (method.input_type.name, method.output_type.name) == (request, answer)


@pytest.mark.parametrize(
    ("name", "tensor"), [*contract.CLASSIFIER.inputs.items(), *contract.CLASSIFIER.outputs.items()]
)
def test_the_page_states_the_tensors(name, tensor):
    (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| `{name}`"))
    shape = ", ".join("D" if size == -1 else str(size) for size in tensor.shape)
    assert f"| {tensor.datatype} [B, {shape}] |" in row


def test_the_page_states_the_limits():
    for limit in (
        f"{contract.MAX_ENCODED_BYTES // 2**20} MiB, {contract.MAX_PIXELS // 10**6} megapixels, "
        f"sides {contract.MAX_ASPECT} : 1, at least {contract.MIN_SIDE} pixels a side; one page",
        f"at most {contract.MAX_SCANS} JPEG scans",
        f"{contract.MAX_DECODE_SECONDS:.0f} s of processor time to decode",
        f"B is 1 to {contract.MAX_BATCH}",
    ):
        assert limit in PAGE
    assert contract.MAX_SCANNED_PIXELS == 10**9  # "a billion"
    assert ", ".join(CODES) in PAGE
    assert f"possible at {contract.SET_COVERAGE:.0%}".replace("%", " %") in PAGE
    assert str([triage.name.lower() for triage in contract.Triage]).replace("'", '"') in PAGE
