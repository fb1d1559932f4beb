"""explain, over an injected sidecar; the real one is tested in e2e."""

import asyncio
import time

import pytest

from derma_semantics import AsyncDermaClient, DermaClient
from derma_semantics.domain.errors import InvalidImage, Overloaded, ServiceUnavailable


class Sidecar:
    """Answers with what it was asked, after ``failures``."""

    def __init__(self, *failures):
        self.failures, self.timeouts, self.closed = list(failures), [], False

    def explain(self, image, *, prompt, condition, method, timeout, request_id):
        self.timeouts.append(timeout)
        if self.failures:
            raise self.failures.pop(0)
        return image, prompt, condition, method

    def close(self):
        self.closed = True


def ask(kind, sidecar, *arguments, **options):
    """Through either client."""
    limits = {"retry_for": options.pop("retry_for", 10)}
    if kind == "sync":
        with DermaClient(saliency=sidecar, **limits) as client:
            return client.explain(*arguments, **options)

    async def asynchronously():
        async with AsyncDermaClient(saliency=sidecar, **limits) as client:
            return await client.explain(*arguments, **options)

    return asyncio.run(asynchronously())


pytestmark = pytest.mark.parametrize("kind", ["sync", "async"])


def test_what_is_asked_reaches_the_sidecar(kind, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x")
    sidecar = Sidecar()
    assert ask(kind, sidecar, path, "signs of melanoma") == (b"x", "signs of melanoma", None, None)
    assert ask(kind, sidecar, b"y", condition="MEL", method="gradcam", timeout=4) == (
        b"y",
        None,
        "MEL",
        "gradcam",
    )
    assert sidecar.timeouts == [pytest.approx(30, abs=1), pytest.approx(4, abs=1)]
    assert sidecar.closed


@pytest.mark.parametrize("question", [{}, {"prompt": "a", "condition": "MEL"}])
def test_one_question_at_a_time(kind, question):
    with pytest.raises(ValueError, match="either a prompt or a condition"):
        ask(kind, Sidecar(), b"x", **question)


def test_overload_is_tried_again_and_bad_images_are_not(kind):
    sidecar = Sidecar(Overloaded("busy"), ServiceUnavailable("starting"))
    assert ask(kind, sidecar, b"x", "a")[0] == b"x"
    assert len(sidecar.timeouts) == 3
    sidecar = Sidecar(InvalidImage("no"), InvalidImage("no"))
    with pytest.raises(InvalidImage):
        ask(kind, sidecar, b"x", "a")
    assert len(sidecar.timeouts) == 1


def test_the_last_failure_is_raised_in_time(kind):
    sidecar = Sidecar(*[Overloaded("busy")] * 100)
    begun = time.monotonic()
    with pytest.raises(Overloaded):
        ask(kind, sidecar, b"x", "a", timeout=1)
    assert time.monotonic() - begun < 5
    assert len(sidecar.timeouts) > 1
