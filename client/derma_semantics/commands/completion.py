"""``derma completion``: the script that completes commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

VARIABLE = "_DERMA_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh")))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes `derma` in a shell.

    bash: derma completion bash >> ~/.bashrc. zsh: derma completion zsh >> ~/.zshrc.
    """
    script = get_completion_class(shell)
    if script is None:
        raise click.UsageError(f"click does not know {shell}")
    click.echo(script(context.find_root().command, {}, "derma", VARIABLE).source())
