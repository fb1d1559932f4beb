"""From a bundle to a version in a model repository, with the gate between.

    bundle = Bundle.open("training/bundles/derma-mini")
    version = export_bundle(bundle, Path("model_repository"), synthetic_samples())

A graph that fails the gate is never written.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import onnx
import torch

from derma_export import gate
from derma_export.graph import OPSET, OnnxClassifier, export_onnx
from derma_export.repository import GRAPH, PRECISION, install, parameters, prepare
from derma_semantics.contract import NETWORK
from derma_training.bundle import Bundle, sha256
from derma_training.classifier import Answers, Classifier

Runner = Callable[[torch.Tensor], Answers]


@torch.inference_mode()
def export_bundle(
    bundle: Bundle,
    repository: Path,
    samples: gate.Samples,
    *,
    say: Callable[[str], object] = print,
    run_graph: Callable[[Path], Runner] = OnnxClassifier,
) -> int:
    """Merge, export, gate and install.

    Args:
        samples: images that the gate compares on.
        say: is told, a line at a time, what was done.
        run_graph: opens the exported file for the gate.

    Returns:
        The new version number.

    Raises:
        GateFailed: nothing was written.
    """
    classifier = Classifier.from_bundle(bundle)
    merge = gate.check_merge(bundle, classifier.normalise(samples.pixels))
    say(f"merge  embeddings move by {merge:.1e} (limit {gate.MERGE_LIMIT:.0e})")
    with tempfile.TemporaryDirectory() as scratch:
        graph = Path(scratch) / GRAPH
        export_onnx(classifier, graph)
        limits = gate.LIMITS[PRECISION]
        report = gate.compare(classifier(samples.pixels), run_graph(graph)(samples.pixels), limits)
        say(
            f"gate   {report.images} images ({samples.source}): probabilities differ by "
            f"{report.max_probability_difference:.1e} (limit {limits.probability:.0e}), "
            f"top-1 changed on {len(report.top1_disagreements)}"
        )
        report.require(samples.names)
        evidence = {**report.to_dict(), "source": samples.source, "merge_difference": merge}
        prepare(repository)
        return install(
            repository,
            graph,
            _manifest(bundle, graph, evidence),
            parameters(bundle),
            classifier.text.shape[1],
        )


def _manifest(bundle: Bundle, graph: Path, evidence: dict[str, Any]) -> dict[str, Any]:
    return {
        **parameters(bundle),
        "graph_digest": sha256(graph),
        "outputs": list(NETWORK.outputs),
        "files": bundle.manifest["files"],
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "opset": OPSET,
        "made_with": {"torch": torch.__version__, "onnx": onnx.__version__},
        "gate": evidence,
    }
