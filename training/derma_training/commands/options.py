"""What the commands of derma-train have in common: their data, their shares, their errors.

with reported():
    examples = read(data)       # what @SOURCES took
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from derma_semantics.commands.terminal import Exit
from derma_semantics.domain.conditions import CODES
from derma_training.calibration.targets import DEFAULTS

if TYPE_CHECKING:
    from derma_training.data import Example

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
SOURCES = click.option(
    "--data",
    type=click.Path(),  # several in the variable are separated as in PATH
    multiple=True,
    required=True,
    envvar="ISIC2018_DIR",
    help="A data set: a folder in any layout that `derma-train data --help` lists, or a hub name. "
    "May be given more than once.  [env: ISIC2018_DIR]",
)


def target(name: str, what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """An option for a share that a calibration must reach; the defaults are those of ``Targets``."""
    share = click.FloatRange(0, 1, min_open=True, max_open=True)
    return click.option(
        f"--{name}", type=share, default=getattr(DEFAULTS, name), show_default=True, help=what
    )


def counted(_: click.Context, parameter: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    """Reads "MEL=40,NV=900,...", a number above zero for each condition, into the order of ``CODES``."""
    if text is None:
        return None
    given = [[side.strip() for side in pair.split("=")] for pair in text.split(",")]
    try:
        pairs = {code: float(value) for code, value in given}
        if sorted(code for code, _ in given) != sorted(CODES):
            raise ValueError
        if not all(0 < value < math.inf for value in pairs.values()):
            raise ValueError
    except ValueError:
        raise click.BadParameter(
            f"must give each of {', '.join(CODES)} a number above zero, got {text}", param=parameter
        ) from None
    return tuple(pairs[code] for code in CODES)


def read(sources: Iterable[str]) -> list[Example]:
    """One table of all data sets, each picture once."""
    from derma_training.data import deduplicate
    from derma_training.data import read as read_one

    return deduplicate([example for source in sources for example in read_one(source)])


@contextmanager
def reported() -> Iterator[None]:
    """Bad input and unreachable hosts end in one line, not in a traceback."""
    try:
        yield
    except (ValueError, OSError) as exc:
        click.echo(f"error: {exc}", err=True)
        sys.exit(Exit.FAILED)
