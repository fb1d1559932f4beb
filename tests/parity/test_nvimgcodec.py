"""nvImageCodec gives the pixels that Pillow gives, and never answers for an image that Pillow refuses.

On GPU 0 where there is one, else on the processor.
"""

import io

import numpy as np
import pytest
from PIL import Image

from derma_bench.hardware import gpus
from derma_semantics.domain.errors import InvalidImage
from derma_semantics.imaging.preprocess import PIXEL_TOLERANCE, preprocess
from derma_semantics.imaging.synthetic import draw
from derma_serving.runtime.nvimgcodec import Decoder
from tests.faults.mutations import mutated

pytest.importorskip("nvidia.nvimgcodec", reason="nvidia-nvimgcodec is not installed")
SIZES = [(600, 450), (450, 600), (224, 224), (225, 224), (64, 40), (333, 1000), (301, 449), (2001, 333)]


@pytest.fixture(scope="module")
def decoder():
    return Decoder(0 if gpus() else None)


def encode(image, kind="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def away(pixels, data):
    assert pixels is not None, "it was left to Pillow"
    return np.abs(preprocess(data).astype(int) - pixels).max()


def test_it_passes_its_own_check(decoder):
    decoder.check()


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("quality", [60, 92])
def test_sizes_in_one_call(decoder, subsampling, quality):
    images = [
        encode(draw(seed, size).image, subsampling=subsampling, quality=quality)
        for seed, size in enumerate(SIZES)
    ]
    for pixels, data in zip(decoder.preprocess(images), images, strict=True):
        assert away(pixels, data) <= PIXEL_TOLERANCE


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(decoder, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(draw(3, (300, 225)).image, exif=exif)
    (pixels,) = decoder.preprocess([data])
    assert away(pixels, data) <= PIXEL_TOLERANCE


def test_restart_markers(decoder):
    data = encode(draw(4, (301, 225)).image, restart_marker_blocks=4)
    (pixels,) = decoder.preprocess([data])
    assert away(pixels, data) <= PIXEL_TOLERANCE


def test_other_kinds_are_left_to_pillow(decoder):
    image = draw(5, (300, 225)).image
    kinds = {
        "progressive": encode(image, progressive=True),
        "grey": encode(image.convert("L")),
        "CMYK": encode(image.convert("CMYK")),
        "stored as RGB": encode(image, keep_rgb=True),
        "PNG": encode(image, "PNG"),
        "WebP": encode(image, "WEBP"),
        "TIFF": encode(image, "TIFF"),
        "BMP": encode(image, "BMP"),
    }
    whole = encode(image)
    *others, found = decoder.preprocess([*kinds.values(), whole])
    assert dict(zip(kinds, others, strict=True)) == dict.fromkeys(kinds)
    assert away(found, whole) <= PIXEL_TOLERANCE


def test_what_pillow_refuses_is_left_to_it(decoder):
    whole = encode(draw(6, (300, 225)).image)
    too_large = bytearray(encode(Image.new("RGB", (64, 64))))
    at = too_large.find(b"\xff\xc0") + 5
    too_large[at : at + 4] = b"\xff\xff\xff\xff"
    refused = [
        b"",
        b"this is text",
        whole + bytes(20 * 2**20),
        bytes(too_large),
        encode(Image.new("RGB", (31, 400))),
        encode(Image.new("RGB", (40, 4100))),
        *(whole[: int(len(whole) * share)] for share in (0.1, 0.5, 0.95)),
    ]
    for data in refused:
        with pytest.raises(InvalidImage):
            preprocess(data)
    assert decoder.preprocess(refused) == [None] * len(refused)


def test_damaged_files_are_read_or_refused_alike(decoder):
    """A whole photograph among them stays what it is."""
    whole = encode(draw(7, (300, 225)).image)
    damaged = [data for number in range(1500) if (data := mutated(number)).startswith(b"\xff\xd8")]
    taken = 0
    for start in range(0, len(damaged), 16):
        images = [*damaged[start : start + 16], whole]
        *found, last = decoder.preprocess(images)
        assert away(last, whole) <= PIXEL_TOLERANCE
        for pixels, data in zip(found, images, strict=False):
            if pixels is not None:
                taken += 1
                assert away(pixels, data) <= PIXEL_TOLERANCE  # and not refused
    assert 20 < taken < len(damaged) - 100


def test_real_photographs(decoder, isic2018):
    paths = sorted((isic2018 / "ISIC2018_Task3_Training_Input").glob("*.jpg"))[::120]
    images = [path.read_bytes() for path in paths]
    for pixels, data in zip(decoder.preprocess(images), images, strict=True):
        assert away(pixels, data) <= PIXEL_TOLERANCE


def test_full_size_photographs(decoder, fullsize):
    paths = sorted((fullsize / "images").glob("*.jpg"))
    for start in range(0, len(paths), 8):
        images = [path.read_bytes() for path in paths[start : start + 8]]
        for pixels, data in zip(decoder.preprocess(images), images, strict=True):
            assert away(pixels, data) <= PIXEL_TOLERANCE
