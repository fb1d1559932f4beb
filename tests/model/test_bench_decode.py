"""Decoders that are right pass, wrong ones exceed the tolerance, and all turn images alike."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from derma_bench.cli import main
from derma_bench.decode.decoders import (
    DECODERS,
    DRAFT,
    REFERENCE,
    Decoder,
    Header,
    Pixels,
    available,
    by_nvimgcodec,
    each,
)
from derma_bench.decode.measure import PROBABILITY_TOLERANCE, differences, measure, pictures, resized
from derma_semantics.imaging.preprocess import PIXEL_TOLERANCE, preprocess, resize_and_crop
from derma_semantics.imaging.preprocess import decode as decode_image

Jpeg = Callable[[int], bytes]
CAREFUL = "simplejpeg + torchvision"


@each
def swapped(data: bytes) -> Pixels:
    return preprocess(data)[..., ::-1]


@each
def shifted(data: bytes) -> Pixels:
    return np.roll(preprocess(data), 1, axis=1)


@each
def unturned(data: bytes) -> Pixels:
    """Forgets the EXIF orientation."""
    return resize_and_crop(Image.open(io.BytesIO(data)).convert("RGB"))


@each
def nearest(data: bytes) -> Pixels:
    image = decode_image(data)
    return resize_and_crop(image.resize((298, 224), Image.Resampling.NEAREST))


@each
def brighter(data: bytes) -> Pixels:
    return np.minimum(preprocess(data), 255 - PIXEL_TOLERANCE - 1) + np.uint8(PIXEL_TOLERANCE + 1)


def turned(data: bytes, orientation: int) -> bytes:
    """The same pixels, stored with another EXIF orientation."""
    image, exif, buffer = Image.open(io.BytesIO(data)), Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    image.save(buffer, "JPEG", quality=92, exif=exif)
    return buffer.getvalue()


def compared(decoder: Decoder, *images: bytes) -> dict[str, object]:
    return differences(decoder, images, [preprocess(image) for image in images])


@pytest.mark.parametrize("name", [REFERENCE, CAREFUL])
def test_careful_decoders_pass(name: str, jpeg: Jpeg) -> None:
    assert compared(DECODERS[name], jpeg(0), jpeg(1))["passes"]


def test_scaled_decoding_passes_if_it_leaves_enough_to_resize(
    picture: Callable[[int], Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    large, scaled = resized(picture(0), (1800, 1350)), DECODERS[f"Pillow draft >= {DRAFT}x"]
    for factor, size, passes in ((1, (450, 338), False), (3, (900, 675), True)):
        monkeypatch.setattr("derma_bench.decode.decoders.DRAFT", factor)
        image = Image.open(io.BytesIO(large))
        image.draft("RGB", Header.read(large).scaled(factor))
        assert image.size == size  # it is not the whole picture that is decoded
        found = compared(scaled, large)
        assert found["passes"] is passes
        assert found["pixel_difference"] > 0  # type: ignore[operator]


@pytest.mark.parametrize("wrong", [swapped, shifted, nearest, brighter])
def test_wrong_decoders_exceed_the_tolerance(wrong: Decoder, jpeg: Jpeg) -> None:
    found = compared(wrong, jpeg(0), jpeg(1))
    assert not found["passes"]
    assert found["pixel_difference"] > PIXEL_TOLERANCE  # type: ignore[operator]


def test_a_decoder_that_forgets_the_orientation_fails(jpeg: Jpeg) -> None:
    assert compared(unturned, jpeg(0))["passes"]
    assert not compared(unturned, turned(jpeg(0), 6))["passes"]


def test_the_worst_image_decides(jpeg: Jpeg) -> None:
    images = [jpeg(0), turned(jpeg(1), 3)]
    assert not compared(unturned, *images)["passes"]


@pytest.mark.parametrize(("change", "passes"), [(0.5, True), (2.0, False)])
def test_probabilities_count_too(change: float, passes: bool, jpeg: Jpeg) -> None:
    @each
    def one_brighter(data: bytes) -> Pixels:
        return np.minimum(preprocess(data), 254) + np.uint8(1)

    truth = [preprocess(jpeg(0))]
    dark = truth[0].mean()

    def probabilities(pixels: Pixels) -> np.ndarray:
        # Any brightening moves them by this much.
        return np.float32([change * PROBABILITY_TOLERANCE * (pixels.mean() > dark)])

    found = differences(one_brighter, [jpeg(0)], truth, probabilities)
    assert found["passes"] is passes
    assert found["probability_difference"] == pytest.approx(change * PROBABILITY_TOLERANCE)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder_turns_images_as_the_reference_does(name: str, orientation: int, jpeg: Jpeg) -> None:
    image = turned(jpeg(2), orientation)
    away = np.abs(preprocess(image).astype(int) - DECODERS[name]([image])).mean()
    assert away < 3  # of 255; a wrong turn is away by more than 10
    if orientation > 1:
        assert np.abs(preprocess(image).astype(int) - unturned([image])).mean() > 5


@pytest.mark.parametrize("size", [(601, 449), (449, 601), (225, 224), (224, 224), (100, 37), (2001, 333)])
def test_odd_shapes_agree(size: tuple[int, int], picture: Callable[[int], Image.Image]) -> None:
    assert compared(DECODERS[CAREFUL], resized(picture(0), size))["pixel_difference"] <= PIXEL_TOLERANCE  # type: ignore[operator]


def test_grey_images_are_read_as_rgb(picture: Callable[[int], Image.Image]) -> None:
    buffer = io.BytesIO()
    picture(0).convert("L").save(buffer, "JPEG")
    for decoder in DECODERS.values():
        (pixels,) = decoder([buffer.getvalue()])
        assert pixels.shape == (224, 224, 3)
    assert compared(DECODERS[CAREFUL], buffer.getvalue())["passes"]


def test_nvimgcodec_passes_or_says_why_it_is_skipped(jpeg: Jpeg, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nvidia.nvimgcodec", reason="nvidia-nvimgcodec is not installed")
    decoders, skipped = available()
    (name,) = set(decoders) - set(DECODERS)
    assert name.startswith("nvImageCodec") and not skipped
    assert compared(decoders[name], jpeg(0), turned(jpeg(1), 6))["passes"]
    with pytest.raises(RuntimeError, match="1 of 2 images were left to Pillow"):
        by_nvimgcodec(None)([jpeg(0), jpeg(1)[:3000]])
    monkeypatch.setitem(sys.modules, "nvidia", None)
    decoders, skipped = available()
    assert decoders == DECODERS
    assert "nvidia-nvimgcodec" in skipped[f"skipped: {name}"]


def test_pictures_have_the_size_asked_for(tmp_path: Path, picture: Callable[[int], Image.Image]) -> None:
    picture(0).save(tmp_path / "photo.png")
    drawn = list(pictures((1200, 900), 2))
    photographed = list(pictures((640, 480), 2, tmp_path))
    assert [Header.read(image).width for image in (*drawn, *photographed)] == [1200, 1200, 640]
    with pytest.raises(ValueError, match="no image"):
        list(pictures((640, 480), 2, Path(__file__).parent))


def test_figures_name_each_decoder_at_each_size() -> None:
    """Decoders take turns: a round to warm up, and two that count."""
    called: list[int] = []

    def noting(name: int, decoder: Decoder) -> Decoder:
        return lambda images: (called.append(name), decoder(images))[1]

    decoders = {REFERENCE: noting(0, DECODERS[REFERENCE]), "wrong": noting(1, shifted)}
    figures, rows = measure(decoders, [(320, 240), (240, 320)], count=1, rounds=2)
    table = [(row["size"], row["decoder"], row["passes"]) for row in figures["decoders"]]
    assert table == [
        (size, *rest) for size in ("320 x 240", "240 x 320") for rest in ((REFERENCE, True), ("wrong", False))
    ]
    assert called[:12] == 6 * [0, 1]
    assert len(rows) == 8 and all(row["ms"] > 0 for row in rows)


def test_help_states_the_tolerance() -> None:
    text = " ".join(CliRunner().invoke(main, ["decode", "--help"]).output.split())
    assert f"{PIXEL_TOLERANCE} of 255, and {PROBABILITY_TOLERANCE}" in text
