"""``derma app``: the web page."""

from __future__ import annotations

import click

from derma_semantics.commands.options import SALIENCY_URL, URL
from derma_semantics.commands.printing import Refused


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=8501, show_default=True, help="Its port.")
@URL
@SALIENCY_URL
def app(port: int, url: str, saliency_url: str) -> None:
    """Serve the web app on 127.0.0.1.

    Token and certificates come from DERMA_TOKEN, DERMA_CA, DERMA_CERT and DERMA_KEY.
    """
    try:
        from derma_semantics.app import launch

        launch(port, url, saliency_url)
    except ImportError as exc:
        raise Refused(str(exc)) from exc
