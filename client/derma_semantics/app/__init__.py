"""The web app: one photograph, its differential, heat maps of texts, and batches.

    from derma_semantics.app import launch
    launch(8501, "127.0.0.1:8001", "http://127.0.0.1:8003")      # http://127.0.0.1:8501, until Ctrl-C

It listens on 127.0.0.1 only, sends no usage statistics, and holds images in memory, never on disk.
Needs pip install 'derma-semantics[app]'.
"""

from __future__ import annotations

import os
from pathlib import Path

from derma_semantics.domain.contract import MAX_ENCODED_BYTES

__all__ = ["launch"]

ACCENT = "#0b6e7f"
SCRIPT = Path(__file__).with_name("script.py")


def launch(port: int, url: str, saliency_url: str) -> None:
    """Serve the app until it is interrupted; ends the process.

    Args:
        url: gRPC address of the service.
        saliency_url: address of the saliency sidecar. Token and certificates come from
            ``DERMA_TOKEN``, ``DERMA_CA``, ``DERMA_CERT`` and ``DERMA_KEY``.

    Raises:
        ImportError: Streamlit is missing.
    """
    try:
        from streamlit.web import cli
    except ImportError as exc:
        raise ImportError("the web app needs Streamlit: pip install 'derma-semantics[app]'") from exc
    os.environ.update(DERMA_URL=url, DERMA_SALIENCY_URL=saliency_url)
    keep_uploads_in_memory()
    flags = [f"--{name}={value}" for name, value in options(port).items()]
    cli.main(["run", str(SCRIPT), *flags], prog_name="streamlit")


def options(port: int) -> dict[str, str | int]:
    """Streamlit's settings."""
    return {
        "server.address": "127.0.0.1",
        "server.port": port,
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "server.maxUploadSize": MAX_ENCODED_BYTES >> 20,
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
        "theme.base": "light",
        "theme.primaryColor": ACCENT,
    }


def keep_uploads_in_memory() -> None:
    """Streamlit's web server would spool uploads above 1 MiB to a temporary file."""
    from starlette.formparsers import MultiPartParser

    MultiPartParser.spool_max_size = 2 * MAX_ENCODED_BYTES
