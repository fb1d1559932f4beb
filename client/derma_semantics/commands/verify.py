"""What ``derma status --verify`` compares: which bundle each part of a service names.

    verdict(answers=digest, configuration=bundle, sidecar=report, expected=Expected(digest))["ok"]

A client sees no files of the server. What it can tell: the digest in the graph that answered, the
one in the configuration, the sidecar's, and that of a bundle at hand whose files it checks.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from derma_semantics.domain.integrity import BundleError, read_bundle
from derma_semantics.domain.regular import read_regular


@dataclass(frozen=True)
class Expected:
    """The bundle that should be served; ``prompts_digest`` where its folder is at hand."""

    digest: str
    prompts_digest: str | None = None


def expected_bundle(context: click.Context, parameter: click.Parameter, value: str | None) -> Expected | None:
    """A click callback: reads 64 hex digits, a bundle's folder, or its ``bundle.json``."""
    if value is None:
        return None
    path = Path(value)
    if re.fullmatch(r"[0-9a-fA-F]{64}", value):
        return Expected(value.lower())
    if path.is_file():
        return Expected(hashlib.sha256(read_regular(path)).hexdigest())
    if not path.is_dir():
        raise click.BadParameter(f"{value!r} is neither 64 hex digits nor a bundle's folder or bundle.json")
    try:
        manifest, digest = read_bundle(path)
    except BundleError as exc:
        raise click.ClickException(str(exc)) from exc  # exit code 1, as for any altered part
    return Expected(digest, manifest["files"]["prompts.json"])


def verdict(
    answers: str, configuration: Mapping[str, Any], sidecar: Mapping[str, Any], expected: Expected | None
) -> dict[str, Any]:
    """Digests by where they were found, as JSON types, and whether all agree.

    Args:
        answers: digest that came with an answer.
        configuration: ``digest`` and ``prompts_digest`` that the server states.
        sidecar: its report; ``bundle_digest`` is missing where it does not answer.
    """
    found = {
        "answers": answers,
        "configuration": configuration["digest"],
        "saliency": sidecar.get("bundle_digest"),
        "expected": expected.digest if expected else None,
    }
    seen = {place: digest for place, digest in found.items() if digest}
    prompts = {configuration["prompts_digest"], expected.prompts_digest if expected else None} - {None}
    return {**found, "ok": len(set(seen.values())) == 1 and len(prompts) <= 1}


def readable(verdict: Mapping[str, Any]) -> str:
    """One line: what agrees, or each digest."""
    found = {place: digest for place, digest in verdict.items() if place != "ok" and digest}
    if verdict["ok"]:
        return click.style(f"verified  the same bundle in {', '.join(found)}", fg="green")
    told = ", ".join(f"{place} {digest[:12]}" for place, digest in found.items())
    if len(set(found.values())) == 1:
        told = "the configuration states other prompts than the bundle has"
    return click.style(f"MISMATCH  {told}", fg="red", bold=True)
