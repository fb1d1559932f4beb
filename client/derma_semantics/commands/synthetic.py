"""``derma synthetic``: drawn pictures for demos and tests."""

from __future__ import annotations

from pathlib import Path

import click

from derma_semantics.imaging.synthetic import draw


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--count", default=6, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Seed of the first picture.")
@click.option("--masks", is_flag=True, help="Write the lesions' masks beside the pictures.")
def synthetic(folder: Path, count: int, seed: int, masks: bool) -> None:
    """Draw pictures that look like dermoscopy, for demos and tests. They show no disease.

    derma synthetic FOLDER --count 6 --masks
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(seed, seed + count):
        picture = draw(number)
        stem = folder / f"synthetic-{number:04d}"
        picture.image.save(stem.with_suffix(".jpg"), quality=92, comment=b"synthetic, not a patient")
        if masks:
            picture.mask.save(f"{stem}_mask.png")
    click.echo(f"{count} synthetic pictures in {folder}")
