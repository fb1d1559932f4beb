"""Load on a running service with locust: web page, headless, or from several machines.

    locust -f benchmarks/locustfile.py --host 127.0.0.1:8001                       # page on :8089
    locust -f benchmarks/locustfile.py --host 127.0.0.1:8001 --headless -u 8 -r 8 -t 60s --csv run
    locust -f benchmarks/locustfile.py --master --headless -u 64 -r 64 -t 60s --host 10.0.0.5:8001
    locust -f benchmarks/locustfile.py --worker --master-host 10.0.0.4              # on other machines

--host is Triton's gRPC address. By default the loop is closed: each user sends its next image
when the last is answered. Variables:

    DERMA_IMAGES   folder of JPEG files to send; default: drawn pictures, 600 x 450
    DERMA_RATE     arrivals a second of each user: the loop is then open, with Poisson arrivals,
                   and response times count from when a request was due

Some lines of setting things up come first, and their order matters: locust has replaced
blocking calls by gevent's; grpc needs ``init_gevent``, or one slow answer stops all users.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from itertools import count, cycle
from pathlib import Path
from typing import Any

import gevent  # type: ignore[import-untyped]
import grpc.experimental.gevent  # type: ignore[import-untyped]
from locust import User, constant, events, task

grpc.experimental.gevent.init_gevent()  # before any channel is made

from derma_bench.load.loops import OUTSTANDING, TIMEOUT, arrivals  # noqa: E402
from derma_bench.load.outcome import Failed  # noqa: E402
from derma_bench.payloads import payloads  # noqa: E402
from derma_semantics import DermaClient  # noqa: E402

FOLDER = os.environ.get("DERMA_IMAGES")
RATE = float(os.environ.get("DERMA_RATE") or 0)

IMAGES = payloads(Path(FOLDER) if FOLDER else None)
NUMBERS = count()
# Drawing took seconds in which gevent saw no clock: timers started now would end that much too soon.
gevent.get_hub().loop.update_now()


@events.quit.add_listener  # type: ignore[untyped-decorator]
def leave_at_once(exit_code: int, **_: Any) -> None:
    """grpc under gevent now and then waits for ever when Python's exit deletes its channels."""
    atexit.register(_leave, exit_code)


def _leave(exit_code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


class DermaUser(User):
    """Sends images, and reports each outcome to locust."""

    abstract = True

    def on_start(self) -> None:
        self.number = next(NUMBERS)
        self.client = DermaClient(self.host or "127.0.0.1:8001", timeout=TIMEOUT, retry_for=0)
        self.images = cycle(IMAGES[self.number % len(IMAGES) :] + IMAGES[: self.number % len(IMAGES)])

    def on_stop(self) -> None:
        self.client.close()

    def send(self, due: float) -> None:
        """Classify one image; its time counts from ``due``."""
        failure: Exception | None = None
        image = next(self.images)
        try:
            self.client.classify(image)
        except Exception as exc:  # locust counts failures by what they are
            failure = exc
        self.report(due, len(image), failure)

    def report(self, due: float, length: int, failure: Exception | None) -> None:
        """Report one request; ``response_length`` is what was sent, as answers are all alike."""
        self.environment.events.request.fire(
            request_type="grpc",
            name="classify",
            response_time=(time.monotonic() - due) * 1e3,
            response_length=length,
            exception=failure,
            context={},
        )


class ClosedLoopUser(DermaUser):
    """One request at a time."""

    abstract = RATE > 0
    wait_time = constant(0)

    @task
    def classify(self) -> None:
        self.send(time.monotonic())


class OpenLoopUser(DermaUser):
    """Poisson arrivals, whatever the service answers; those of several users add up."""

    abstract = RATE <= 0

    def on_start(self) -> None:
        super().on_start()
        begin = time.monotonic()
        self.moments = (begin + moment for moment in arrivals(RATE, self.number))
        self.in_flight: set[gevent.Greenlet] = set()
        self.due = next(self.moments)

    def on_stop(self) -> None:
        gevent.joinall(list(self.in_flight), timeout=TIMEOUT)
        super().on_stop()

    def wait_time(self) -> float:
        """Seconds until the next arrival; one that is overdue comes at once."""
        return max(0.0, self.due - time.monotonic())

    @task
    def arrive(self) -> None:
        due = self.due
        if time.monotonic() < due:  # the first call comes without a wait
            return
        self.due = next(self.moments)
        if len(self.in_flight) >= OUTSTANDING:
            self.report(due, 0, Failed("overflow"))
            return
        sending = gevent.spawn(self.send, due)
        self.in_flight.add(sending)
        sending.link(self.in_flight.discard)
