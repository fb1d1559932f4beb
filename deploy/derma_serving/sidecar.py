"""The saliency sidecar as a process beside Triton.

    sidecar = Sidecar(Settings(bundle=Path("training/bundles/derma-mini")))
    sidecar.start(); sidecar.wait_until_healthy(60, threading.Event()); sidecar.stop()

It runs where PyTorch is: in this interpreter's environment, or in a checkout's ``.venv``. Where DERMA_TOKEN
is set, its callers need that bearer token.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import urllib3

from derma_semantics.domain.errors import ServiceUnavailable
from derma_semantics.saliency import SIDECAR_PACKAGES
from derma_serving.server import KILLED, end_with_parent
from derma_serving.settings import POLL, ROOT, Settings


def interpreter() -> Path | None:
    """A Python that has the sidecar's packages: this one, or that of the checkout's ``.venv``."""
    if all(find_spec(name) for name in SIDECAR_PACKAGES):
        return Path(sys.executable)
    project = ROOT / ".venv"
    return project / "bin" / "python" if (project / "ready").is_file() else None


class Sidecar:
    """Starts, awaits and stops ``derma-saliency serve``; without a bundle or PyTorch it does nothing."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.process: subprocess.Popen[bytes] | None = None
        self._interpreter = interpreter() if settings.bundle else None

    @property
    def wanted(self) -> bool:
        return self._interpreter is not None

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def log(self) -> Path:
        return self.settings.state / "saliency.log"

    def start(self) -> None:
        """Start the process; it logs to ``log``."""
        if not self.wanted:
            return
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(self._interpreter),
                    "-m",
                    "derma_saliency",
                    "serve",
                    str(self.settings.bundle),
                    *self._options(),
                ],
                env=self.settings.environment(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )

    def wait_until_healthy(self, deadline: float, stopping: threading.Event) -> None:
        """Poll until it answers, or until ``stopping`` is set.

        Raises:
            ServiceUnavailable: it ended, or did not answer within ``deadline`` seconds.
        """
        end = time.monotonic() + deadline
        while self.wanted and not stopping.is_set() and not self.healthy():
            if not self.alive:
                raise ServiceUnavailable(f"the saliency sidecar ended while it started:\n{self.last_words()}")
            if time.monotonic() > end:
                raise ServiceUnavailable(
                    f"the saliency sidecar did not answer within {deadline:.0f} s:\n{self.last_words()}"
                )
            stopping.wait(POLL)

    def terminate(self) -> None:
        """Send SIGTERM: it rejects new connections and finishes requests in flight."""
        if self.process is not None and self.alive:
            self.process.send_signal(signal.SIGTERM)

    def stop(self, grace: float = 10.0) -> None:
        """End it, after ``grace`` seconds by force."""
        if self.process is None:
            return
        self.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(grace)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(KILLED)
        self.process = None

    def _options(self) -> list[str]:
        settings = self.settings
        return [
            f"--triton={settings.grpc_url}",
            f"--host={settings.local_host}",
            f"--port={settings.saliency_port}",
        ]

    def healthy(self) -> bool:
        """Probe ``/healthz``, for at most a second."""
        try:
            answer = urllib3.request(
                "GET", f"{self.settings.saliency_url}/healthz", timeout=1.0, retries=False
            )
        except urllib3.exceptions.HTTPError:
            return False
        return bool(answer.status == 200)

    def last_words(self, lines: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
