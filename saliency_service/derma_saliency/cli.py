"""derma-saliency: saliency maps for a prompt or a condition.

    derma-saliency serve training/bundles/derma-mini --triton 127.0.0.1:8001
    derma-saliency evaluate training/bundles/derma-mini --images images/ --masks masks/ --out report/

Each command has a --help of its own. Research use. Not a medical device.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from derma_semantics import AsyncDermaClient
from derma_semantics.commands.terminal import help_text, require_extra
from derma_semantics.saliency import SIDECAR_PACKAGES
from derma_semantics.wire.connection import check_token, tls_from_environment
from derma_semantics.wire.logs import configure

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.group(help=help_text(__doc__))
@click.version_option(package_name="derma-semantics")
def main() -> None:
    try:
        configure("saliency")
    except ValueError as exc:
        raise click.ClickException(str(exc)) from exc
    require_extra("saliency", *SIDECAR_PACKAGES)


@main.command()
@click.argument("bundle", type=FOLDER)
@click.option("--triton", envvar="DERMA_URL", help="gRPC address to compare weights with.  [env: DERMA_URL]")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8003, show_default=True, type=click.IntRange(1, 65535))
@click.option(
    "--in-flight",
    default=8,
    show_default=True,
    type=click.IntRange(min=1),
    help="Requests in flight at once; one is computed, more than these get 503.",
)
@click.option(
    "--timeout",
    default=30.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds a request may take.",
)
@click.option(
    "--threads", type=click.IntRange(min=1), help="CPU threads of the network; all cores by default."
)
def serve(
    bundle: Path,
    triton: str | None,
    host: str,
    port: int,
    in_flight: int,
    timeout: float,
    threads: int | None,
) -> None:
    """Answer POST /v1/saliency until SIGTERM.

    Also: /healthz, /readyz (503 where Triton serves other weights), /metrics and /docs.

    Where DERMA_TOKEN is set, callers must send it; the first two are open. DERMA_CA, DERMA_CERT,
    DERMA_KEY and DERMA_TLS_NAME say how to speak to a Triton with TLS.
    """
    # Before PyTorch loads: on a busy machine threads that spin while they wait keep each other waiting.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from derma_saliency.app import Limits
    from derma_saliency.explainer import Explainer
    from derma_saliency.server import Address
    from derma_saliency.server import serve as run
    from derma_training.bundle import Bundle, BundleError

    try:
        token, client = _token(), _client(triton)
        explainer = Explainer.from_bundle(Bundle.open(bundle), "cpu")
        run(explainer, Address(host, port), Limits(in_flight, timeout), client, token, threads)
    except (BundleError, ValueError, OSError) as exc:
        raise click.ClickException(str(exc)) from exc


def _token() -> str | None:
    """DERMA_TOKEN: no option takes it, since everybody on a machine can read command lines."""
    token = os.environ.get("DERMA_TOKEN") or None
    if token is not None:
        check_token(token, [], encrypted=False)
    return token


def _client(triton: str | None) -> AsyncDermaClient | None:
    return AsyncDermaClient(triton, tls=tls_from_environment()) if triton else None


@main.command()
@click.argument("bundle", type=FOLDER)
@click.option("--images", type=FOLDER, required=True, help="Folder of photographs.")
@click.option("--masks", type=FOLDER, required=True, help="Folder of <image>_segmentation.png or _mask.png.")
@click.option(
    "--truth",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="ISIC 2017 Part 3 CSV: explain the true condition, not the first-ranked one.",
)
@click.option(
    "--part",
    type=click.Choice(["all", "even", "odd"]),
    default="all",
    show_default=True,
    help="Every second image by name: choose settings on one half, publish the other.",
)
@click.option("--limit", type=click.IntRange(min=1), help="At most so many images, evenly spread.")
@click.option("--perturbed", default=100, show_default=True, help="Images for deletion and insertion.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder to write."
)
def evaluate(
    bundle: Path,
    images: Path,
    masks: Path,
    truth: Path | None,
    part: str,
    limit: int | None,
    perturbed: int,
    out: Path,
) -> None:
    """Measure every method on photographs with lesion masks.

    Called again with the same --out, it goes on where it stopped.
    """
    from tqdm import tqdm

    from derma_saliency.evaluation.pairs import find_pairs
    from derma_saliency.evaluation.report import table
    from derma_saliency.evaluation.run import Amount, spread
    from derma_saliency.evaluation.run import evaluate as run
    from derma_saliency.explainer import Explainer
    from derma_semantics.domain.errors import DermaError
    from derma_training.bundle import Bundle

    try:
        pairs = find_pairs(images, masks, truth, part)
        pairs = spread(pairs, limit or len(pairs))
        explainer = Explainer.from_bundle(Bundle.open(bundle))
        with tqdm(total=len(pairs), desc="explaining", unit="image") as bar:
            report = run(explainer, pairs, out, Amount(perturbed), bar.update)
    except (DermaError, ValueError, OSError) as exc:
        raise click.ClickException(str(exc)) from exc
    click.echo(f"{table(report)}\nreport in {out}")
