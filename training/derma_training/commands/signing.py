"""derma-train keygen, sign: signatures of bundles."""

from __future__ import annotations

import os
from pathlib import Path

import click

from derma_training.commands.options import FOLDER, reported


@click.command()
@click.argument("key", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--no-password", is_flag=True, help="Leave the secret key unencrypted, for machines.")
def keygen(key: Path, no_password: bool) -> None:
    """Make a pair of keys, to sign bundles: KEY, which is secret, and KEY.pub.

    Both are minisign's. The password is asked for, or taken from DERMA_SIGNING_PASSWORD.
    """
    from derma_training.bundle.signing import make_key

    with reported():
        public = make_key(key, None if no_password else _password(key, new=True))
        click.echo(f"keep {key} secret; give {public} to those who export bundles")


@click.command()
@click.argument("folder", metavar="BUNDLE", type=FOLDER)
@click.option(
    "--key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="Secret key, from `derma-train keygen` or `minisign -G`.",
)
def sign(folder: Path, key: Path) -> None:
    """Sign a bundle, so that `derma-export --require-signature` accepts it.

    An encrypted key's password is asked for, or taken from DERMA_SIGNING_PASSWORD.
    """
    from derma_training.bundle import Bundle
    from derma_training.bundle.signing import sign as sign_bundle

    with reported():
        bundle = Bundle.open(folder)
        signature = sign_bundle(bundle, key, lambda: _password(key))
        click.echo(f"signed bundle {bundle.name} ({bundle.digest[:12]}): {signature}")


def _password(key: Path, *, new: bool = False) -> str:
    """From the environment, else from the terminal; never from the command line, which all can read."""
    given = os.environ.get("DERMA_SIGNING_PASSWORD")
    return given or str(
        click.prompt(f"Password of {key}", hide_input=True, confirmation_prompt=new, err=True)
    )
