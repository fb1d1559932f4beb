"""derma-rollout: have a running service serve a new version, and return to an old one.

    derma-rollout start BUNDLE --precision bf16       # gate, export, load, compare, serve
    derma-rollout start BUNDLE --canary 20            # serve it to 20 % of the images only
    derma-rollout promote                             # the canary to all, or
    derma-rollout abort                               # to none
    derma-rollout back                                # the version before; --version 3: any that is kept
    derma-rollout list                                # which versions there are, and which serves

No request fails meanwhile. Exit code 1: the step failed, and what served before serves. The service
must serve this --repository; where it asks for the admin key, DERMA_ADMIN_KEY_FILE names it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from derma_semantics.commands.terminal import Exit, help_text, require_extra
from derma_semantics.domain.contract import CANDIDATE
from derma_semantics.domain.errors import DermaError, ServiceUnavailable
from derma_semantics.wire.defaults import DEFAULT_URL
from derma_serving.runtime.precisions import DEFAULT, NAMES
from derma_serving.settings import Settings

if TYPE_CHECKING:
    from derma_export.rollout.flow import Rollout

REPOSITORY = click.option(
    "--repository",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Settings.repository,
    show_default=".run/models",
    help="What the service serves.",
)
URL = click.option(
    "--url", metavar="HOST:PORT", default=DEFAULT_URL, show_default=True, envvar="DERMA_URL", help="Its gRPC."
)


@click.group(help=help_text(__doc__))
def main() -> None:
    logging.getLogger().setLevel(logging.ERROR)


@main.command()
@click.argument("folder", metavar="BUNDLE", type=click.Path(exists=True, file_okay=False, path_type=Path))
@REPOSITORY
@URL
@click.option("--precision", type=click.Choice(NAMES), default=DEFAULT, show_default=True)
@click.option("--data", metavar="PATH", help="For the gate, as in derma-export.")
@click.option(
    "--canary",
    type=click.FloatRange(0, 100, min_open=True, max_open=True),
    help="Percent of the images that the new version answers, until `promote` or `abort`.",
)
@click.option("--require-signature", "public_key", metavar="PUBLIC_KEY", envvar="DERMA_SIGNATURE_KEY")
def start(
    folder: Path,
    repository: Path,
    url: str,
    precision: Any,
    data: str | None,
    canary: float | None,
    public_key: str | None,
) -> None:
    """Roll BUNDLE out: gate, export, load, compare, serve."""
    require_extra("export", "onnx", "onnxruntime", "torch")
    from derma_training.bundle import Bundle
    from derma_training.bundle.signing import require_signature

    with _steps(repository, url) as rollout:
        bundle = Bundle.open(folder)
        if public_key:
            click.echo(f"signed {bundle.name}: {require_signature(bundle, public_key)}")
        from derma_export.cli import make_task
        from derma_export.exporter import export_bundle  # slow to import: PyTorch
        from derma_export.rollout.trial import Trial
        from derma_serving.repository import engine_of

        def make() -> int:
            task = make_task(bundle, precision, data, None)
            return export_bundle(bundle, repository, task, say=click.echo, into=CANDIDATE)

        rollout.start(make, lambda version: Trial(version, engine_of(precision)), canary)


@main.command()
@REPOSITORY
@URL
def promote(repository: Path, url: str) -> None:
    """Have the canary answer everything."""
    with _steps(repository, url) as rollout:
        rollout.promote()


@main.command()
@REPOSITORY
@URL
def abort(repository: Path, url: str) -> None:
    """End the canary; the version before answers everything."""
    with _steps(repository, url) as rollout:
        rollout.abort()


@main.command()
@REPOSITORY
@URL
@click.option("--version", type=int, help="Which; default: the one before. Withdrawn ones can return.")
@click.option("--offline", is_flag=True, help="No service runs: its next start serves that version.")
def back(repository: Path, url: str, version: int | None, offline: bool) -> None:
    """Return to an older version. During a canary without --version: abort it."""
    with _steps(repository, url) as rollout:
        (rollout.lay_back if offline else rollout.back)(version)


@main.command("list")
@REPOSITORY
def list_(repository: Path) -> None:
    """List the repository's versions and which serves."""
    from derma_export.rollout.flow import listed

    for line in listed(repository) or [f"{repository} holds no version"]:
        click.echo(line)


@contextmanager
def _steps(repository: Path, url: str) -> Iterator[Rollout]:
    # Imported here so that --help answers at once.
    from derma_export.rollout.flow import Rollout, RolloutFailed
    from derma_semantics import DermaClient
    from derma_semantics.domain.integrity import BundleError
    from derma_semantics.wire.transport import ModelControl
    from derma_serving.runtime.integrity import Tampered

    control = ModelControl(url)
    try:
        with DermaClient(url) as client:
            yield Rollout(repository, control, client, say=click.echo)
    except ServiceUnavailable as exc:
        _end(exc, Exit.UNAVAILABLE)
    except (RolloutFailed, Tampered, BundleError, DermaError, OSError, RuntimeError, ValueError) as exc:
        _end(exc, Exit.FAILED)
    finally:
        control.close()


def _end(exc: Exception, code: Exit) -> None:
    click.echo(f"error: {exc}", err=True)
    sys.exit(code)
