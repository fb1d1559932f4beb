"""Decode images in a process of their own, which the kernel ends where decoding takes too long.

    with GuardedDecoder() as decoder:
        pixels, (width, height) = decoder.preprocess(data)

Decoders are C code that no Python signal interrupts. So ``ITIMER_PROF`` ends the child after
``MAX_DECODE_SECONDS`` of processor time; the next image gets a new child.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import warnings
from contextlib import suppress
from typing import IO

import numpy as np
from numpy.typing import NDArray

from derma_semantics.domain.contract import IMAGE_SIZE, MAX_DECODE_SECONDS
from derma_semantics.domain.errors import ImageTooComplex, InvalidImage, from_wire, to_wire
from derma_semantics.imaging.preprocess import decode, resize_and_crop

WALL_SECONDS = 30.0  # for a child that was stopped, or starved by others
_REQUEST = struct.Struct("<Q")  # bytes that follow
_ANSWER = struct.Struct("<BIIQ")  # whether it succeeded, width, height, bytes that follow


class GuardedDecoder:
    """One decoding process, replaced when it ends. Not for several threads at once.

    Args:
        seconds: of processor time for one image.
    """

    def __init__(self, seconds: float = MAX_DECODE_SECONDS) -> None:
        self.seconds = seconds
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()

    def __enter__(self) -> GuardedDecoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def preprocess(self, data: bytes) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """Decode, turn upright, resize and crop one encoded image; see ``preprocess.preprocess``.

        Returns:
            RGB pixels, uint8 (224, 224, 3), and width and height of the upright image.

        Raises:
            InvalidImage: as there; ImageTooComplex where decoding takes too long.
        """
        child = self._living()
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(_REQUEST.pack(len(data)))
            child.stdin.write(data)
            child.stdin.flush()
            if not select.select([child.stdout], [], [], WALL_SECONDS)[0]:
                raise EOFError
            succeeded, width, height, length = _ANSWER.unpack(_exactly(child.stdout, _ANSWER.size))
            answer = _exactly(child.stdout, length)
        except (EOFError, BrokenPipeError) as exc:
            self.close()
            raise ImageTooComplex(
                f"the image takes too long to decode, or breaks its decoder; the limit is {self.seconds:g} s "
                "of processor time: save it as a baseline JPEG"
            ) from exc
        if not succeeded:
            raise _error(answer.decode())
        return np.frombuffer(answer, np.uint8).reshape(IMAGE_SIZE, IMAGE_SIZE, 3), (width, height)

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            with suppress(OSError):  # what was not sent is not missed
                if pipe:
                    pipe.close()

    def _living(self) -> subprocess.Popen[bytes]:
        if self._owner != os.getpid():  # after a fork the child stays the parent's
            self._child, self._owner = None, os.getpid()
        if self._child is None or self._child.poll() is not None:
            self.close()
            command = [_python(), "-m", __name__, str(self.seconds), str(os.getpid())]
            self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self._child


def _python() -> str:
    """This interpreter; Triton's stub embeds one without a program of its own."""
    return sys.executable or shutil.which("python3") or "python3"


def _error(message: str) -> Exception:
    return from_wire(message) or RuntimeError(message)


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _serve(seconds: float, parent: int) -> None:
    """Answer on standard output what comes on standard input, until that ends."""
    warnings.simplefilter("ignore")  # one for each odd tag of a photograph, into the server's log
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    _end_with(parent)
    while header := source.read(_REQUEST.size):
        data = source.read(*_REQUEST.unpack(header))
        signal.setitimer(signal.ITIMER_PROF, seconds)  # SIGPROF ends a process that does not handle it
        try:
            image = decode(data)
            pixels = resize_and_crop(image).tobytes()
            answer = _ANSWER.pack(True, *image.size, len(pixels)) + pixels
        except InvalidImage as exc:
            message = to_wire(exc).encode()
            answer = _ANSWER.pack(False, 0, 0, len(message)) + message
        signal.setitimer(signal.ITIMER_PROF, 0)
        sink.write(answer)
        sink.flush()


def _end_with(parent: int) -> None:
    """A parent that is killed closes the pipe; one that died before is noticed here."""
    if os.getppid() != parent:
        sys.exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the pipe's end is enough


if __name__ == "__main__":
    _serve(float(sys.argv[1]), int(sys.argv[2]))
