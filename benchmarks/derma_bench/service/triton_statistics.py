"""Stages of a request, by Triton's own statistics.

    before = snapshot("127.0.0.1:8001")
    ...                                             # load
    used = difference(before, snapshot("127.0.0.1:8001"))
    used["derma_biomedclip"]["occupancy"]           # images a batch, on average
    stages(used, mean_ms)                           # {"decode: compute": 4.1, ...}

Source: Triton's statistics extension of the KServe v2 protocol.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from derma_semantics.domain.contract import CLASSIFIER, NETWORK, PREPROCESS
from derma_semantics.wire.transport import ModelControl

STAGES = ("queue", "compute_input", "compute_infer", "compute_output")
SHOWN = {PREPROCESS.name: "decode", NETWORK.name: "network"}
Statistics = dict[str, dict[str, float]]


def snapshot(url: str, *, timeout: float = 10.0) -> dict[str, Any]:
    """The server's counters since it started.

    Raises:
        DermaError: it does not answer; AccessDenied without its admin key.
    """
    control = ModelControl(url, timeout=timeout)
    try:
        return control.statistics()
    finally:
        control.close()


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> Statistics:
    """Subtract two snapshots, by model, all its versions together.

    Returns:
        For each model that ran: ``requests``, ``images``, ``executions``, ``occupancy``
        (images an execution) and milliseconds a request in ``success`` and each of ``STAGES``.
    """
    first, last = _totals(before), _totals(after)
    used = {}
    for model, counters in last.items():
        spent = {key: value - first.get(model, {}).get(key, 0.0) for key, value in counters.items()}
        if spent["success_count"] > 0:
            used[model] = _averages(spent)
    return used


def stages(used: Statistics, mean_ms: float) -> dict[str, float]:
    """Milliseconds of an average request, by stage; they add up to ``mean_ms``, the client's mean,
    unless the warm-up, which Triton counts as well, was slower than what the client measured.

    A request that waits for its batch waits in "queue". "ensemble" is what the server spends
    between its models, "client and gRPC" what it does not see.
    """
    parts = {
        f"{name}: {stage.removeprefix('compute_')}": used[model][stage]
        for model, name in SHOWN.items()
        if model in used
        for stage in STAGES
    }
    inside = used.get(CLASSIFIER.name, {}).get("success", sum(parts.values()))
    return {
        "client and gRPC": max(0.0, mean_ms - inside),
        "ensemble": max(0.0, inside - sum(parts.values())),
        **parts,
    }


def since(before: Mapping[str, Any], url: str, mean_ms: float) -> dict[str, Any]:
    """Statistics, batch occupancy and stages since a snapshot."""
    used = difference(before, snapshot(url))
    occupancy = {name: used[model]["occupancy"] for model, name in SHOWN.items() if model in used}
    return {"statistics": used, "occupancy": occupancy, "stages_ms": stages(used, mean_ms)}


def _totals(answer: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Counters by model; JSON leaves out those that are zero and writes 64-bit numbers as text."""
    totals: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for model in answer.get("model_stats", []):
        counters = totals[model["name"]]
        counters["images"] += float(model.get("inference_count", 0))
        counters["executions"] += float(model.get("execution_count", 0))
        for stage in ("success", *STAGES):
            duration = model.get("inference_stats", {}).get(stage, {})
            counters[f"{stage}_count"] += float(duration.get("count", 0))
            counters[f"{stage}_ns"] += float(duration.get("ns", 0))
    return totals


def _averages(spent: Mapping[str, float]) -> dict[str, float]:
    averages = {
        "requests": spent["success_count"],
        "images": spent["images"],
        "executions": spent["executions"],
        "occupancy": spent["images"] / max(1.0, spent["executions"]),
    }
    for stage in ("success", *STAGES):
        averages[stage] = spent[f"{stage}_ns"] / max(1.0, spent[f"{stage}_count"]) / 1e6
    return averages
