"""derma-train: train, inspect and measure the models that are served.

    derma-train fit --data ISIC2018 --start vit_tiny_patch16_224.safetensors --out my-bundle
    derma-train evaluate training/bundles/derma-mini --data ISIC2018
    derma-train info training/bundles/derma-mini
    derma-train fetch-base biomedclip

Each command has a --help of its own.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import click

from derma_semantics.terminal import help_text

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
DATA = click.option(
    "--data",
    type=FOLDER,
    required=True,
    envvar="ISIC2018_DIR",
    help="Folder in the official ISIC 2018 Task 3 layout, with a lesion table.  [env: ISIC2018_DIR]",
)


@click.group(help=help_text(__doc__))
def main() -> None:
    logging.getLogger().setLevel(logging.ERROR)
    if find_spec("open_clip") is None:
        raise click.ClickException("this command needs more packages: pip install 'derma-semantics[train]'")


@main.command()
@DATA
@click.option(
    "--start",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    envvar="VIT_TINY",
    help="timm weights of vit_tiny_patch16_224, safetensors.  [env: VIT_TINY]",
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="The bundle's folder."
)
@click.option("--seed", default=0, show_default=True, help="Of the split and of training.")
def fit(data: Path, start: Path, out: Path, seed: int) -> None:
    """Train the small model, calibrate and measure it, and write a bundle.

    Called again after an interruption, it continues from the last finished epoch.
    """
    from derma_training.evaluate import summary
    from derma_training.recipe import make_mini

    with _reported():
        bundle = make_mini(data, start, out, seed=seed)
        click.echo(summary(json.loads((bundle.path / "metrics.json").read_text())))
        click.echo(f"bundle {bundle.name} ({bundle.digest[:12]}) in {out}")


@main.command()
@click.argument("folder", metavar="BUNDLE", type=FOLDER)
@DATA
@click.option("--json", "as_json", is_flag=True, help="Print every figure as JSON.")
def evaluate(folder: Path, data: Path, as_json: bool) -> None:
    """Measure a bundle on the lesions that its training never saw."""
    from derma_training.bundle import Bundle
    from derma_training.data import pick, read_isic2018
    from derma_training.evaluate import evaluate as measure_bundle
    from derma_training.evaluate import summary

    with _reported():
        bundle = Bundle.open(folder)
        held_out = json.loads((bundle.path / "split.json").read_text())["test"]
        report = measure_bundle(bundle, pick(read_isic2018(data), held_out))
        click.echo(json.dumps(report, indent=2) if as_json else summary(report))


@main.command()
@click.argument("folder", metavar="BUNDLE", type=FOLDER)
@click.option("--rank", default=32, show_default=True, help="LoRA's rank.")
@click.option("--alpha", default=64, show_default=True, help="LoRA's alpha.")
@click.option("--text", is_flag=True, help="Adapt the text tower as well.")
@click.option(
    "--checkpoint",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A .pt to load; prints the keys that do not match.",
)
def info(folder: Path, rank: int, alpha: int, text: bool, checkpoint: Path | None) -> None:
    """Count the parameters of a model and those that LoRA would train.

    BUNDLE may also be a folder with BiomedCLIP's configuration and no weights.
    """
    from derma_training.model import add_lora, build_model, count_parameters, load_checkpoint

    with _reported():
        model = build_model(folder, weights=False)
        if checkpoint:
            model, report = load_checkpoint(model, checkpoint)
            click.echo(f"{checkpoint}: {len(report.missing)} missing, {len(report.unexpected)} unexpected")
            for kind, names in (("missing", report.missing), ("unexpected", report.unexpected)):
                for name in names:
                    click.echo(f"  {kind} {name}")
        click.echo(f"model  {count_parameters(model).total:,} parameters")
        click.echo(f"LoRA   {count_parameters(add_lora(model, r=rank, alpha=alpha, text=text))}")


@main.command("fetch-base")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--endpoint", envvar="HF_ENDPOINT", help="A mirror of the hub.  [env: HF_ENDPOINT]")
def fetch_base(folder: Path, endpoint: str | None) -> None:
    """Download BiomedCLIP (784 MB) into FOLDER and check its sha256."""
    from derma_training.fetch import fetch_base as fetch

    with _reported():
        fetch(folder, endpoint=endpoint)
        click.echo(f"BiomedCLIP is in {folder}")


@contextmanager
def _reported() -> Iterator[None]:
    """Bad input and unreachable hosts end in one line, not in a traceback."""
    try:
        yield
    except (ValueError, OSError) as exc:
        click.echo(f"error: {exc}", err=True)
        sys.exit(1)
