"""A real Triton that decodes by nvImageCodec answers and refuses as it does with Pillow."""

from contextlib import suppress
from pathlib import Path

import pytest

from derma_semantics.domain.contract import PREPROCESS
from derma_semantics.domain.errors import DermaError
from derma_semantics.wire.transport import ModelControl
from tests.services import ROOT

PARAMETER = '\nparameters {{ key: "decoder" value {{ string_value: "{}" }} }}\n'


def installed():
    """Whether the server's environment has nvImageCodec; by itself it comes without."""
    return any((ROOT / ".triton").glob("lib/python3*/site-packages/nvidia_nvimgcodec*"))


@pytest.fixture
def load(service, repository):
    """Have the server load the model that decodes, with this decoder; what was there is loaded again."""
    path = repository / PREPROCESS.name / "config.pbtxt"
    before = path.read_text()
    control = ModelControl(service.url)

    def ask(decoder):
        path.write_text(before + PARAMETER.format(decoder))
        control.load(PREPROCESS.name)

    yield ask
    path.write_text(before)
    control.load(PREPROCESS.name)
    control.close()


@pytest.fixture
def images(jpeg, picture, tmp_path):
    """Whole and damaged JPEGs, and other formats."""
    picture(1).save(tmp_path / "a.png")
    picture(2).save(tmp_path / "progressive.jpg", progressive=True)
    files = [(tmp_path / name).read_bytes() for name in ("a.png", "progressive.jpg")]
    return [jpeg(0), b"this is text", jpeg(1)[:3000], *files, jpeg(2), jpeg(3)[:-2]] * 4


def decoding(service):
    """Process ids of the model that decodes."""
    return [pid for pid, command in service.processes() if f" {PREPROCESS.name}_" in command]


def uses_nvimgcodec(pid):
    with suppress(OSError):
        return "libnvimgcodec" in Path(f"/proc/{pid}/maps").read_text()
    return False


def answers(client, images):
    return [
        (type(one), str(one)) if isinstance(one, DermaError) else one.embedding.tolist()
        for one in client.classify(images, return_exceptions=True)
    ]


@pytest.mark.skipif(not installed(), reason="nvidia-nvimgcodec is not installed")
def test_the_same_answers_and_refusals(service, client, load, images, until):
    by_pillow = answers(client, images)
    load("nvimgcodec")
    until(lambda: decoding(service) and all(map(uses_nvimgcodec, decoding(service))), 60, "it alone decodes")
    for one, other in zip(answers(client, images), by_pillow, strict=True):
        if isinstance(other, tuple):
            assert one == other
        else:
            assert one == pytest.approx(other, abs=1e-5)


def test_an_unknown_decoder_does_not_load_and_the_one_before_serves_on(client, load, jpeg):
    with pytest.raises(DermaError, match="unknown decoder 'dali': choose from pillow, nvimgcodec"):
        load("dali")
    assert client.classify(jpeg(0)).risk >= 0
