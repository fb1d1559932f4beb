"""derma-train evaluate, prompts, compare, info: figures of bundles that are there."""

from __future__ import annotations

import json
from pathlib import Path

import click

from derma_training.commands.options import FOLDER, SOURCES, read, reported


@click.command()
@click.argument("folder", metavar="BUNDLE", type=FOLDER)
@SOURCES
@click.option(
    "--part",
    type=click.Choice(["test", "other", "calibration", "validation", "all"]),
    default="test",
    show_default=True,
    help="Of the bundle's split; other is of collections that it is not for, all is every image of the data.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Also write metrics, plots and the challenge's submission into this folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print every figure as JSON.")
def evaluate(folder: Path, data: tuple[str, ...], part: str, out: Path | None, as_json: bool) -> None:
    """Measure a bundle on the lesions that its training never saw."""
    from derma_training.bundle import Bundle
    from derma_training.bundle.split import part_of
    from derma_training.evaluate import evaluate as measure_bundle
    from derma_training.evaluate import summary

    with reported():
        bundle = Bundle.open(folder)
        report = measure_bundle(bundle, part_of(bundle, read(data), part), part=part, out=out)
        click.echo(json.dumps(report, indent=2) if as_json else summary(report))


@click.command()
@click.argument("folder", metavar="BUNDLE", type=FOLDER)
@SOURCES
@click.option("--heads/--no-heads", default=True, help="Compare with trained heads (minutes on a CPU).")
@click.option("--json", "as_json", is_flag=True, help="Print every figure as JSON.")
def prompts(folder: Path, data: tuple[str, ...], heads: bool, as_json: bool) -> None:
    """Measure how well texts classify: with other wordings, and against trained heads.

    Heads are trained on the bundle's training part and measured, as the texts are, on its test part.
    """
    from derma_training.bundle import Bundle
    from derma_training.bundle.split import bundle_parts
    from derma_training.prompts.report import report, summary

    with reported():
        bundle = Bundle.open(folder)
        examples = read(data)
        figures = report(bundle, bundle_parts(bundle, examples), heads=heads)
        click.echo(json.dumps(figures, indent=2) if as_json else summary(figures))


@click.command()
@click.argument("folders", type=FOLDER, nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compare(folders: tuple[Path, ...], as_json: bool) -> None:
    """Put bundles side by side, with mean and standard deviation.

    FOLDERS are bundles, e.g. those of five folds (make folds): what each measured on its own test part
    when it was made. Or they are evaluations (--out of evaluate). Nothing is measured again.
    """
    from derma_training.compare import commits_of, compare, markdown, metrics_of

    with reported():
        if len({folder.name for folder in folders}) < len(folders):
            raise ValueError("two folders have the same name, and it is the name of their column")
        table = compare({folder.name: metrics_of(folder) for folder in folders})
        click.echo(json.dumps(table, indent=2) if as_json else markdown(table))
        if len(commits := commits_of(folders)) > 1:
            click.echo(f"Code of different commits made these bundles: {', '.join(commits)}", err=True)


@click.command()
@click.argument("folder", metavar="BUNDLE", type=FOLDER)
@click.option("--rank", default=32, show_default=True, help="LoRA's rank.")
@click.option("--alpha", default=64, show_default=True, help="LoRA's alpha.")
@click.option(
    "--checkpoint",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A .pt to load; prints the keys that do not match.",
)
def info(folder: Path, rank: int, alpha: int, checkpoint: Path | None) -> None:
    """Count the parameters of a model and those that LoRA would train.

    BUNDLE may also be a folder with BiomedCLIP's configuration and no weights.
    """
    from derma_training.network.checkpoint import load_checkpoint
    from derma_training.network.lora import add_lora
    from derma_training.network.model import build_model, count_parameters

    with reported():
        model = build_model(folder, weights=False)
        if checkpoint:
            model, report = load_checkpoint(model, checkpoint)
            click.echo(f"{checkpoint}: {len(report.missing)} missing, {len(report.unexpected)} unexpected")
            for kind, names in (("missing", report.missing), ("unexpected", report.unexpected)):
                for name in names:
                    click.echo(f"  {kind} {name}")
        click.echo(f"model  {count_parameters(model).total:,} parameters")
        click.echo(f"LoRA   {count_parameters(add_lora(model, r=rank, alpha=alpha))}")
