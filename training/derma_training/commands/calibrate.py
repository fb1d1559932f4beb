"""derma-train calibrate: thresholds and prediction sets anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from derma_training.calibration.targets import Targets
from derma_training.commands.options import FOLDER, SOURCES, counted, read, reported, target


@click.command()
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
    as it is unless --prevalence gives another. What is printed and calibration.json say which it is, and
    from where.
    """
    from derma_training.bundle import Bundle
    from derma_training.bundle.split import part_of
    from derma_training.calibration.recalibrate import everything_of, recalibrate
    from derma_training.calibration.report import readable

    with reported():
        targets, old = Targets(**shares), Bundle.open(folder)
        images = read(data)
        if everything:
            examples, name = everything_of(images, old), "every image of the data given"
        else:
            examples, name = part_of(old, images, "calibration"), "the bundle's calibration part"
        bundle = recalibrate(old, examples, name=name, prevalence=prevalence, targets=targets)
        click.echo(readable(bundle.calibration))
        click.echo(
            f"bundle {bundle.name} is now {bundle.digest[:12]}, was {old.digest[:12]}: export it again"
        )
