"""Explanations: their geometry, their drawing, and the connection's errors."""

import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from derma_semantics.domain import errors
from derma_semantics.imaging.overlay import MAX_SIDE
from derma_semantics.imaging.preprocess import crop_box
from derma_semantics.saliency import Explanation, HttpSaliency

IMAGE = b"any bytes"


def explanation(size=(600, 450), grid=None, crop=None):
    grid = np.zeros((14, 14), np.float32) if grid is None else grid
    return Explanation("MEL", "attention", 0.2, {"MEL": 1.0}, grid, size, crop or crop_box(size), "ab")


def one_patch(row, column):
    grid = np.zeros((14, 14), np.float32)
    grid[row, column] = 1
    return grid


@pytest.mark.parametrize("size", [(600, 450), (450, 600), (224, 224), (1000, 333)])
def test_map_undoes_the_crop(size):
    relevance = explanation(size, one_patch(3, 11)).map
    assert relevance.shape == (size[1], size[0])
    y, x = np.unravel_index(relevance.argmax(), relevance.shape)
    left, top, right, bottom = crop_box(size)
    patch = (right - left) / 14, (bottom - top) / 14
    assert x + 0.5 == pytest.approx(left + 11.5 * patch[0], abs=1)
    assert y + 0.5 == pytest.approx(top + 3.5 * patch[1], abs=1)


def test_map_is_zero_outside_the_crop_and_whole_inside():
    relevance = explanation(grid=np.ones((14, 14), np.float32)).map
    assert np.all(relevance[:, :74] == 0) and np.all(relevance[:, 526:] == 0)
    assert relevance[:, 76:524] == pytest.approx(1)


def test_json_keeps_every_field():
    original = explanation(grid=np.linspace(0, 1, 196, dtype=np.float32).reshape(14, 14))
    again = Explanation.from_dict(json.loads(json.dumps(original.to_dict())))
    assert again == original
    assert np.array_equal(again.grid, original.grid)


def test_overlay_colours_the_relevant_patch_only(picture):
    photograph = picture(1)
    drawn = explanation(photograph.size, one_patch(7, 7)).overlay(photograph, opacity=1)
    assert drawn.height == photograph.height and drawn.width > photograph.width
    changed = np.abs(np.asarray(drawn, float)[:, : photograph.width] - np.asarray(photograph, float)).sum(-1)
    assert changed[117, 158] > 100
    assert changed[20:60, 60:100].max() == 0
    bare = explanation(photograph.size, one_patch(7, 7)).overlay(photograph, opacity=0)
    assert np.array_equal(np.asarray(bare)[100:130, 140:170], np.asarray(photograph)[100:130, 140:170])


def test_overlay_of_a_huge_photograph_is_drawn_smaller():
    photograph = Image.new("RGB", (4000, 3000))
    drawn = explanation(photograph.size, one_patch(7, 7)).overlay(photograph)
    assert drawn.height == MAX_SIDE * 3 // 4


def test_overlay_refuses_another_image_and_a_wrong_opacity(picture):
    with pytest.raises(ValueError, match="the image is 300 x 225, the one explained was 600 x 450"):
        explanation().overlay(picture(1))
    with pytest.raises(ValueError, match="between 0 and 1, got 1.5"):
        explanation((300, 225)).overlay(picture(1), opacity=1.5)


def test_what_was_sent_as_pixels_fits_its_photograph(picture):
    pixels = explanation((224, 224), one_patch(7, 7))
    assert pixels.on((300, 225)).crop == crop_box((300, 225))
    whole = explanation((300, 225), one_patch(7, 7)).overlay(picture(1))
    assert np.array_equal(np.asarray(pixels.overlay(picture(1))), np.asarray(whole))


@pytest.fixture
def sidecar():
    """Answers every request with what the test put into ``answer``: status, body, seconds to wait."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.server.tokens.append(self.headers.get("Authorization"))
            status, body = self.server.answer
            self.server.patience.wait(0 if status else 5)
            self.send_response(status or 200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.bodies, server.tokens, server.patience = [], [], threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.patience.set()
    server.shutdown()
    thread.join(5)
    server.server_close()


def body(name, message="why"):
    return json.dumps({"error": name, "message": message}).encode()


@pytest.mark.parametrize(
    ("status", "content", "kind"),
    [
        (400, body("CorruptImage"), errors.CorruptImage),
        (413, body("ImageTooLarge"), errors.ImageTooLarge),
        (415, body("UnsupportedFormat"), errors.UnsupportedFormat),
        (422, body("InvalidRequest"), errors.InvalidRequest),
        (503, body("Overloaded"), errors.Overloaded),
        (503, b"Service Unavailable", errors.ServiceUnavailable),
        (504, body("DeadlineExceeded"), errors.DeadlineExceeded),
        (500, b"<html>", errors.ServiceError),
        (200, b"<html>", errors.ServiceError),
        (200, b"{}", errors.ServiceError),
    ],
)
def test_answers_become_errors(sidecar, status, content, kind):
    sidecar.answer = status, content
    with pytest.raises(errors.DermaError) as caught:
        HttpSaliency(sidecar.url).explain(IMAGE, prompt="x", timeout=5)
    assert type(caught.value) is kind


def test_a_silent_sidecar_is_given_up(sidecar):
    sidecar.answer = 0, b""
    with pytest.raises(errors.DeadlineExceeded):
        HttpSaliency(sidecar.url).explain(IMAGE, prompt="x", timeout=0.2)


def test_no_sidecar_is_unavailable(sidecar):
    with pytest.raises(errors.ServiceUnavailable, match="127.0.0.1:1 is not available"):
        HttpSaliency("http://127.0.0.1:1").explain(IMAGE, prompt="x", timeout=2)


def test_request_carries_fields_and_token_but_no_file_name(sidecar):
    sidecar.answer = 200, json.dumps(explanation().to_dict()).encode()
    found = HttpSaliency(sidecar.url, token="secret").explain(IMAGE, condition="MEL", timeout=5)
    assert found == explanation()
    (sent,), (token,) = sidecar.bodies, sidecar.tokens
    assert b'name="condition"' in sent and b'name="prompt"' not in sent
    assert b'filename="image"' in sent
    assert token == "Bearer secret"


def test_what_need_not_be_sent_is_refused_here():
    with pytest.raises(errors.EmptyImage):
        HttpSaliency("http://127.0.0.1:1").explain(b"", prompt="x", timeout=1)


def test_overlay_of_rotated_file(picture, tmp_path):
    """A file whose EXIF says that it lies on its side is drawn upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    picture(1).save(buffer, "JPEG", exif=exif)
    drawn = explanation((225, 300), one_patch(2, 7)).overlay(buffer.getvalue())
    assert drawn.height == 300
