"""ONNX Runtime sessions, opened in one way by the gate, the benchmarks and the stand-in backend.

    session = open_session(Path("model.onnx"), Engine("openvino", precision="bf16", threads=2))
    session.run(["PROBABILITIES"], {"PIXELS": pixels})

ONNX Runtime answers on the CPU when the provider it was asked for does not start, and says
so only in its log. Here that is an error.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import onnxruntime

from derma_serving.runtime.precisions import DEFAULT, by_name

Provider = Literal["cpu", "openvino", "cuda", "tensorrt"]

PROVIDERS: dict[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
# Operators that take the time, also as part of a name: MatMulInteger, SkipLayerNormalization, BiasGelu.
COMPUTE = ("MatMul", "Gemm", "Conv", "Attention", "LayerNormalization", "Gelu", "Softmax", "QLinear")


class EngineUnavailable(RuntimeError):
    """The provider is not installed, did not start, or leaves work to another."""


@dataclass(frozen=True)
class Engine:
    """What runs a graph.

    Attributes:
        precision: of the arithmetic, by its name in ``precisions``; some also need a graph made for them.
        threads: of one operator; 0 for one a core.
        options: the provider's own, added to ours.
    """

    provider: Provider = "openvino"
    precision: str = DEFAULT
    threads: int = 0
    options: Mapping[str, str] = field(default_factory=dict)


def open_session(graph: Path, engine: Engine) -> onnxruntime.InferenceSession:
    """Load a graph.

    Raises:
        EngineUnavailable: the provider is not installed, did not start, or leaves operators that compute
            to the CPU provider.
    """
    name = PROVIDERS[engine.provider]
    if name not in onnxruntime.get_available_providers():
        available = ", ".join(onnxruntime.get_available_providers())
        raise EngineUnavailable(f"this ONNX Runtime has no {name} (it has {available})")
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = engine.threads
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    providers = [(name, {**_options(engine), **engine.options})]
    if engine.provider == "tensorrt":  # takes what TensorRT cannot, as in Triton's native backend
        device = {key: value for key, value in engine.options.items() if key == "device_id"}
        providers.append((PROVIDERS["cuda"], device))
    if engine.provider in ("cuda", "tensorrt"):
        onnxruntime.preload_dlls()  # CUDA's libraries may come from wheels, where no loader looks
    try:
        session = onnxruntime.InferenceSession(str(graph), settings, providers=providers)
    except Exception as exc:  # ONNX Runtime's errors have no common class
        raise EngineUnavailable(f"{name} cannot load {graph.name}: {exc}") from exc
    if session.get_providers()[0] != name:
        raise EngineUnavailable(f"{name} did not start with {graph}; ONNX Runtime's log says why")
    require_no_fallback(session, engine.provider)
    return session


def placement(session: onnxruntime.InferenceSession) -> dict[str, Counter[str]]:
    """Where a session of ``open_session`` runs what: provider → operator → number of nodes."""
    found: dict[str, Counter[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        found.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
    return found


def require_no_fallback(session: onnxruntime.InferenceSession, provider: Provider) -> None:
    """Refuse a session that computes on the CPU provider though another was asked for.

    What only handles shapes may stay there: providers leave it to the CPU on purpose.

    Raises:
        EngineUnavailable: it names the operators.
    """
    if provider == "cpu":
        return
    left = placement(session).get(PROVIDERS["cpu"], Counter())
    work = [f"{count} {op}" for op, count in sorted(left.items()) if any(name in op for name in COMPUTE)]
    if work:
        raise EngineUnavailable(f"{PROVIDERS[provider]} leaves to the CPU: {', '.join(work)}")


def _options(engine: Engine) -> dict[str, str]:
    if engine.provider == "openvino":
        cpu = {
            "INFERENCE_PRECISION_HINT": by_name(engine.precision).openvino_hint,
            "INFERENCE_NUM_THREADS": str(engine.threads or len(os.sched_getaffinity(0))),
        }
        return {"device_type": "CPU", "load_config": json.dumps({"CPU": cpu})}
    return dict(by_name(engine.precision).cuda) if engine.provider == "cuda" else {}
