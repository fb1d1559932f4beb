"""Decoders that are right pass, wrong ones exceed the tolerance, and all turn images alike."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from derma_bench.decode.command import decode, with_nvimgcodec
from derma_bench.decode.decoders import (
    DECODERS,
    REFERENCE,
    AtOnce,
    Decoder,
    Header,
    Pixels,
    by_nvimgcodec,
    simplejpeg_pillow,
)
from derma_bench.decode.measure import PROBABILITY_TOLERANCE, differences, measure, turns
from derma_bench.decode.pictures import encode, pictures
from derma_semantics.imaging.preprocess import PIXEL_TOLERANCE, preprocess, resize_and_crop
from derma_semantics.imaging.preprocess import decode as decode_image

Jpeg = Callable[[int], bytes]
EXACT = "simplejpeg + Pillow"


def swapped(data: bytes) -> Pixels:
    return preprocess(data)[..., ::-1]


def shifted(data: bytes) -> Pixels:
    return np.roll(preprocess(data), 1, axis=1)


def unturned(data: bytes) -> Pixels:
    """Forgets the EXIF orientation."""
    return resize_and_crop(Image.open(io.BytesIO(data)).convert("RGB"))


def nearest(data: bytes) -> Pixels:
    image = decode_image(data)
    return resize_and_crop(image.resize((298, 224), Image.Resampling.NEAREST))


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


@pytest.mark.parametrize("name", [REFERENCE, EXACT, "simplejpeg + torchvision"])
def test_careful_decoders_pass(name: str, jpeg: Jpeg) -> None:
    assert compared(DECODERS[name], jpeg(0), jpeg(1))["passes"]


@pytest.mark.parametrize(("factor", "size", "passes"), [(1, (450, 338), False), (3, (900, 675), True)])
def test_scaled_decoding_passes_if_it_leaves_enough_to_resize(
    factor: int, size: tuple[int, int], passes: bool, picture: Callable[[int], Image.Image]
) -> None:
    large = encode(picture(0), (1800, 1350))
    image = Image.open(io.BytesIO(large))
    image.draft("RGB", Header.read(large).scaled(factor))
    assert image.size == size  # it is not the whole picture that is decoded
    found = compared(DECODERS[f"Pillow draft >= {factor}x"], large)
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
    away = np.abs(preprocess(image).astype(int) - DECODERS[name](image)).mean()
    assert away < 3  # of 255; a wrong turn is away by more than 10
    if orientation > 1:
        assert np.abs(preprocess(image).astype(int) - unturned(image)).mean() > 5


@pytest.mark.parametrize("size", [(601, 449), (449, 601), (225, 224), (224, 224), (100, 37), (2001, 333)])
@pytest.mark.parametrize("name", [EXACT, "simplejpeg + torchvision"])
def test_odd_shapes_agree(name: str, size: tuple[int, int], picture: Callable[[int], Image.Image]) -> None:
    assert compared(DECODERS[name], encode(picture(0), size))["pixel_difference"] <= PIXEL_TOLERANCE  # type: ignore[operator]


def test_grey_images_are_read_as_rgb(picture: Callable[[int], Image.Image]) -> None:
    buffer = io.BytesIO()
    picture(0).convert("L").save(buffer, "JPEG")
    for decoder in DECODERS.values():
        assert decoder(buffer.getvalue()).shape == (224, 224, 3)
    assert compared(simplejpeg_pillow, buffer.getvalue())["pixel_difference"] == 0


def test_decoders_take_turns(jpeg: Jpeg) -> None:
    called: list[str] = []

    def noting(name: str, data: bytes) -> Pixels:
        called.append(name)
        return preprocess(data)

    rows = turns({name: partial(noting, name) for name in "ab"}, [jpeg(0), jpeg(1)], rounds=2)
    assert "".join(called) == "ab" * 6  # two images, a round to warm up and two that count
    assert [(row["round"], row["decoder"]) for row in rows] == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]


def test_those_that_decode_at_once_are_given_all_images(jpeg: Jpeg) -> None:
    calls: list[int] = []

    def many(images: Sequence[bytes]) -> list[Pixels]:
        calls.append(len(images))
        return [shifted(image) for image in images]

    images = [jpeg(0), jpeg(1)]
    rows = turns({REFERENCE: preprocess, "many": AtOnce(many)}, images, rounds=1)
    assert calls == [2, 2]
    assert [row["decoder"] for row in rows] == [REFERENCE, "many"] and all(row["ms"] > 0 for row in rows)
    assert not compared(AtOnce(many), *images)["passes"]


def test_nvimgcodec_passes_or_says_why_it_is_skipped(jpeg: Jpeg, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nvidia.nvimgcodec", reason="nvidia-nvimgcodec is not installed")
    decoders, skipped = with_nvimgcodec()
    (name,) = set(decoders) - set(DECODERS)
    assert name.startswith("nvImageCodec") and not skipped
    assert compared(decoders[name], jpeg(0), turned(jpeg(1), 6))["passes"]
    with pytest.raises(RuntimeError, match="1 of 2 images were left to Pillow"):
        by_nvimgcodec(None).many([jpeg(0), jpeg(1)[:3000]])
    monkeypatch.setitem(sys.modules, "nvidia", None)
    decoders, skipped = with_nvimgcodec()
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
    decoders = {REFERENCE: preprocess, "wrong": shifted}
    figures, rows = measure(decoders, [(320, 240), (240, 320)], count=1, rounds=1)
    table = [(row["size"], row["decoder"], row["passes"]) for row in figures["decoders"]]
    assert table == [
        (size, *rest) for size in ("320 x 240", "240 x 320") for rest in ((REFERENCE, True), ("wrong", False))
    ]
    assert len(rows) == 4 and all(row["ms"] > 0 for row in rows)


def test_help_states_the_tolerance_and_bad_sizes_are_refused() -> None:
    runner = CliRunner()
    text = " ".join(runner.invoke(decode, ["--help"]).output.split())
    assert f"{PIXEL_TOLERANCE} of 255, and {PROBABILITY_TOLERANCE}" in text
    assert runner.invoke(decode, ["--size", "large"]).exit_code == 2
