"""derma-train quality, judge-quality: the input check."""

from __future__ import annotations

import json
from pathlib import Path

import click

from derma_training.commands.options import FOLDER, SOURCES, read, reported


@click.command()
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


@click.command("judge-quality")
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
