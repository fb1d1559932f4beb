"""The engines that ``derma-bench engine`` knows: a precision, a provider of ONNX Runtime and a graph.

KINDS["openvino-bf16"]              # Kind("bf16", "openvino", "fp32")
startable()                         # names of those whose provider is installed
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from derma_serving.runtime.engine import Precision, Provider

REFERENCE = "torch-fp32"


@dataclass(frozen=True)
class Kind:
    """A graph in an engine; PyTorch itself where ``graph`` is empty."""

    precision: Precision
    provider: Provider = "cpu"
    graph: str = ""


KINDS = {
    REFERENCE: Kind("fp32"),
    "ort-fp32": Kind("fp32", "cpu", "fp32"),
    "ort-int8-dynamic": Kind("int8", "cpu", "int8-dynamic"),
    "ort-int8-static": Kind("int8", "cpu", "int8-static"),
    "openvino-fp32": Kind("fp32", "openvino", "fp32"),
    "openvino-bf16": Kind("bf16", "openvino", "fp32"),
    "openvino-int8": Kind("int8", "openvino", "int8-nncf"),
}


def startable() -> tuple[str, ...]:
    """The engines whose provider this ONNX Runtime has."""
    import onnxruntime

    from derma_serving.runtime.engine import PROVIDERS

    available = onnxruntime.get_available_providers()
    return tuple(name for name, kind in KINDS.items() if PROVIDERS[kind.provider] in available)
