"""A decoding process that ends where an image takes too long, and is replaced."""

import io
import os
import signal

import pytest
from PIL import Image

from derma_semantics.domain import errors
from derma_semantics.imaging.guarded import GuardedDecoder
from derma_semantics.imaging.preprocess import preprocess


@pytest.fixture
def decoder():
    with GuardedDecoder() as decoder:
        yield decoder


def test_it_answers_as_in_this_process(decoder, jpeg):
    pixels, size = decoder.preprocess(jpeg(0))
    assert (pixels == preprocess(jpeg(0))).all()
    assert size == (300, 225)


def test_errors_keep_their_class_and_the_process_lives_on(decoder, jpeg):
    decoder.preprocess(jpeg(0))
    child = decoder._child.pid
    with pytest.raises(errors.EmptyImage, match="0 bytes"):
        decoder.preprocess(b"")
    decoder.preprocess(jpeg(1))
    assert decoder._child.pid == child


def test_an_image_that_takes_too_long_is_refused_and_the_next_is_answered(jpeg):
    buffer = io.BytesIO()
    Image.new("RGB", (7000, 7000)).save(buffer, "WEBP", lossless=True)
    with GuardedDecoder(seconds=0.1) as decoder:
        with pytest.raises(errors.ImageTooComplex, match=r"the limit is 0.1 s of processor time"):
            decoder.preprocess(buffer.getvalue())
        assert (decoder.preprocess(jpeg(0))[0] == preprocess(jpeg(0))).all()


def test_a_killed_decoder_is_replaced(decoder, jpeg):
    decoder.preprocess(jpeg(0))
    os.kill(decoder._child.pid, signal.SIGKILL)
    decoder._child.wait(10)
    assert (decoder.preprocess(jpeg(0))[0] == preprocess(jpeg(0))).all()


def test_a_fork_takes_a_decoder_of_its_own(decoder, jpeg):
    decoder.preprocess(jpeg(0))
    ours = decoder._child.pid
    pid = os.fork()
    if pid == 0:
        decoder.preprocess(jpeg(0))
        os._exit(0 if decoder._child.pid != ours else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert decoder.preprocess(jpeg(1))[1] == (300, 225)
