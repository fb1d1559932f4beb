"""Saliency: the answers of the sidecar, and the connection to it.

    saliency = HttpSaliency("http://127.0.0.1:8003")
    explanation = saliency.explain(Path("lesion.jpg").read_bytes(), prompt="signs of melanoma")
    explanation.overlay("lesion.jpg").save("overlay.png")

This module speaks HTTP and catches its errors; nothing else of the package does.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from derma_semantics.domain import errors
from derma_semantics.domain.contract import IMAGE_SIZE
from derma_semantics.domain.regular import read_regular
from derma_semantics.imaging.images import ImageLike, opened
from derma_semantics.imaging.overlay import draw_overlay, drawn_size
from derma_semantics.imaging.preprocess import check_encoded, crop_box
from derma_semantics.wire.connection import TLS
from derma_semantics.wire.defaults import DEFAULT_SALIENCY_URL
from derma_semantics.wire.request_id import HEADER

# What the sidecar that draws the maps needs, and how to get it.
SIDECAR_PACKAGES = ("torch", "open_clip", "fastapi", "uvicorn", "prometheus_client", "python_multipart")
NO_MAPS = (
    "Heat maps need PyTorch, which `make setup` installs in a checkout and "
    "pip install 'derma-semantics[saliency]' elsewhere: start the service again after it."
)

MAX_PROMPT = 300
PATH = "/v1/saliency"
_PIECE = 2**16

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Explanation:
    """A saliency map: the parts of a photograph that speak for a text, against the other conditions.

    Attributes:
        text: the prompt, or the condition's code.
        method: how relevance was computed.
        score: cosine similarity of image and text, minus the mean over the (other) conditions.
        probabilities: by condition code, of the same forward pass, in [0, 1].
        grid: relevance on the network's patches, fp32, e.g. (14, 14), in [0, 1].
        size: width and height of the upright photograph.
        crop: left, top, right, bottom of what the network saw, in the photograph's pixels.
        bundle_digest: sha256 of the bundle whose weights answered.

    The grid is scaled so that its highest value is 1: it compares places of one photograph, not
    photographs. Where ``score`` is low, little speaks for the text anywhere.
    """

    text: str
    method: str
    score: float
    probabilities: dict[str, float]
    grid: NDArray[np.float32] = field(repr=False, compare=False)
    size: tuple[int, int]
    crop: Box
    bundle_digest: str

    @property
    def map(self) -> NDArray[np.float32]:
        """Relevance at the upright photograph's geometry, fp32 (height, width); 0 outside the crop."""
        return self._map(self.size)

    def overlay(self, image: ImageLike, opacity: float = 0.5) -> Image.Image:
        """The photograph under the map, with a colour bar; needs matplotlib (extra ``app``).

        Args:
            image: what was explained; longer sides than 2048 pixels are drawn smaller.
            opacity: of the map, in [0, 1].

        Raises:
            ValueError: the image has another size than the one explained, or a wrong opacity.
            InvalidImage, OSError: it cannot be read.
            ImportError: matplotlib is not installed.
        """
        photograph = _upright(image)
        if self.size == (IMAGE_SIZE, IMAGE_SIZE) != photograph.size:
            return self.on(photograph.size).overlay(photograph, opacity)
        if photograph.size != self.size:
            raise ValueError(f"the image is {_by(photograph.size)}, the one explained was {_by(self.size)}")
        drawn = drawn_size(self.size)
        if drawn != self.size:
            photograph = photograph.resize(drawn, Image.Resampling.LANCZOS)
        return draw_overlay(photograph, self._map(drawn), self._crop_at(drawn), opacity=opacity)

    def on(self, size: tuple[int, int]) -> Explanation:
        """The same for the photograph of this size whose 224 x 224 pixels were explained.

        Arrays, Pillow images and DICOM files are sent as those pixels; see ``images.encoded``.
        """
        return replace(self, size=size, crop=crop_box(size))

    def to_dict(self) -> dict[str, Any]:
        """Every field, as JSON types."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**values, "grid": self.grid.tolist(), "size": list(self.size), "crop": list(self.crop)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Explanation:
        """Read what ``to_dict`` wrote; fields that are not known here are left out."""
        known = {f.name: values[f.name] for f in fields(cls)}
        known["grid"] = np.asarray(known["grid"], dtype=np.float32)
        return cls(**{**known, "size": tuple(known["size"]), "crop": tuple(known["crop"])})

    def _crop_at(self, size: tuple[int, int]) -> Box:
        across, down = size[0] / self.size[0], size[1] / self.size[1]
        left, top, right, bottom = self.crop
        return left * across, top * down, right * across, bottom * down

    def _map(self, size: tuple[int, int]) -> NDArray[np.float32]:
        left, top, right, bottom = self._crop_at(size)
        across = _interpolation(self.grid.shape[1], left, right, size[0])
        down = _interpolation(self.grid.shape[0], top, bottom, size[1])
        return np.asarray(down @ self.grid @ across.T, dtype=np.float32)


def _interpolation(cells: int, start: float, end: float, pixels: int) -> NDArray[np.float32]:
    """Linear weights of each cell in each pixel, (pixels, cells), for cells between start and end.

    Rows of pixels whose centre lies outside are zero.
    """
    centres = np.arange(pixels) + 0.5
    place = (centres - start) / (end - start) * cells - 0.5
    place, inside = place.clip(0, cells - 1), (centres >= start) & (centres <= end)
    weights = (1 - np.abs(place[:, None] - np.arange(cells))).clip(0, 1) * inside[:, None]
    return np.asarray(weights, dtype=np.float32)


class HttpSaliency:
    """A connection to the saliency sidecar. Safe to share between threads.

    Args:
        url: its HTTP address.
        token: sent as ``Authorization: Bearer``.
        tls: roots and client certificate for an ``https`` address; default: the system's roots.
    """

    def __init__(
        self, url: str = DEFAULT_SALIENCY_URL, token: str | None = None, tls: TLS | None = None
    ) -> None:
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._secure = tls.for_http() if tls and self.url.startswith("https:") else {}
        self._open: tuple[int, Any] | None = None

    @property
    def _pool(self) -> Any:
        """This process's connections: over those of its parent it would get another's answers."""
        import urllib3

        if self._open is None or self._open[0] != os.getpid():
            pool = urllib3.PoolManager(headers=self._headers, retries=False, maxsize=16, **self._secure)
            self._open = (os.getpid(), pool)
        return self._open[1]

    def explain(
        self,
        image: bytes,
        *,
        prompt: str | None = None,
        condition: str | None = None,
        method: str | None = None,
        timeout: float = 30.0,
        request_id: str | None = None,
    ) -> Explanation:
        """Ask which pixels of an encoded image speak for a prompt, or for a condition's definitions.

        Args:
            prompt: free text of at most 300 characters; or else
            condition: a condition's code.
            method: one of those that ``ready`` lists; the sidecar's default otherwise.
            timeout: seconds, everything included.
            request_id: under which the sidecar logs it; default: the sidecar draws one.

        Raises:
            InvalidImage: one of its subclasses, as ``classify`` raises them.
            InvalidRequest: the prompt, condition or method is refused; the message says why.
            AccessDenied: the token is missing or wrong.
            ServiceUnavailable, Overloaded, DeadlineExceeded, ServiceError: see ``errors``.
        """
        form = {"prompt": prompt, "condition": condition, "method": method, "format": "json"}
        body = self._post(image, form, timeout, request_id)
        try:
            return Explanation.from_dict(json.loads(body))
        except (ValueError, KeyError, TypeError) as exc:
            raise errors.ServiceError(f"{self.url} answered with something else than an explanation") from exc

    def ready(self, timeout: float = 5.0) -> dict[str, Any]:
        """Read the sidecar's ``/readyz``: ``ready``, bundle, methods and, where it differs, why.

        Raises:
            ServiceUnavailable, DeadlineExceeded, ServiceError: it does not answer.
        """
        _, body = self._request("GET", "/readyz", timeout)
        return dict(_json(body))

    def methods(self, timeout: float = 5.0) -> dict[str, str]:
        """The names of the sidecar's methods, and what a person calls them; the default comes first.

        Raises:
            ServiceUnavailable, DeadlineExceeded, ServiceError: it does not answer, or not with methods.
        """
        labels = self.ready(timeout).get("method_labels")
        if not isinstance(labels, dict):
            raise errors.ServiceError(f"{self.url} answered with something else than its methods")
        return labels

    def close(self) -> None:
        if self._open is not None and self._open[0] == os.getpid():
            self._open[1].clear()

    def _post(
        self, image: bytes, form: Mapping[str, str | None], timeout: float, request_id: str | None
    ) -> bytes:
        check_encoded(image)
        given: dict[str, Any] = {name: value for name, value in form.items() if value is not None}
        # The name is a constant: those of files may tell who is on the photograph.
        given["image"] = ("image", image, "application/octet-stream")
        named = {HEADER: request_id} if request_id else {}
        status, body = self._request("POST", PATH, timeout, fields=given, headers={**self._headers, **named})
        if status != 200:
            raise self._error(status, _json(body))
        return body

    def _request(self, verb: str, path: str, timeout: float, **content: Any) -> tuple[int, bytes]:
        import urllib3

        end = time.monotonic() + timeout
        with self._translated():
            answer = self._pool.request(
                verb,
                self.url + path,
                timeout=urllib3.Timeout(total=timeout),
                preload_content=False,
                **content,
            )
            try:
                return answer.status, b"".join(self._pieces(answer, end))
            finally:
                answer.release_conn()

    def _pieces(self, answer: Any, end: float) -> Iterator[bytes]:
        for piece in answer.stream(_PIECE):
            if time.monotonic() > end:
                answer.close()
                raise errors.DeadlineExceeded(f"{self.url} did not answer in time")
            yield piece

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn urllib3's errors into this package's."""
        from urllib3.exceptions import HTTPError, NewConnectionError, TimeoutError

        try:
            yield
        except HTTPError as exc:
            # A refused connection counts as a time-out for urllib3.
            if isinstance(exc, TimeoutError) and not isinstance(exc, NewConnectionError):
                raise errors.DeadlineExceeded(f"{self.url} did not answer in time") from exc
            raise errors.ServiceUnavailable(f"{self.url} is not available: {exc}") from exc

    def _error(self, status: int, answer: Mapping[str, Any]) -> errors.DermaError:
        name, message = str(answer.get("error", "")), str(answer.get("message", ""))
        if image_error := errors.from_wire(f"{name}: {message}"):
            return image_error
        if status == 503:
            kind = errors.Overloaded if name == "Overloaded" else errors.ServiceUnavailable
            return kind(f"{self.url} is not available: {message or 'no reason given'}")
        if status == 504:
            return errors.DeadlineExceeded(message or f"{self.url} did not answer in time")
        message = message or name  # a proxy's answer has only one of them
        if status in (401, 403):
            return errors.AccessDenied(f"{self.url} refused the caller: {message or status}")
        if status == 429:
            return errors.Overloaded(f"{self.url} is overloaded: {message or 'too many requests'}")
        if 400 <= status < 500:
            return errors.InvalidRequest(message or f"{self.url} refused the request ({status})")
        return errors.ServiceError(f"{self.url} failed ({status}): {message or 'no reason given'}")


def _json(body: bytes) -> Mapping[str, Any]:
    """The object in an answer's body; empty where a proxy answered with something else."""
    try:
        content = json.loads(body)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _upright(image: ImageLike) -> Image.Image:
    """The whole photograph, at its own size."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    if isinstance(image, (str, os.PathLike)):
        image = read_regular(image)
    if isinstance(image, bytes):
        image = opened(image)
    return ImageOps.exif_transpose(image).convert("RGB")


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
