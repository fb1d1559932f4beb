"""Pauses between the starts of a part that keeps dying.

pauses = BackOff()
if not part.alive and pauses.due():         # at once, then after 1, 2, 4, ... 30 seconds
    part.start()
elif part.healthy():
    pauses.recovered()
"""

from __future__ import annotations

import time
from collections.abc import Callable

FIRST = 1.0
MOST = 30.0


class BackOff:
    """Asked again and again, it never waits itself.

    Args:
        clock: seconds, growing.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pause = 0.0
        self._due: float | None = None

    def due(self) -> bool:
        """Whether to start now what is dead."""
        if self._due is None:
            self._due = self._clock() + self._pause
        if self._clock() < self._due:
            return False
        self._due = None
        self._pause = min(max(FIRST, 2 * self._pause), MOST)
        return True

    def recovered(self) -> None:
        """It answers: should it die again, it starts again at once."""
        self._pause = 0.0
        self._due = None
