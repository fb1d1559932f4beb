"""The web app over an injected client; in a browser and with the real services it is tested in e2e."""

import asyncio
import csv
import io
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, FileMetaDataset, dcmwrite, uid
from starlette.formparsers import MultiPartParser
from starlette.requests import Request
from streamlit.testing.v1 import AppTest

from derma_export.facts import facts
from derma_semantics import app
from derma_semantics.app import texts
from derma_semantics.app.markup import element
from derma_semantics.conditions import CODES, CONDITIONS
from derma_semantics.contract import MAX_ENCODED_BYTES, RANDOM_WEIGHTS, Triage
from derma_semantics.diagnosis import Diagnosis, Finding, ServedBundle
from derma_semantics.errors import CorruptImage, InvalidRequest, ServiceUnavailable
from derma_semantics.numbers import significant
from derma_semantics.preprocess import crop_box
from derma_semantics.saliency import Explanation
from derma_semantics.synthetic import draw
from derma_training.bundle import Bundle

DIGEST = "ab" * 32
MELANOMA = (0.72, 0.12, 0.09, 0.02, 0.03, 0.019, 0.001)
NEVUS = (0.02, 0.9, 0.01, 0.02, 0.03, 0.01, 0.01)
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def _own_main(monkeypatch):
    """Streamlit's tests put their script in the place of ``__main__``, which spawned processes would run."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


class FakeClient:
    """Answers everything alike; switches say what is down."""

    def __init__(self, bundle, probabilities=MELANOMA, risk=0.83, triage=Triage.URGENT):
        self.served = bundle
        self.probabilities, self.risk, self.triage = probabilities, risk, triage
        self.down = self.sidecar_down = False
        self.classified, self.explained = [], []
        self.dies_at = None
        self.other_digest = None

    def ready(self, *, timeout):
        return True

    def bundle(self, *, timeout):
        if self.down:
            raise ServiceUnavailable("127.0.0.1:8001 is not available: refused")
        return self.served

    def classify(self, image):
        self.classified.append(image)
        findings = [Finding(c, p) for c, p in zip(CONDITIONS, self.probabilities, strict=True)]
        ranked = tuple(sorted(findings, key=lambda f: -f.probability))
        possible = tuple(f.condition for f in ranked if f.probability > 0.1)
        return Diagnosis(ranked, self.risk, self.triage, possible, np.ones(4, np.float32), self.served)

    def classify_many(self, images):
        for number, image in enumerate(images):
            if number == self.dies_at:
                yield image, ServiceUnavailable("gone")
            elif image == b"bad":
                yield image, CorruptImage("the JPEG is truncated")
            else:
                yield image, self.classify(image)

    def explain(self, image, prompt=None, *, condition=None, method=None, timeout):
        self.explained.append((prompt, condition, method))
        if self.sidecar_down:
            raise ServiceUnavailable("127.0.0.1:8003 is not available: refused")
        if prompt == "too long":
            raise InvalidRequest("the prompt has too many characters")
        size, grid = (600, 450), np.ones((14, 14), np.float32)
        digest = self.other_digest or self.served.digest
        return Explanation(prompt or condition, "attention", 0.08, {}, grid, size, crop_box(size), digest)


@pytest.fixture
def bundle(mini):
    stated = facts(Bundle.open(mini))
    network = {"bundle_name": "derma-mini", "bundle_digest": DIGEST, "precision": "fp32", "version": "3"}
    return ServedBundle.from_network({**network, "prompts_digest": "cd" * 32, **stated})


@pytest.fixture
def client(bundle):
    return FakeClient(bundle)


def script(client):
    from derma_semantics.app.page import render

    render(client)


def opened(client, source=None):
    page = AppTest.from_function(script, args=(client,), default_timeout=60).run()
    if source:
        page.segmented_control(key="source").set_value(source).run()
    assert not page.exception
    return page


def shown(page):
    """All HTML that the page has, style sheet aside."""
    assert not page.exception
    return "\n".join(e.value for e in page.get("html") if not e.value.startswith("<style>"))


def with_maps(client):
    page = opened(client, "Sample")
    return page.button(key="xray").click().run()


def typed(page, text):
    """The first text, as a browser would send it; AppTest knows no options that are typed."""
    box = page.selectbox(key="left Melanoma")
    box.options.append(text)
    box.set_value(text)
    return page


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


def test_two_maps_side_by_side(client):
    page = with_maps(client)
    assert client.explained == [(None, "MEL", None), (None, "NV", None)]
    assert len(page.get("image")) == 3
    assert shown(page).count("+0.080, closer to this text") == 2
    assert texts.OTHER_WEIGHTS not in shown(page)


def test_opacity_is_a_matter_of_drawing(client):
    page = with_maps(client)
    before = [image.value for image in page.get("image")]
    page.slider(key="opacity").set_value(90).run()
    after = [image.value for image in page.get("image")]
    assert len(client.explained) == 2
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_free_text_and_methods_are_asked_for(client):
    page = with_maps(client)
    page.radio(key="method").set_value("Grad-CAM")
    page.selectbox(key="right Melanocytic nevus").set_value("Dermatofibroma")
    typed(page, " signs of melanoma ").run()
    assert client.explained[2:] == [("signs of melanoma", None, "grad-cam"), (None, "DF", "grad-cam")]


def test_a_condition_may_be_typed(client):
    typed(with_maps(client), "dermatofibroma").run()
    assert client.explained[-1] == (None, "DF", None)


def test_prompts_are_letters_not_markup(client):
    page = with_maps(client)
    typed(page, SCRIPT).run()
    assert client.explained[-1] == (SCRIPT, None, None)
    assert SCRIPT not in shown(page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown(page)
    assert not any(SCRIPT in caption for image in page.get("image") for caption in image.captions)


def test_a_refused_prompt_leaves_the_other_map(client):
    page = with_maps(client)
    typed(page, "too long").run()
    assert "The prompt has too many characters." in shown(page)
    assert len(page.get("image")) == 2


def test_maps_of_other_weights_are_told(client):
    client.other_digest = "ef" * 32
    assert texts.OTHER_WEIGHTS in shown(with_maps(client))


def test_without_the_sidecar_the_page_says_so_and_recovers(client):
    client.sidecar_down = True
    page = with_maps(client)
    assert texts.SALIENCY_DOWN in shown(page)
    assert len(client.explained) == 2  # once a drawing: the page is drawn again, to go on asking
    assert "127.0.0.1:8003 is not available: refused" in shown(page)
    assert "High risk" in shown(page)
    client.sidecar_down = False
    page.run()
    assert texts.SALIENCY_DOWN not in shown(page)
    assert len(page.get("image")) == 3


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


def batch_of(page, *files):
    page.file_uploader(key="batch").set_value([(name, data, "image/jpeg") for name, data in files]).run()
    return page.button(key="classify").click().run()


def test_a_batch_is_a_table_and_a_list_of_failures(client, jpeg):
    client.risk = 0.0083996
    page = batch_of(opened(client), ("a.jpg", jpeg(1)), (f"{SCRIPT}.jpg", b"bad"), ("c.jpg", jpeg(3)))
    table = page.dataframe[0].value
    assert list(table["Image"]) == ["a.jpg", "c.jpg"]
    assert list(table["Probability"]) == [72.0, 72.0]
    assert list(table["Risk score"]) == [client.risk] * 2  # shown with the digits that the alert has
    assert b"0.008399" in page.dataframe[0].proto.arrow_data.styler.display_values
    assert list(table["Alert"]) == ["High risk", "High risk"]
    assert "1 image was not classified" in shown(page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;.jpg: The JPEG is truncated." in shown(page)
    assert SCRIPT not in shown(page)
    assert page.button(key="classify").label == "Classify 3 images"


def test_a_batch_s_csv_has_every_image(client, jpeg):
    from derma_semantics.app.batch import as_csv

    answers = [("a.jpg", client.classify(b"x")), ("b.jpg", CorruptImage("damaged, and how"))]
    good, bad = csv.DictReader(io.StringIO(as_csv(answers)))
    assert good["condition"] == "MEL"
    assert [float(good[code]) for code in CODES] == list(MELANOMA)
    assert (good["triage"], good["high_risk"], good["prediction_set"]) == ("urgent", "true", "MEL NV")
    assert good["bundle_digest"] == DIGEST
    assert (bad["image"], bad["error"], bad["message"]) == ("b.jpg", "CorruptImage", "damaged, and how")
    assert (good["error"], bad["MEL"]) == ("", "")


def test_a_batch_ends_where_the_service_does(client, jpeg):
    client.dies_at = 1
    page = batch_of(opened(client), *((f"{n}.jpg", jpeg(n)) for n in range(4)))
    assert list(page.dataframe[0].value["Image"]) == ["0.jpg"]
    assert "3 images were not classified." in shown(page)


def test_other_files_are_another_batch(client, jpeg):
    page = batch_of(opened(client), ("a.jpg", jpeg(1)))
    assert page.button(key="classify").label == "Classify 1 image"
    page.file_uploader(key="batch").set_value([("b.jpg", jpeg(2), "image/jpeg")]).run()
    assert not page.dataframe


def test_settings_equal_the_contract_s():
    settings = app.options(9000)
    assert settings["server.maxUploadSize"] * 2**20 == MAX_ENCODED_BYTES
    assert settings["server.address"] == "127.0.0.1"
    assert settings["browser.gatherUsageStats"] == "false"


def test_uploads_stay_in_memory(monkeypatch):
    """Up to the limit, though the web server would spool them to a file."""

    def rolled_to_disk():
        data = bytes(MAX_ENCODED_BYTES)
        head = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a.jpg"\r\n\r\n'
        body = {"type": "http.request", "body": head + data + b"\r\n--x--\r\n", "more_body": False}
        kind = (b"content-type", b"multipart/form-data; boundary=x")
        scope = {"type": "http", "method": "PUT", "headers": [kind]}

        async def read():
            async def receive():
                return body

            form = await Request(scope, receive).form()
            return form["f"].file._rolled

        return asyncio.run(read())

    monkeypatch.setattr(MultiPartParser, "spool_max_size", 2**20)
    assert rolled_to_disk()
    app.keep_uploads_in_memory()
    assert not rolled_to_disk()


def test_the_app_has_no_model_code():
    code = (
        "import sys, derma_semantics.app.page\n"
        "print([m for m in ('torch', 'derma_training', 'derma_export', 'onnxruntime') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0"), (0.001, "<1"), (0.005, "<1"), (0.126, "13"), (0.994, "99"), (0.996, ">99"), (1, "100")],
)
def test_percentages(share, text):
    assert texts.percent(share) == f"{text}\u00a0%"


def test_plurals():
    assert texts.count(0, "image") == "0 images"
    assert texts.count(1, "image") == "1 image"
    assert texts.count(1200, "image was", "images were") == "1,200 images were"
