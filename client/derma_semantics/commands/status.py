"""``derma status``: what is served, and whether it is ready."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

import click
from click.core import ParameterSource

from derma_semantics.commands.options import JSON, Service, connected
from derma_semantics.commands.printing import SERVICE_HINT, SIDECAR_HINT, weights
from derma_semantics.commands.terminal import Exit
from derma_semantics.commands.verify import Expected, expected_bundle, verdict
from derma_semantics.commands.verify import readable as readable_verdict
from derma_semantics.domain.contract import CLASSIFIER
from derma_semantics.domain.errors import AccessDenied, DermaError
from derma_semantics.saliency import HttpSaliency
from derma_semantics.wire.transport import ModelControl

PATIENCE = 5.0


@click.command()
@click.option("--saliency", "needs_sidecar", is_flag=True, help="Fail unless a sidecar is ready.")
@click.option("--verify", is_flag=True, help="Check that every part names the same bundle.")
@click.option(
    "--expect",
    metavar="BUNDLE",
    callback=expected_bundle,
    help="And that it is this one: 64 hex digits, a bundle's folder (whose files are checked) or its "
    "bundle.json. Implies --verify.",
)
@connected
@JSON
def status(
    service: Service, needs_sidecar: bool, verify: bool, expect: Expected | None, as_json: bool
) -> None:
    """Say what is served, and whether it is ready.

    With several addresses in --url, each is asked. Exit code 3 means that a part is unwell: a server,
    a model of its, or the saliency sidecar. Where that has not been named, by --saliency-url or
    DERMA_SALIENCY_URL, and none answers at the usual address, there is none to be unwell. With
    --verify each server answers one drawn picture, and exit code 1 means that the parts name
    different bundles, as they also do for a moment while a new version is loaded.
    """
    sidecar = _sidecar(service)
    services = [
        dataclasses.replace(service, url=url) for url in map(str.strip, service.url.split(",")) if url
    ]
    reports = [_status(one) for one in services]
    if verify or expect:
        for one, report in zip(services, reports, strict=True):
            _verify(one, report, sidecar, expect)
    for report in reports:
        click.echo(json.dumps({**report, "saliency": sidecar}) if as_json else _readable(report))
    if not as_json:
        click.echo(_readable_sidecar(sidecar))
    if any(not report["verified"]["ok"] for report in reports if "verified" in report):
        sys.exit(Exit.FAILED)
    if not all(report["ready"] for report in reports):
        click.echo(SERVICE_HINT, err=True)
        sys.exit(Exit.UNAVAILABLE)
    if not sidecar["ready"] and (needs_sidecar or sidecar.get("configured", True)):
        click.echo(SIDECAR_HINT, err=True)
        sys.exit(Exit.UNAVAILABLE)


def _status(service: Service) -> dict[str, Any]:
    """What one server says of itself, or that it does not answer."""
    report: dict[str, Any] = {
        "url": service.url,
        "server": None,
        "ready": False,
        "bundle": None,
        "models": None,
        "audit_log": None,
    }
    try:
        with service.client() as client:
            report |= _models(service)
            report["ready"] = client.ready(timeout=_patience(service)) and not _missing(report)
            report["bundle"] = vars(client.bundle()) if report["ready"] else None
    except DermaError as exc:
        return report | {"ready": False, "message": str(exc)}
    return report


def _verify(
    service: Service, report: dict[str, Any], sidecar: dict[str, Any], expected: Expected | None
) -> None:
    """Add ``verified`` to the report of a server that is ready."""
    from derma_semantics.imaging.synthetic import draw

    if not report["ready"]:
        return
    try:
        with service.client() as client:
            answers = client.classify(draw(0).image).bundle.digest
    except DermaError as exc:
        report |= {"ready": False, "message": str(exc)}
    else:
        report["verified"] = verdict(answers, report["bundle"], sidecar, expected)


def _models(service: Service) -> dict[str, Any]:
    control = ModelControl(service.url, timeout=_patience(service), tls=service.tls, token=service.token)
    try:
        server = control.server()
        models, (steps, audited) = _index(control), _steps(control)
    finally:
        control.close()
    return {
        "server": f"{server['name']} {server['version']}",
        "models": models,
        "audit_log": audited,
        "needed": [CLASSIFIER.name, *steps],
    }


def _steps(control: ModelControl) -> tuple[list[str], bool | None]:
    """The models that the public one needs, and whether a log is kept; nothing where it cannot say."""
    try:
        return control.steps()
    except DermaError:
        return [], None


def _missing(report: dict[str, Any]) -> list[str]:
    """Models that should serve and do not, as far as the server lists its models."""
    if report["models"] is None:
        return []
    ready = {row["name"] for row in report["models"] if row["state"] == "READY"}
    return [name for name in report["needed"] if name not in ready]


def _index(control: ModelControl) -> list[dict[str, str]] | None:
    """The models, where the admin key is at hand: only operators may list them."""
    try:
        return sorted(control.index(), key=lambda row: (row["name"], row["version"]))
    except AccessDenied:
        return None


def _sidecar(service: Service) -> dict[str, Any]:
    """What the sidecar says of itself, or that it does not answer; ``configured``: whether it should."""
    source = click.get_current_context().get_parameter_source("saliency_url")
    about: dict[str, Any] = {"url": service.saliency_url, "ready": False}
    sidecar = HttpSaliency(service.saliency_url, service.token, service.tls)
    try:
        return about | sidecar.ready(_patience(service))
    except DermaError as exc:
        named = {} if source is not ParameterSource.DEFAULT else {"configured": False}
        return about | named | {"message": str(exc)}
    finally:
        sidecar.close()


def _patience(service: Service) -> float:
    return min(PATIENCE, service.timeout)


def _readable(report: dict[str, Any]) -> str:
    state = click.style("ready", fg="green") if report["ready"] else click.style("not ready", fg="red")
    head = (report["url"], report["server"], f"{CLASSIFIER.name} is {state}", report.get("message"))
    lines = ["  ".join(filter(None, head))]
    if missing := _missing(report):
        lines.append(click.style(f"not serving: {', '.join(missing)}", fg="red"))
    if bundle := report["bundle"]:
        lines.append(
            f"bundle  {weights(bundle['name'])}  {bundle['precision']}  version {bundle['version']}  "
            f"sha256 {bundle['digest']}"
        )
    if report["audit_log"] is not None:
        lines.append(f"audit log {'on' if report['audit_log'] else 'off'}")
    if verified := report.get("verified"):
        lines.append(readable_verdict(verified))
    for row in report["models"] or []:
        state = row["state"] or "not loaded"
        lines.append(f"  {row['name']:<18} {row['version'] or '-':>3}  {state}  {row['reason']}".rstrip())
    return "\n".join(lines)


def _readable_sidecar(sidecar: dict[str, Any]) -> str:
    if not sidecar.get("configured", True):
        return f"{sidecar['url']}  no saliency sidecar answers, and none was named"
    state = click.style("ready", fg="green") if sidecar["ready"] else click.style("not ready", fg="red")
    return f"{sidecar['url']}  saliency is {state}  {sidecar.get('message', '')}".rstrip()
