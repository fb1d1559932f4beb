"""Options that commands share, one definition each.

    @click.command()
    @images("Photographs to send.")
    @out("service")
    @smoke("Tiny sizes, to see that it works.")
    def service(images, out, smoke): ...

What only one command takes stands with that command.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
RUNS = Path(".run/bench")

Option = Callable[[Any], Any]


def images(meaning: str) -> Option:
    return click.option("--images", type=FOLDER, help=meaning)


def out(command: str) -> Option:
    return click.option(
        "--out",
        type=click.Path(dir_okay=False, path_type=Path),
        default=RUNS / f"{command}.json",
        show_default=True,
        help="Result to write.",
    )


def smoke(meaning: str) -> Option:
    return click.option("--smoke", is_flag=True, help=meaning)


def service(command: Any) -> Any:
    """Those of commands that put a service of ours under load."""
    for option in (
        smoke("Tiny sizes, to see that it works."),
        click.option(
            "--processes",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            help="That send; one manages some hundred requests a second.",
        ),
        images("Folder of JPEG files to send; default: drawn, 600 x 450."),
        click.option("--url", metavar="HOST:PORT", help="Measure the running service at this gRPC address."),
        click.option(
            "--repository",
            type=FOLDER,
            help="Model repository to start the service with.  [default: .run/models]",
        ),
    ):
        command = option(command)
    return command


def chosen(common: dict[str, Any]) -> dict[str, Any]:
    """What was given of ``url``, ``repository`` and ``processes``, for a request's fields."""
    given = {name: common[name] for name in ("url", "repository", "processes")}
    return {name: value for name, value in given.items() if value is not None}
