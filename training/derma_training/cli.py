"""derma-train: train, inspect and measure the models that are served.

    derma-train fit training/configs/derma-mini.toml --data ISIC2018 --start vit_tiny.safetensors --out mine
    derma-train prompts mine --data ISIC2018
    derma-train evaluate training/bundles/derma-mini --data ISIC2018
    derma-train compare training/bundles/derma-mini mine
    derma-train calibrate training/bundles/derma-mini --data ISIC2018 --sensitivity 0.9
    derma-train quality training/bundles/derma-mini --data ISIC2018
    derma-train judge-quality training/bundles/derma-mini --data ISIC2018 --others PHOTOGRAPHS --out report
    derma-train info training/bundles/derma-mini
    derma-train data ISIC2018 HAM10000 marmal88/skin_cancer
    derma-train fetch-base biomedclip
    derma-train keygen derma.key
    derma-train sign training/bundles/derma-mini --key derma.key

Each command has a --help of its own.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import click

from derma_semantics.commands.terminal import help_text
from derma_training.calibration.targets import Targets
from derma_training.options import FOLDER, SOURCES, counted, read, reported, target


@click.group(help=help_text(__doc__))
def main() -> None:
    logging.getLogger().setLevel(logging.ERROR)
    if find_spec("open_clip") is None:
        raise click.ClickException("this command needs more packages: pip install 'derma-semantics[train]'")


@main.command()
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


@main.command()
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


@main.command()
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


@main.command()
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


@main.command()
@click.argument("folder", metavar="BUNDLE", type=FOLDER)
@SOURCES
@target("sensitivity", "Of review, for melanoma and for malignancy.")
@target("specificity", "Of urgent: the share of benign lesions that are not urgent.")
@target("coverage", "Share of prediction sets that hold the true condition.")
@target("confidence", "With which sensitivity and specificity hold on new images.")
@click.option("--all", "everything", is_flag=True, help="Use every image of data that training never saw.")
@click.option(
    "--prevalence",
    callback=counted,
    metavar="MEL=40,NV=900,...",
    help="How frequent the seven are where the bundle will answer, for RISK: shares or counts, of other "
    "lesions than these images. By default as the bundle has it.",
)
def calibrate(
    folder: Path,
    data: tuple[str, ...],
    everything: bool,
    prevalence: Sequence[float] | None,
    **shares: float,
) -> None:
    """Choose triage thresholds and prediction sets anew, and seal the bundle with them.

    Without --all, on the images that the bundle kept aside for calibration.

    RISK is the probability of a malignant or pre-malignant lesion at the bundle's prevalence, which stays
    as it is unless --prevalence gives another. Where it has none, as bundles of older code, its training
    lesions in --data are counted; with --all nothing is, and all conditions stay equally frequent. What is
    printed and calibration.json say which it is, and from where.
    """
    from derma_training.bundle import Bundle
    from derma_training.bundle.split import part_of
    from derma_training.calibration.recalibrate import everything_of, missing_prevalence, recalibrate
    from derma_training.calibration.report import readable
    from derma_training.calibration.scaling import BY_HAND

    with reported():
        targets, old = Targets(**shares), Bundle.open(folder)
        images, source = read(data), BY_HAND
        if everything:
            examples, name = everything_of(images, old), "every image of the data given"
        else:
            examples, name = part_of(old, images, "calibration"), "the bundle's calibration part"
            if prevalence is None:
                prevalence, source = missing_prevalence(old, images)
        bundle = recalibrate(
            old, examples, name=name, prevalence=prevalence, prevalence_from=source, targets=targets
        )
        click.echo(readable(bundle.calibration))
        click.echo(
            f"bundle {bundle.name} is now {bundle.digest[:12]}, was {old.digest[:12]}: export it again"
        )


@main.command()
@click.argument("folder", metavar="BUNDLE", type=FOLDER)
@SOURCES
@click.option(
    "--photographs",
    type=FOLDER,
    help="A folder of your own, e.g. of another camera: every second picture of it makes the check know it.",
)
def quality(folder: Path, data: tuple[str, ...], photographs: Path | None) -> None:
    """Choose the limits of the input check, and seal the bundle with them.

    From the images that trained the bundle, and those it held out for validation and calibration, with
    half of the part "other" where --data has it; or from your own --photographs, sound ones without
    labels, of which the other half is then measured.
    """
    from derma_training.bundle import Bundle
    from derma_training.bundle.split import bundle_parts
    from derma_training.quality.fit import with_quality
    from derma_training.quality.photographs import decoded, halves
    from derma_training.quality.report import alarms

    with reported():
        old = Bundle.open(folder)
        own, others = map(decoded, halves(photographs)) if photographs else (None, None)
        bundle = with_quality(old, bundle_parts(old, read(data)), own)
        found = bundle.quality
        assert found is not None
        for name, limit in found.limits.items():
            click.echo(f"{name:12} {limit:.4g}")
        share, images = found.report["noticed"], found.report["held_out_images"]
        click.echo(f"noticed on {share:.1%} of the {images} images that chose these limits")
        if others is not None:
            click.echo(f"noticed on {alarms(bundle, others):.1%} of {len(others)} others of {photographs}")
        click.echo(
            f"bundle {bundle.name} is now {bundle.digest[:12]}, was {old.digest[:12]}: export it again"
        )


@main.command("judge-quality")
@click.argument("folder", metavar="BUNDLE", type=FOLDER)
@SOURCES
@click.option("--others", type=FOLDER, multiple=True, help="Pictures of something else. May be repeated.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Also write quality.json and quality.md into this folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print every figure as JSON.")
def judge_quality(
    folder: Path, data: tuple[str, ...], others: tuple[Path, ...], out: Path | None, as_json: bool
) -> None:
    """Measure the input check: alarms on the test part, and what it notices of other pictures.

    Alarms on lesions of other collections are measured where --data has the bundle's part "other",
    on that half of it that chose no limit.
    Of each folder of --others every second picture counts, from the second on by name; the rest may
    have served to choose what is measured.
    """
    from derma_training.bundle import Bundle
    from derma_training.bundle.split import bundle_parts
    from derma_training.quality.fit import halved
    from derma_training.quality.report import report, table

    with reported():
        bundle = Bundle.open(folder)
        parts = bundle_parts(bundle, read(data))
        found = report(bundle, parts.test, others, elsewhere=halved(parts.other)[1])
        if out:
            out.mkdir(parents=True, exist_ok=True)
            (out / "quality.json").write_text(json.dumps(found, indent=2) + "\n")
            (out / "quality.md").write_text(table(found))
        click.echo(json.dumps(found, indent=2) if as_json else table(found))


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
        click.echo(f"LoRA   {count_parameters(add_lora(model, r=rank, alpha=alpha, text=text))}")


@main.command("data")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option(
    "--max-nevi", type=click.IntRange(1), default=1500, show_default=True, help="Of the down-sampling."
)
@click.option("--seed", default=0, show_default=True, help="Of the split and of the down-sampling.")
@click.option("--json", "as_json", is_flag=True, help="Print every figure and name as JSON.")
def audit_data(sources: tuple[str, ...], max_nevi: int, seed: int, as_json: bool) -> None:
    """Count a data set's conditions, duplicates and overlaps, and show its split by lesion.

    SOURCE is a folder (ISIC 2017, 2018 or 2019, HAM10000, hub parquet files, or one folder a class)
    or a name on the Hugging Face hub, such as marmal88/skin_cancer. Several become one table.
    """
    from derma_training.data import audit, summary

    with reported():
        report = audit(*sources, most_nevi=max_nevi, seed=seed)
        click.echo(json.dumps(asdict(report), indent=2) if as_json else summary(report))


@main.command("fetch-base")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--endpoint", envvar="HF_ENDPOINT", help="A mirror of the hub.  [env: HF_ENDPOINT]")
def fetch_base(folder: Path, endpoint: str | None) -> None:
    """Download BiomedCLIP (784 MB) into FOLDER and check its sha256."""
    from derma_training.network.fetch import fetch_base as fetch

    with reported():
        fetch(folder, endpoint=endpoint)
        click.echo(f"BiomedCLIP is in {folder}")


@main.command()
@click.argument("key", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--no-password", is_flag=True, help="Leave the secret key unencrypted, for machines.")
def keygen(key: Path, no_password: bool) -> None:
    """Make a pair of keys, to sign bundles: KEY, which is secret, and KEY.pub.

    Both are minisign's. The password is asked for, or taken from DERMA_KEY_PASSWORD.
    """
    from derma_training.bundle.signing import make_key

    with reported():
        public = make_key(key, None if no_password else _password(key, new=True))
        click.echo(f"keep {key} secret; give {public} to those who export bundles")


@main.command()
@click.argument("folder", metavar="BUNDLE", type=FOLDER)
@click.option(
    "--key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="Secret key, from `derma-train keygen` or `minisign -G`.",
)
def sign(folder: Path, key: Path) -> None:
    """Sign a bundle, so that `derma-export --require-signature` accepts it.

    An encrypted key's password is asked for, or taken from DERMA_KEY_PASSWORD.
    """
    from derma_training.bundle import Bundle
    from derma_training.bundle.signing import is_encrypted
    from derma_training.bundle.signing import sign as sign_bundle

    with reported():
        bundle = Bundle.open(folder)
        signature = sign_bundle(bundle, key, _password(key) if is_encrypted(key) else None)
        click.echo(f"signed bundle {bundle.name} ({bundle.digest[:12]}): {signature}")


def _password(key: Path, *, new: bool = False) -> str:
    """From the environment, else from the terminal; never from the command line, which all can read."""
    given = os.environ.get("DERMA_KEY_PASSWORD")
    return given or str(
        click.prompt(f"Password of {key}", hide_input=True, confirmation_prompt=new, err=True)
    )
