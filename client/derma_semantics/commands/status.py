"""``derma status``: what is served, and whether it is ready."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

import click

from derma_semantics.commands.options import JSON, Service, connected
from derma_semantics.commands.printing import SERVICE_HINT, SIDECAR_HINT, weights
from derma_semantics.contract import CLASSIFIER
from derma_semantics.errors import DermaError
from derma_semantics.saliency import HttpSaliency
from derma_semantics.transport import ModelControl

PATIENCE = 5.0


@click.command()
@click.option("--saliency", "needs_sidecar", is_flag=True, help="Fail unless the sidecar is ready.")
@connected
@JSON
def status(service: Service, needs_sidecar: bool, as_json: bool) -> None:
    """Say what is served, and whether it is ready.

    With several addresses in --url, each is asked. The saliency sidecar is shown too, but the
    exit code depends on it only with --saliency.
    """
    sidecar = _sidecar(service)
    urls = filter(None, map(str.strip, service.url.split(",")))
    reports = [_status(dataclasses.replace(service, url=url)) for url in urls]
    for report in reports:
        click.echo(json.dumps({**report, "saliency": sidecar}) if as_json else _readable(report))
    if not as_json:
        click.echo(_readable_sidecar(sidecar))
    if not all(report["ready"] for report in reports):
        click.echo(SERVICE_HINT, err=True)
        sys.exit(3)
    if needs_sidecar and not sidecar["ready"]:
        click.echo(SIDECAR_HINT, err=True)
        sys.exit(3)


def _status(service: Service) -> dict[str, Any]:
    """What one server says of itself, or that it does not answer."""
    report: dict[str, Any] = {
        "url": service.url,
        "server": None,
        "ready": False,
        "bundle": None,
        "models": [],
    }
    try:
        with service.client() as client:
            report |= _models(service)
            report["ready"] = client.ready(timeout=_patience(service))
            report["bundle"] = vars(client.bundle()) if report["ready"] else None
    except DermaError as exc:
        return report | {"ready": False, "message": str(exc)}
    return report


def _models(service: Service) -> dict[str, Any]:
    control = ModelControl(service.url, timeout=_patience(service), tls=service.tls, token=service.token)
    try:
        server = control.server()
        models = sorted(control.index(), key=lambda row: (row["name"], row["version"]))
    finally:
        control.close()
    return {"server": f"{server['name']} {server['version']}", "models": models}


def _sidecar(service: Service) -> dict[str, Any]:
    """What the sidecar says of itself, or that it does not answer."""
    about: dict[str, Any] = {"url": service.saliency_url, "ready": False}
    sidecar = HttpSaliency(service.saliency_url, service.token)
    try:
        return about | sidecar.ready(_patience(service))
    except DermaError as exc:
        return about | {"message": str(exc)}
    finally:
        sidecar.close()


def _patience(service: Service) -> float:
    return min(PATIENCE, service.timeout)


def _readable(report: dict[str, Any]) -> str:
    state = click.style("ready", fg="green") if report["ready"] else click.style("not ready", fg="red")
    head = (report["url"], report["server"], f"{CLASSIFIER.name} is {state}", report.get("message"))
    lines = ["  ".join(filter(None, head))]
    if bundle := report["bundle"]:
        lines.append(
            f"bundle  {weights(bundle['name'])}  {bundle['precision']}  version {bundle['version']}  "
            f"sha256 {bundle['digest']}"
        )
    for row in report["models"]:
        state = row["state"] or "not loaded"
        lines.append(f"  {row['name']:<18} {row['version'] or '-':>3}  {state}  {row['reason']}".rstrip())
    return "\n".join(lines)


def _readable_sidecar(sidecar: dict[str, Any]) -> str:
    state = click.style("ready", fg="green") if sidecar["ready"] else click.style("not ready", fg="yellow")
    return f"{sidecar['url']}  saliency is {state}  {sidecar.get('message', '')}".rstrip()
