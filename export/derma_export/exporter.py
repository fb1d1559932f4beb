"""From a bundle to a version in a model repository, with the gate between.

    bundle = Bundle.open("training/bundles/derma-mini")
    version = export_bundle(bundle, Path(".run/models"), Task(synthetic_samples()))

A graph that fails the gate is never written.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from torch import Tensor

from derma_export import fusion, gate, merge
from derma_export.facts import statement
from derma_export.graph import OPSET, OnnxClassifier, export_onnx
from derma_export.precision import Attempt, attempts
from derma_export.samples import Samples
from derma_semantics.domain.contract import NETWORK, Model
from derma_serving.drafts import naming
from derma_serving.repository import engine_of, install
from derma_serving.runtime.engine import Engine
from derma_serving.runtime.integrity import GRAPH
from derma_serving.runtime.precisions import DEFAULT, by_name
from derma_training.bundle import Bundle, BundleError, sha256
from derma_training.network.classifier import Answers

Open = Callable[[Path, Engine], gate.Runner]
Say = Callable[[str], object]


@dataclass(frozen=True)
class Task:
    """What to make, and what to judge it by.

    Attributes:
        samples: images that the gate compares on.
        ranges: images that a calibrated precision measures its ranges on, uint8 (N, 224, 224, 3); by
            default the gate's own, which is right for random weights only.
    """

    samples: Samples
    precision: str = DEFAULT
    ranges: Tensor | None = None


@torch.inference_mode()
def export_bundle(
    bundle: Bundle,
    repository: Path,
    task: Task,
    *,
    say: Say = print,
    run_graph: Open = OnnxClassifier,
    into: Model = NETWORK,
) -> int:
    """Merge, export, lower, gate and install.

    Args:
        say: is told, a line at a time, what was done.
        run_graph: opens an exported file for the gate.
        into: the network, or its candidate.

    Returns:
        The new version number.

    Raises:
        GateFailed: nothing was written.
        BundleError: the bundle was altered meanwhile; nothing was written.
        ValueError: the network's configuration asks for what does not exist.
    """
    classifier, moved = merge.merged(bundle, task.samples.pixels[: gate.BATCH])
    say(f"merge  embeddings move by {moved:.1e} (limit {merge.LIMIT:.0e})")
    reference = gate.in_batches(classifier, task.samples.pixels)
    engine = engine_of(task.precision)
    with tempfile.TemporaryDirectory(prefix="derma-export-") as scratch, naming(Path(scratch)):
        graph = Path(scratch) / GRAPH
        export_onnx(classifier, graph, fuse_attention=by_name(task.precision).gpu)
        attempt, report = _first_to_pass(
            graph, reference, task, say, lambda path: run_graph(path, engine), bundle.calibration.margin
        )
        manifest = {
            **statement(bundle, task.precision),
            "graph_digest": sha256(attempt.graph),
            "embedding_size": classifier.text.shape[1],
            **_provenance(bundle),
            "gate": {**report.to_dict(), "source": task.samples.source, "merge": moved},
            "engine": engine.provider,
            "kept": [layer.place for layer in attempt.kept],
            "fused": _fused(attempt.graph, task.precision),
        }
        _require_unchanged(bundle)
        return install(repository, attempt.graph, manifest, into)


def _require_unchanged(bundle: Bundle) -> None:
    """Check every file once more, since they were read after the bundle was opened."""
    if Bundle.open(bundle.path).digest != bundle.digest:
        raise BundleError(f"{bundle.path} was altered while it was exported")


def _first_to_pass(
    graph: Path,
    reference: Answers,
    task: Task,
    say: Say,
    open_graph: Callable[[Path], gate.Runner],
    margin: float,
) -> tuple[Attempt, gate.Report]:
    """The fastest version that the gate lets through.

    Raises:
        GateFailed: none of them; says why the last one failed.
    """
    samples, limits = task.samples, gate.LIMITS[task.precision]
    ranges = samples.pixels if task.ranges is None else task.ranges
    report = None
    for attempt in attempts(graph, task.precision, ranges, graph.parent):
        if attempt.kept:
            say(f"kept   as they were: {', '.join(map(str, attempt.kept))}")
        run = open_graph(attempt.graph)
        report = gate.compare(
            reference,
            gate.in_batches(run, samples.pixels),
            limits,
            labels=samples.labels,
            companions=gate.companion_effect(run, samples.pixels),
            margin=margin,
        )
        say(f"gate   {task.precision}, {report.images} images ({samples.source}): {report}")
        if not report.failures:
            return attempt, report
    assert report is not None
    report.require(samples.names)
    raise AssertionError("a report with failures raises")


def _fused(graph: Path, precision: str) -> dict[str, int]:
    """Fused operators of the graph, by kind.

    Raises:
        GateFailed: a graph for GPUs lacks a kind, and would be slow without being wrong.
    """
    found = fusion.count(onnx.load(str(graph), load_external_data=False))
    if by_name(precision).gpu and not 0 < found["Attention"] == found["Gelu"] < found["LayerNormalization"]:
        raise gate.GateFailed(f"a graph for GPUs needs fused operators, found {found}")
    return found


def _provenance(bundle: Bundle) -> dict[str, Any]:
    return {
        "outputs": list(NETWORK.outputs),
        "files": bundle.manifest["files"],
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "opset": OPSET,
        "made_with": {
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
    }
