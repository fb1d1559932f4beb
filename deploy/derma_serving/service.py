"""Start, supervise and stop the parts of the service: Triton, the saliency sidecar, their watchers.

service = Service(Settings(), deadline=120, grace=30)
with running(service):
    service.stopping.wait()
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from derma_semantics.domain.contract import CANARY, PREPROCESS
from derma_semantics.domain.errors import DermaError
from derma_semantics.wire.transport import ModelControl
from derma_serving import weights
from derma_serving.backoff import BackOff
from derma_serving.drain import drain
from derma_serving.liveness import LivenessProbe, Target
from derma_serving.server import TritonServer
from derma_serving.settings import POLL, Settings, write_private
from derma_serving.sidecar import Sidecar
from derma_serving.state import claimed
from derma_serving.supervisor import PARTS, Supervisor

logger = logging.getLogger("derma.launcher")

RETRY = 1.0
LAST = 8.0  # seconds of the grace that Triton has to end in, once nothing is in flight


class Service:
    """The Triton server, the saliency sidecar and their supervision."""

    def __init__(self, settings: Settings, deadline: float, grace: float) -> None:
        self.settings = settings
        self.deadline = deadline
        self.grace = grace
        self.server = TritonServer(settings)
        self.sidecar = Sidecar(settings)
        self.stopping = threading.Event()
        self._server_pauses, self._sidecar_pauses = BackOff(), BackOff()
        self._sidecar_starts = False

    @property
    def targets(self) -> list[Target]:
        """The parts that liveness probes ask."""
        settings, host = self.settings, self.settings.local_host
        triton = Target("Triton", lambda: self.server.process, host, settings.http_port, "/v2/health/live")
        if not self.sidecar.wanted:
            return [triton]
        port = settings.saliency_port
        return [triton, Target("the saliency sidecar", lambda: self.sidecar.process, host, port, "/healthz")]

    def start(self) -> None:
        """Start, and return when all parts answer, or once ``stopping`` is set."""
        self._start_server()
        self.sidecar.start()
        self.server.wait_until_ready(self.deadline, self.stopping)
        self.sidecar.wait_until_healthy(self.deadline, self.stopping)

    def _start_server(self) -> None:
        write_private(self.settings.key_file, self.settings.admin_key)
        self.server.start(self.stopping)
        logger.info("Triton starts; its log is %s", self.settings.log)

    def supervise(self) -> None:
        """Keep the service whole until ``stopping`` is set."""
        control = self._control()
        parts = (PREPROCESS.name, CANARY.name) if self.settings.native else PARTS
        supervisor = Supervisor(
            control,
            parts=parts,
            shared_memory=self.settings.shared_memory,
            stopping=self.stopping,
            check_weights=self._check_weights if self.settings.native else None,
        )
        wait = POLL
        while not self.stopping.wait(wait):
            try:
                self._mend_sidecar()
                self._mend_server(supervisor)
                wait = POLL
            except DermaError as exc:
                logger.error("could not mend the service, will try again: %s", exc)
                wait = RETRY
            except Exception:  # the supervisor must outlive every error
                logger.exception("supervision failed, will try again")
                wait = RETRY
        control.close()

    def stop(self, end: float) -> None:
        """Finish requests in flight, reject new ones, and end by ``end`` (``time.monotonic``)."""
        self.stopping.set()
        self.sidecar.terminate()
        last = min(LAST, self.grace / 3)
        if self.server.alive:
            control = self._control()
            drain(control, end - last)
            control.close()
        self.server.stop(min(last, _left(end)))
        self.sidecar.stop(_left(end))
        with suppress(OSError):
            self.settings.key_file.unlink(missing_ok=True)

    def _control(self) -> ModelControl:
        settings = self.settings
        return ModelControl(
            settings.grpc_url, timeout=self.deadline, tls=settings.own_tls, key=settings.admin_key
        )

    def _check_weights(self, model: str) -> None:
        weights.check(self.settings.repository, self.settings.profile, model)

    def _mend_server(self, supervisor: Supervisor) -> None:
        if self.server.alive:
            supervisor.check(self.server.pid)
        elif self._server_pauses.due():
            logger.error("Triton died; starting it again. Its last words:\n%s", self.server.last_words())
            self.server.stop()
            self._start_server()
            self.server.wait_until_ready(self.deadline, self.stopping)
            self._server_pauses.recovered()

    def _mend_sidecar(self) -> None:
        if not self.sidecar.wanted:
            return
        if self.sidecar.alive:
            if self._sidecar_starts and self.sidecar.healthy():
                self._sidecar_pauses.recovered()
                self._sidecar_starts = False
        elif self._sidecar_pauses.due():
            logger.error(
                "the saliency sidecar died; starting it again. Its last words:\n%s",
                self.sidecar.last_words(),
            )
            self.sidecar.stop()
            self.sidecar.start()
            self._sidecar_starts = True


class Watcher(threading.Thread):
    """Supervises the service until ``stopping`` is set.

    It lives until ``release``, as the kernel ends a child with the thread that started it, and this one
    starts again what died.
    """

    def __init__(self, service: Service) -> None:
        super().__init__(name="supervisor", daemon=True)
        self.service = service
        self._idle = threading.Event()
        self._released = threading.Event()

    def run(self) -> None:
        self.service.supervise()
        self._idle.set()
        self._released.wait()

    def wait_until_idle(self, seconds: float) -> None:
        """Let it finish what it mends."""
        if self.is_alive():
            self._idle.wait(seconds)

    def release(self) -> None:
        self._released.set()


@contextmanager
def running(service: Service) -> Iterator[None]:
    """The service, supervised in the background, ended in every case.

    Raises:
        ServiceUnavailable: another launcher holds the state folder, or a part did not get ready.
    """
    with claimed(service.settings.state):
        yield from _supervised(service)


def _supervised(service: Service) -> Iterator[None]:
    watcher = Watcher(service)
    try:
        service.start()
        watcher.start()
        for target in service.targets:
            LivenessProbe(target, service.stopping).start()
        yield
    finally:
        end = time.monotonic() + service.grace
        service.stopping.set()
        watcher.wait_until_idle(service.grace / 3)
        service.stop(end)
        watcher.release()


def _left(end: float) -> float:
    return max(0.0, end - time.monotonic())
