"""derma-export: turn a bundle into a model version that Triton serves.

    derma-export training/bundles/derma-mini
    derma-export BUNDLE --precision bf16 --data ISIC2018_FOLDER
    derma-export --architecture biomedclip --random-weights --precision int8
    derma-export --check                # are the versions of the repository what was exported?

Merges the LoRA adapter, embeds the definitions, exports one ONNX graph, lowers it to the
precision, compares it with PyTorch, and only then writes the next version. Where the gate
rejects a lowered graph, the layers that suffer most are kept as they were and it is tried again.
Exit code 1: the bundle, its signature or the gate failed, and the repository is as it was.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from derma_semantics.commands.terminal import Exit, help_text, require_extra
from derma_semantics.domain.contract import NETWORK
from derma_semantics.domain.errors import DermaError
from derma_serving.repository import check as check_repository
from derma_serving.runtime.integrity import Tampered
from derma_serving.runtime.precisions import DEFAULT, NAMES, PRECISIONS, by_name
from derma_serving.settings import Settings
from derma_serving.version_store import is_there
from derma_training.bundle import Bundle, BundleError
from derma_training.bundle.signing import require_signature

if TYPE_CHECKING:
    from derma_export.exporter import Task


@click.command(help=help_text(__doc__))
@click.argument(
    "folder",
    metavar="[BUNDLE]",
    required=False,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@click.option(
    "--repository",
    type=click.Path(file_okay=False, path_type=Path),
    default=Settings.repository,
    show_default=".run/models",
    help="Model repository to write; its configurations are made from model_repository each time.",
)
@click.option(
    "--precision",
    type=click.Choice(NAMES),
    default=DEFAULT,
    show_default=True,
    help=f"For GPUs: {', '.join(p.name for p in PRECISIONS if p.gpu)}; the others for processors.",
)
@click.option(
    "--data",
    metavar="PATH",
    help="The data set that the bundle was trained on: the gate then compares balanced accuracy and "
    "melanomas found too, on validation and calibration images; int8 takes its ranges from training images.",
)
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Photographs for the gate instead, without labels. By default, drawn pictures.",
)
@click.option(
    "--architecture",
    type=click.Choice(["biomedclip"]),
    help="Instead of BUNDLE: the full 195.9 M-parameter model, for speed and parity only.",
)
@click.option("--random-weights", is_flag=True, help="With --architecture: seeded random weights.")
@click.option("--seed", default=0, show_default=True, help="Of the random weights.")
@click.option(
    "--require-signature",
    "public_key",
    metavar="PUBLIC_KEY",
    envvar="DERMA_SIGNATURE_KEY",
    help="Refuse a bundle that this key did not sign (`derma-train sign`): a file of minisign's, or the "
    "key itself.  [env: DERMA_SIGNATURE_KEY]",
)
@click.option(
    "--check", is_flag=True, help="Only check the repository's versions; exit code 1 if one was altered."
)
@click.option("--load", metavar="HOST:PORT", help="Have a running server load the new version (gRPC).")
@click.option("--if-needed", is_flag=True, help="Do nothing if the newest version holds this bundle.")
@click.option(
    "--keep",
    "kept",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    help="Also write the graph without the weights that BUNDLE holds: who has both need not export.",
)
def main(
    folder: Path | None,
    repository: Path,
    precision: str,
    data: str | None,
    images: Path | None,
    architecture: str | None,
    random_weights: bool,
    seed: int,
    public_key: str | None,
    check: bool,
    load: str | None,
    if_needed: bool,
    kept: Path | None,
) -> None:
    logging.getLogger().setLevel(logging.ERROR)
    require_extra("export", "onnx", "onnxruntime", "torch")
    from derma_export.facts import statement

    if check:
        _check(repository)
        return
    if (folder is None) == (architecture is None):
        raise click.UsageError("name a BUNDLE, or --architecture biomedclip --random-weights")
    if architecture and not random_weights:
        raise click.UsageError(
            "--architecture needs --random-weights; for real ones: derma-train fetch-base, then fit"
        )
    try:
        bundle = Bundle.open(folder) if folder else _random(seed)
        if public_key:
            click.echo(f"signed {bundle.name}: {require_signature(bundle, public_key)}")
        labelled = bool(data) and not bundle.random_weights
        wanted = statement(bundle, precision)
        if not (if_needed and is_there(repository, wanted, labelled=labelled, say=click.echo, warn=_warn)):
            version = _export(bundle, repository, precision, data, images)
            click.echo(f"wrote version {version} to {repository.resolve()}")
            if kept:
                _keep(repository / NETWORK.name / str(version), bundle, kept)
    except (BundleError, DermaError, OSError, RuntimeError, ValueError) as exc:
        click.echo(f"error: {exc}", err=True)
        sys.exit(Exit.FAILED)
    if load:
        _load(load)


def _check(repository: Path) -> None:
    try:
        found = check_repository(repository)
    except (Tampered, OSError, ValueError) as exc:
        click.echo(f"error: {exc}", err=True)
        sys.exit(Exit.FAILED)
    for version, manifest in found.items():
        click.echo(
            f"version {version} is what was exported: {manifest['bundle_name']} {manifest['bundle_digest']}"
        )
    click.echo(f"{repository.resolve()} holds {len(found)} versions")


def _warn(text: str) -> None:
    click.secho(f"warning: {text}", fg="yellow", err=True)


def _random(seed: int) -> Bundle:
    from derma_training.network.random_weights import biomedclip

    bundle = biomedclip(Path("training/bundles") / f"biomedclip-random-{seed}", seed=seed)
    click.secho(f"{bundle.name}: its answers mean nothing", fg="red", err=True)
    return bundle


def _export(bundle: Bundle, repository: Path, precision: str, data: str | None, images: Path | None) -> int:
    # Imported here so that --help and --if-needed answer at once.
    from derma_export.exporter import export_bundle

    click.echo(f"bundle {bundle.name} ({bundle.digest[:12]})")
    return export_bundle(bundle, repository, make_task(bundle, precision, data, images), say=click.echo)


def make_task(bundle: Bundle, precision: str, data: str | None, images: Path | None) -> Task:
    """The gate's images: photographs of a folder, the bundle's own held-out ones, or drawn ones."""
    from derma_export.exporter import Task
    from derma_export.samples import calibration_pixels, folder_samples, labelled_samples, synthetic_samples
    from derma_training.bundle.split import bundle_parts
    from derma_training.data import read

    if data and images:
        raise ValueError("--images has no labels: choose it or --data")
    parts = bundle_parts(bundle, read(data)) if data and not bundle.random_weights else None
    calibrated = by_name(precision).calibrated
    if calibrated and parts is None and not bundle.random_weights:
        raise ValueError(f"{precision} takes its ranges from training images: name the data set with --data")
    ranges = calibration_pixels(parts) if parts and calibrated else None
    if images:
        return Task(folder_samples(images), precision)
    samples = labelled_samples(parts) if parts else synthetic_samples()
    return Task(samples, precision, ranges)


def _keep(version: Path, bundle: Bundle, folder: Path) -> None:
    from derma_export.kept import keep

    size = keep(version, bundle.path, folder)
    click.echo(f"kept {size / 1e6:.1f} MB in {folder}, which with {bundle.path} give the same graph")


def _load(url: str) -> None:
    from derma_semantics.wire.transport import ModelControl

    try:
        ModelControl(url).load(NETWORK.name)
    except DermaError as exc:
        click.echo(f"error: {exc}", err=True)
        sys.exit(Exit.UNAVAILABLE)
    click.echo(f"{url} serves it")
