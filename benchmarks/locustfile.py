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
blocking calls by gevent's; grpc must be told, or one slow answer stops all users.
"""

from __future__ import annotations

import atexit
import os
import random
import sys
import time
from itertools import count, cycle
from pathlib import Path
from typing import Any

import gevent  # type: ignore[import-untyped]
import grpc.experimental.gevent  # type: ignore[import-untyped]
from locust import User, constant, events, task

grpc.experimental.gevent.init_gevent()  # before any channel is made

from derma_bench.payloads import payloads  # noqa: E402
from derma_semantics import DermaClient  # noqa: E402

FOLDER = os.environ.get("DERMA_IMAGES")
RATE = float(os.environ.get("DERMA_RATE") or 0)
OUTSTANDING = 64
PATIENCE = 30.0

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


class Overflow(RuntimeError):
    """An arrival found too many requests of its user under way."""


class DermaUser(User):
    """Connects, asks, and tells locust what became of it."""

    abstract = True

    def on_start(self) -> None:
        self.number = next(NUMBERS)
        self.client = DermaClient(self.host or "127.0.0.1:8001", timeout=PATIENCE, retry_for=0)
        self.images = cycle(IMAGES[self.number % len(IMAGES) :] + IMAGES[: self.number % len(IMAGES)])

    def on_stop(self) -> None:
        self.client.close()

    def ask(self, since: float) -> None:
        """Classify one image; its time counts from ``since``."""
        failure: Exception | None = None
        image = next(self.images)
        try:
            self.client.classify(image)
        except Exception as exc:  # locust counts failures by what they are
            failure = exc
        self.tell(since, len(image), failure)

    def tell(self, since: float, length: int, failure: Exception | None) -> None:
        """``response_length`` is what was sent: answers are all alike."""
        self.environment.events.request.fire(
            request_type="grpc",
            name="classify",
            response_time=(time.perf_counter() - since) * 1e3,
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
        self.ask(time.perf_counter())


class OpenLoopUser(DermaUser):
    """Poisson arrivals, whatever the service answers; those of several users add up."""

    abstract = RATE <= 0

    def on_start(self) -> None:
        super().on_start()
        self.chance = random.Random(self.number)
        self.under_way: set[gevent.Greenlet] = set()
        self.due = time.perf_counter() + self.chance.expovariate(RATE)

    def on_stop(self) -> None:
        gevent.joinall(list(self.under_way), timeout=PATIENCE)
        super().on_stop()

    def wait_time(self) -> float:
        """Until the next arrival; one that is overdue comes at once."""
        return max(0.0, self.due - time.perf_counter())

    @task
    def arrive(self) -> None:
        due, now = self.due, time.perf_counter()
        if now < due:  # the first call comes without a wait
            return
        self.due += self.chance.expovariate(RATE)
        if len(self.under_way) >= OUTSTANDING:
            self.tell(due, 0, Overflow(f"{OUTSTANDING} requests are under way"))
            return
        asking = gevent.spawn(self.ask, due)
        self.under_way.add(asking)
        asking.link(self.under_way.discard)
