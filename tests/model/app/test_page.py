"""What the page says of an image and of the model, and where it cannot."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, FileMetaDataset, dcmwrite, uid

from derma_semantics.app import texts
from derma_semantics.app.markup import element
from derma_semantics.domain.conditions import CONDITIONS
from derma_semantics.domain.contract import RANDOM_WEIGHTS, Triage
from derma_semantics.domain.errors import ServiceUnavailable
from derma_semantics.domain.numbers import significant
from derma_semantics.imaging.synthetic import draw
from tests.model.app.conftest import DIGEST, MELANOMA, FakeClient, opened, shown

NEVUS = (0.02, 0.9, 0.01, 0.02, 0.03, 0.01, 0.01)


def dicom():
    """A photograph with a patient."""
    pixels = np.asarray(draw(1).image)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = uid.DermoscopicPhotographyImageStorage, uid.generate_uid()
    ds.PatientName, ds.PatientID = "Nightingale^Florence", "PAT-1820"
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.SamplesPerPixel, ds.PlanarConfiguration, ds.PhotometricInterpretation = 3, 0, "RGB"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PixelData = pixels.tobytes()
    buffer = io.BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def encode(image, kind="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def test_the_notice_is_there_before_and_after(client):
    page = opened(client)
    assert "Research use. Not a medical device." in shown(page)
    assert "Choose a dermoscopic photograph" in shown(page)
    page.segmented_control(key="source").set_value("Sample").run()
    assert "Research use. Not a medical device." in shown(page)


def test_the_differential_has_every_condition_and_its_definitions(client):
    html = shown(opened(client, "Sample"))
    places = [
        html.index(f"<span>{name}</span>") for name in ("Melanoma", "Melanocytic nevus", "Vascular lesion")
    ]
    assert places == sorted(places)
    for condition in CONDITIONS:
        assert element("li", texts.first_upper(condition.prompts[1])) in html
    assert '<span class="value">72\u00a0%</span>' in html
    assert '<span class="value">&lt;1\u00a0%</span>' in html
    assert html.count('class="possible"') == 2
    captions = [caption.value for caption in opened(client, "Sample").caption]
    assert any("assume that all seven conditions are equally frequent" in text for text in captions)


@pytest.mark.parametrize(
    ("probabilities", "risk", "triage", "tone", "words"),
    [
        (MELANOMA, 0.83, 2, "red", ["High risk", "Melanoma ranks first", "; {urgent} and above is urgent"]),
        (
            MELANOMA,
            0.3,
            1,
            "red",
            [
                "High risk",
                "always raises this alert",
                "; {review} and above is review, {urgent} and above urgent",
            ],
        ),
        (NEVUS, 0.7, 2, "red", ["High risk", "The risk score is 0.7000"]),
        (NEVUS, 0.2, 1, "amber", ["Review", "not alarming, but not safe to set aside"]),
        (NEVUS, 0.0083996, 0, "neutral", ["The risk score is 0.008399; below 0.008400 is routine"]),
        (NEVUS, 0.05, 0, "neutral", ["Routine", "; below {review} is routine", "does not rule out cancer"]),
    ],
)
def test_alerts(bundle, probabilities, risk, triage, tone, words):
    html = shown(opened(FakeClient(bundle, probabilities, risk, Triage(triage)), "Sample"))
    assert f"derma-box {tone}" in html
    thresholds = {level: significant(bundle.calibration[level]) for level in ("review", "urgent")}
    assert all(word.format(**thresholds) in html for word in words)
    level = "urgent" if triage == 2 else "review"
    promise = texts.typeset(texts.first_lower(bundle.calibration["guarantees"][level]))
    assert f"Set for: {promise}" in html
    found, missed = (
        bundle.calibration["achieved"][level]["malignancy"][k] for k in ("sensitivity", "specificity")
    )
    assert f"{found['value'] * found['n']:.0f} of {found['n']} malignant" in html
    assert f"{(1 - missed['value']) * missed['n']:.0f} of {missed['n']} benign" in html
    achieved = bundle.calibration["achieved"][level]["melanoma"]
    for kind in ("sensitivity", "specificity"):
        assert f"<b>{texts.percent(achieved[kind]['value'])}</b>" in html
        assert f"n = {achieved[kind]['n']}" in html
    assert f"Measured on {found['n'] + missed['n']} calibration images." in html


def test_an_older_service_states_no_calibration(client):
    client.served = replace(client.served, calibration=None, card=None)
    html = shown(opened(client, "Sample"))
    assert texts.NOT_STATED in html
    assert "The risk score is 0.8300: urgent." in html
    assert "Not stated by the service." in html


def test_an_image_is_classified_once(client, jpeg):
    page = opened(client)
    page.file_uploader(key="upload").upload("lesion.jpg", jpeg(1)).run()
    page.button(key="xray").click().run()
    page.slider(key="opacity").set_value(80).run()
    assert client.classified == [jpeg(1)]
    page.file_uploader(key="upload").set_value(("other.jpg", jpeg(2), "image/jpeg")).run()
    assert client.classified == [jpeg(1), jpeg(2)]
    assert page.button(key="xray")  # the maps of one image are not shown under another


def test_what_cannot_be_read_says_why(client):
    page = opened(client)
    page.file_uploader(key="upload").upload("lesion.jpg", b"no image").run()
    assert "The data is not an image in a supported format" in shown(page)
    page.file_uploader(key="upload").set_value(("s.png", encode(Image.new("RGB", (8, 8))), "image/png")).run()
    assert "The image is 8 x 8; each side needs at least 32 pixels." in shown(page)
    assert client.classified == []


def test_without_the_service_the_page_says_so_and_recovers(client):
    client.down = True
    page = opened(client, "Sample")
    assert texts.SERVICE_DOWN in shown(page)
    assert texts.WAITING in shown(page)
    assert client.classified == []
    client.down = False
    page.run()
    assert texts.SERVICE_DOWN not in shown(page)
    assert "High risk" in shown(page)
    client.down = True
    page.run()
    assert texts.SERVICE_DOWN in shown(page)
    assert "High risk" in shown(page)  # what was answered stays


def test_an_answer_that_fails_says_so(client):
    def classify(image):
        raise ServiceUnavailable("127.0.0.1:8001 is not available: the queue is full")

    client.classify = classify
    html = shown(opened(client, "Sample"))
    assert texts.NO_ANSWER in html
    assert "the queue is full" in html


def test_dicom_shows_its_picture_and_nobody_s_name(client):
    page = opened(client)
    page.file_uploader(key="upload").upload("lesion.dcm", dicom()).run()
    page.button(key="xray").click().run()
    assert "High risk" in shown(page)
    assert len(page.get("image")) == 3
    everything = repr(page.main) + repr([image.proto for image in page.get("image")])
    assert not any(secret in everything for secret in ("Nightingale", "PAT-1820"))


def test_random_weights_are_red(client):
    assert RANDOM_WEIGHTS not in shown(opened(client))
    client.served = replace(client.served, name=f"biomedclip {RANDOM_WEIGHTS}")
    assert f'<div class="derma-box red" role="alert"><h3>{RANDOM_WEIGHTS}</h3>' in shown(opened(client))


def test_the_model_card_has_figures_and_digests(client):
    html = shown(opened(client))
    assert DIGEST in html and "cd" * 32 in html
    assert "CC BY-NC 4.0" in html
    measured = client.served.card["measured"]
    balanced, found = measured["balanced_accuracy"], measured["melanoma"]["sensitivity"]
    value, low, high = (f"{100 * share:.0f}" for share in (balanced["value"], *balanced["interval_95"]))
    assert f"{value}\u00a0% (95\u00a0% interval {low}–{high}\u00a0%)" in html
    value, low, high = (f"{100 * share:.0f}" for share in (found["value"], *found["interval_95"]))
    interval = f"95\u00a0% interval {low}–{high}\u00a0%, n = {found['n']}"
    assert f"sensitivity {value}\u00a0% ({interval}); specificity" in html
    assert "Mostly light skin" in html
    assert client.served.calibration["assumes"]["prevalence"] in html
    assert f"Risk score {significant(client.served.calibration['review'])} and above." in html
