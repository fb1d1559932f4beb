"""derma-export: turn a bundle into a model version that Triton serves.

    derma-export training/bundles/derma-mini --repository model_repository

Merges the LoRA adapter, embeds the definitions, exports one ONNX graph, compares it
with PyTorch, and only then writes the next version. Exit code 1: the bundle or the
gate failed, and the repository is as it was.
"""

from __future__ import annotations

import logging
import sys
from importlib.util import find_spec
from pathlib import Path

import click

from derma_export.repository import is_newest
from derma_semantics.contract import NETWORK
from derma_semantics.errors import DermaError
from derma_semantics.terminal import help_text
from derma_semantics.transport import ModelControl
from derma_training.bundle import Bundle, BundleError


@click.command(help=help_text(__doc__))
@click.argument("folder", metavar="BUNDLE", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--repository",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("model_repository"),
    show_default=True,
    help="Model repository; created if it does not exist.",
)
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Photographs for the gate; without them, drawn ones.",
)
@click.option("--load", metavar="HOST:PORT", help="Have a running server load the new version (gRPC).")
@click.option("--if-needed", is_flag=True, help="Do nothing if the newest version holds this bundle.")
def main(folder: Path, repository: Path, images: Path | None, load: str | None, if_needed: bool) -> None:
    logging.getLogger().setLevel(logging.ERROR)
    if find_spec("onnx") is None:
        raise click.ClickException("this command needs more packages: pip install 'derma-semantics[export]'")
    try:
        bundle = Bundle.open(folder)
        if if_needed and is_newest(repository, bundle):
            click.echo(f"{repository.resolve()} holds {bundle.name} ({bundle.digest[:12]}) already")
        else:
            version = _export(bundle, repository, images)
            click.echo(f"wrote version {version} to {repository.resolve()}")
    except (BundleError, DermaError, RuntimeError, ValueError) as exc:
        click.echo(f"error: {exc}", err=True)
        sys.exit(1)
    if load:
        _load(load)


def _export(bundle: Bundle, repository: Path, images: Path | None) -> int:
    # Imported here so that --help and --if-needed answer at once.
    from derma_export.exporter import export_bundle
    from derma_export.gate import folder_samples, synthetic_samples

    click.echo(f"bundle {bundle.name} ({bundle.digest[:12]})")
    samples = folder_samples(images) if images else synthetic_samples()
    return export_bundle(bundle, repository, samples, say=click.echo)


def _load(url: str) -> None:
    try:
        ModelControl(url).load(NETWORK.name)
    except DermaError as exc:
        click.echo(f"error: {exc}", err=True)
        sys.exit(3)
    click.echo(f"{url} serves it")
