"""The engines that ``derma-bench engine`` knows: a precision, a provider of ONNX Runtime and a graph.

KINDS["openvino-bf16"]              # Kind("bf16", "openvino", "fp32")
startable()                         # names of those whose provider is installed
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from derma_serving.runtime.precisions import DEFAULT, PRECISIONS

if TYPE_CHECKING:
    from derma_serving.runtime.engine import Provider

REFERENCE = f"torch-{DEFAULT}"


@dataclass(frozen=True)
class Kind:
    """A graph in an engine; PyTorch itself where ``graph`` is empty."""

    precision: str
    provider: Provider = "cpu"
    graph: str = ""


KINDS = {
    REFERENCE: Kind(DEFAULT),
    "ort-fp32": Kind(DEFAULT, "cpu", DEFAULT),
    "ort-int8-dynamic": Kind("int8", "cpu", "int8-dynamic"),
    "ort-int8-static": Kind("int8", "cpu", "int8-static"),
    **{f"openvino-{p.name}": Kind(p.name, "openvino", p.graph) for p in PRECISIONS if not p.gpu},
}


def startable() -> tuple[str, ...]:
    """The engines whose provider this ONNX Runtime has."""
    import onnxruntime

    from derma_serving.runtime.engine import PROVIDERS

    available = onnxruntime.get_available_providers()
    return tuple(name for name, kind in KINDS.items() if PROVIDERS[kind.provider] in available)
