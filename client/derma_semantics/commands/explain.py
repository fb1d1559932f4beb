"""``derma explain``: which pixels speak for a text."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np

from derma_semantics.commands.options import FILE, JSON, NEW_FILE, Service, connected
from derma_semantics.commands.printing import SIDECAR_HINT, Refused, say_failure, unavailable
from derma_semantics.commands.terminal import Exit, escaped
from derma_semantics.domain.conditions import CODES
from derma_semantics.domain.contract import NOTICE
from derma_semantics.domain.errors import DeadlineExceeded, DermaError, InvalidRequest, ServiceUnavailable
from derma_semantics.saliency import Explanation


@click.command()
@click.argument("image", type=FILE)
@click.option("--prompt", help='Any text, e.g. "signs of melanoma".')
@click.option("--condition", type=click.Choice(CODES), help="A condition instead.")
@click.option("--method", help="How relevance is computed; the sidecar has a default.")
@click.option("--out", type=NEW_FILE, required=True, help="PNG to write: the image under a colour map.")
@click.option("--map", "grid", type=NEW_FILE, help="NPY to write: fp32 (height, width), in [0, 1].")
@connected
@JSON
def explain(
    service: Service,
    image: Path,
    prompt: str | None,
    condition: str | None,
    method: str | None,
    out: Path,
    grid: Path | None,
    as_json: bool,
) -> None:
    """Show which pixels of IMAGE speak for a text, against the other conditions.

    The saliency sidecar answers (`derma-saliency serve`).
    """
    _check(prompt, condition, out, grid)
    try:
        with service.client() as client:
            found = client.explain(image, prompt, condition=condition, method=method)
        found.overlay(image).save(out, "PNG")
        if grid:
            with grid.open("wb") as file:
                np.save(file, found.map)
    except (ServiceUnavailable, DeadlineExceeded) as exc:
        unavailable(exc, SIDECAR_HINT)
    except (InvalidRequest, ImportError) as exc:
        raise Refused(str(exc)) from exc
    except (DermaError, OSError) as exc:
        say_failure(image, exc, as_json)
        sys.exit(Exit.FAILED)
    report = _record(image, found, out, grid)
    click.echo(json.dumps(report) if as_json else _readable(report))


def _check(prompt: str | None, condition: str | None, out: Path, grid: Path | None) -> None:
    if (prompt is None) == (condition is None):
        raise click.UsageError("give either --prompt or --condition")
    if out.suffix.lower() != ".png":
        raise click.UsageError(f"--out {out}: expected a name that ends in .png")
    for path in filter(None, (out, grid)):
        if not path.absolute().parent.is_dir():
            raise click.UsageError(f"{path}: the folder {path.parent} does not exist")


def _record(image: Path, found: Explanation, out: Path, grid: Path | None) -> dict[str, Any]:
    return {
        "image": str(image),
        "text": found.text,
        "method": found.method,
        "score": found.score,
        "probabilities": found.probabilities,
        "size": found.size,
        "crop": found.crop,
        "bundle_digest": found.bundle_digest,
        "out": str(out),
        "map": str(grid) if grid else None,
    }


def _readable(report: dict[str, Any]) -> str:
    lines = [
        click.style(escaped(report["image"]), bold=True),
        f"  {report['text']!r} scores {report['score']:+.3f} against the other conditions",
        f"  method {report['method']}   bundle {report['bundle_digest'][:12]}",
        escaped(f"  overlay in {report['out']}" + (f", map in {report['map']}" if report["map"] else "")),
    ]
    return "\n".join([*lines, NOTICE])
