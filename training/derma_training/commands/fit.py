"""derma-train fit, fetch-base: from data to a bundle."""

from __future__ import annotations

import json
from pathlib import Path

import click

from derma_training.commands.options import SOURCES, read, reported


@click.command()
@click.argument("configuration", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@SOURCES
@click.option(
    "--start",
    type=click.Path(exists=True, path_type=Path),
    required=True,
    envvar="VIT_TINY",
    help="What to start from: timm's vit_tiny_patch16_224 as safetensors, or a bundle whose image tower "
    "goes on (base mini); the folder that fetch-base filled (base biomedclip).  [env: VIT_TINY]",
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="The bundle's folder."
)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a setting for this run.")
@click.option("--trial", is_flag=True, help="Only train; the last line is the validation figure. No bundle.")
def fit(
    configuration: Path,
    data: tuple[str, ...],
    start: Path,
    out: Path,
    changes: tuple[str, ...],
    trial: bool,
) -> None:
    """Train a model, calibrate and measure it, and write a bundle.

    CONFIGURATION is a TOML file such as training/configs/derma-mini.toml; --set phases.0.epochs=2
    changes one of its settings. Killed and called again, it goes on at its last checkpoint, and the
    result is the same. Loss curves, TensorBoard logs and the configuration are in <out>.run.

    Several GPUs: torchrun --nproc-per-node 4 -m derma_training fit ... (several machines must share
    --out).
    """
    from derma_training.evaluate import summary
    from derma_training.learning.config import load
    from derma_training.learning.recipe import Place, make_bundle, split, train_weights

    with reported():
        config, place = load(configuration, changes), Place(start, out)
        examples = read(data)
        if trial:
            train_weights(config, split(examples, config, start), place, say=click.echo)
            return
        if bundle := make_bundle(config, examples, place, say=click.echo):
            click.echo(summary(json.loads((bundle.path / "metrics.json").read_text())))
            click.echo(f"bundle {bundle.name} ({bundle.digest[:12]}) in {out}")


@click.command("fetch-base")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--endpoint", envvar="HF_ENDPOINT", help="A mirror of the hub.  [env: HF_ENDPOINT]")
def fetch_base(folder: Path, endpoint: str | None) -> None:
    """Download BiomedCLIP (784 MB) into FOLDER and check its sha256."""
    from derma_training.network.fetch import fetch_base as fetch

    with reported():
        fetch(folder, endpoint=endpoint)
        click.echo(f"BiomedCLIP is in {folder}")
