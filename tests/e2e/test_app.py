"""The web app in a headless Chromium, with Triton and the saliency sidecar behind it.

The tests run in order, on one page: parts are stopped and come back under it. Screenshots are
left in ``.run/screenshots``.
"""

import resource
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import urllib3
from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from derma_semantics import DermaClient
from derma_semantics.app import texts
from derma_semantics.imaging.synthetic import draw

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
SCRIPT = "<script>document.title='broken'</script>"
DESKTOP, PHONE, NOTICE = 1280, 390, 40
PATIENT = "Nightingale"
LOADED = """return [...document.querySelectorAll('[data-testid=stImage] img')]
    .filter(i => i.complete && i.naturalWidth > 0).map(i => i.src)"""
RIGHT_EDGES = """return [...document.querySelectorAll('[class*=derma-], img, .stButton')]
    .filter(e => e.checkVisibility()).map(e => e.getBoundingClientRect().right)"""


@dataclass
class Part:
    """A process that can be stopped and started again."""

    command: list[str]
    url: str
    files: bool = True
    process: subprocess.Popen | None = field(default=None, init=False)

    def start(self, until):
        self.process = subprocess.Popen(
            self.command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=None if self.files else write_no_file,
        )
        until(self.answers, 120, f"{self.url} answers")

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)

    def answers(self):
        assert self.process.poll() is None, f"{self.command} ended"
        try:
            return urllib3.request("GET", self.url, timeout=2.0, retries=False).status == 200
        except urllib3.exceptions.HTTPError:
            return False


def write_no_file():
    """Every write to a file fails in this process: the app keeps no image on disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


@dataclass
class Stack:
    triton: Part
    sidecar: Part
    app: Part
    page_url: str


@pytest.fixture(scope="module")
def stack(repository, launcher, mini, until, tmp_path_factory):
    http, grpc, metrics, saliency, page = free_ports(5)
    state = tmp_path_factory.mktemp("state")
    ports = [f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}"]
    triton = [*launcher, "serve", f"--repository={repository}", f"--state={state}", *ports]
    sidecar = ["-m", "derma_saliency", "serve", str(mini), f"--triton=127.0.0.1:{grpc}", f"--port={saliency}"]
    address = f"http://127.0.0.1:{saliency}"
    app = ["app", f"--port={page}", f"--url=127.0.0.1:{grpc}", f"--saliency-url={address}"]
    stack = Stack(
        Part(triton, f"http://127.0.0.1:{http}/v2/models/derma_classifier/ready"),
        Part([sys.executable, *sidecar], f"{address}/healthz"),
        Part(
            [sys.executable, "-m", "derma_semantics", *app], f"http://127.0.0.1:{page}/_stcore/health", False
        ),
        f"http://127.0.0.1:{page}",
    )
    parts = (stack.triton, stack.sidecar, stack.app)
    try:
        for part in parts:
            part.start(until)
        yield stack
    finally:
        for part in reversed(parts):
            part.stop()


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    found = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return found


class Page:
    """The app as a visitor sees it."""

    def __init__(self, driver, url):
        self.driver, self.url = driver, url
        self.folder = ROOT / ".run" / "screenshots"
        self.folder.mkdir(parents=True, exist_ok=True)

    def find(self, css, text="", seconds=60):
        """The first visible element with this text, as soon as there is one."""

        def found(driver):
            elements = driver.find_elements(By.CSS_SELECTOR, css)
            return next((e for e in elements if e.is_displayed() and text in e.text), None)

        wait = WebDriverWait(self.driver, seconds, 0.1, [WebDriverException])
        return wait.until(found, f"no {css} with {text!r}")

    def gone(self, css, text, seconds=60):
        def away(driver):
            elements = driver.find_elements(By.CSS_SELECTOR, css)
            return not any(e.is_displayed() and text in e.text for e in elements)

        WebDriverWait(self.driver, seconds, 0.1, [WebDriverException]).until(
            away, f"{css} with {text!r} stays"
        )

    def all(self, css):
        return [e for e in self.driver.find_elements(By.CSS_SELECTOR, css) if e.is_displayed()]

    def texts(self, css):
        """What these elements say, once the page is at rest."""
        return self.settled(f"return [...document.querySelectorAll('{css}')].map(e => e.innerText)")

    def press(self, css, text):
        """Click it, also where the page is being drawn anew under the pointer."""
        wait = WebDriverWait(self.driver, 60, 0.1, [WebDriverException])
        wait.until(lambda _: self.find(css, text).click() is None, f"{text!r} cannot be pressed")

    def tab(self, name):
        self.press("[role=tab]", name)

    def field(self, css):
        """An input that may be hidden, as those for files are."""
        wait = WebDriverWait(self.driver, 60, 0.1)
        return wait.until(lambda driver: driver.find_elements(By.CSS_SELECTOR, css), f"no {css}")[0]

    def upload(self, key, *paths):
        self.field(f".st-key-{key} input[type=file]").send_keys("\n".join(map(str, paths)))

    def type(self, key, text):
        """Into a box that offers choices and takes others."""
        field = self.field(f'[class*="st-key-{key}"] input')
        field.click()
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text)
        WebDriverWait(self.driver, 60, 0.1).until(lambda _: field.get_attribute("value") == text)
        field.send_keys(Keys.ENTER)

    def pictures(self):
        """The addresses of all pictures that are loaded."""
        return self.driver.execute_script(LOADED)

    def shot(self, name, width=DESKTOP):
        """The whole page as a picture."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        command = "Emulation.setDeviceMetricsOverride"
        self.driver.execute_cdp_cmd(command, size)
        script = "return document.querySelector('.stMainBlockContainer').scrollHeight"
        height = max(900, self.settled(script) + NOTICE)
        self.driver.execute_cdp_cmd(command, {**size, "height": height})
        self.settled(script)
        self.driver.save_screenshot(str(self.folder / f"{name}.png"))
        self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    def settled(self, script):
        """The value of ``script`` once it is the same ten times in a row."""
        values = []

        def same(driver):
            values.append(driver.execute_script(script))
            return len(values) >= 10 and all(value == values[-1] for value in values[-10:])

        WebDriverWait(self.driver, 30, 0.1).until(same)
        return values[-1]


@pytest.fixture(scope="module")
def page(stack):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--window-size={DESKTOP},900"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        driver.set_page_load_timeout(60)
        driver.get(stack.page_url)
        yield Page(driver, stack.page_url)
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def client(stack):
    with DermaClient(stack.triton.command[-2].replace("--grpc-port=", "127.0.0.1:")) as client:
        yield client


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A drawn picture of 9 megapixels: far more than a web server holds in memory on its own."""
    path = tmp_path_factory.mktemp("photo") / "lesion.png"
    noise = np.random.default_rng(0).integers(0, 12, (2600, 3466, 3), dtype=np.uint8)
    picture = np.asarray(draw(3).image.resize((3466, 2600))) // 2 + noise
    Image.fromarray(picture).save(path, compress_level=1)
    assert 2 * 2**20 < path.stat().st_size < 20 * 2**20
    return path


def test_a_photograph_gets_the_alert_and_the_chart_of_the_service(page, client, photo):
    page.find(".derma-state", "derma-mini")
    page.shot("01-start")
    page.upload("upload", photo)
    page.find(".derma-chart")
    diagnosis = client.classify(photo)
    tone = "red" if diagnosis.high_risk else "amber" if diagnosis.triage else "neutral"
    assert page.find(f".derma-alert .derma-box.{tone} h3")
    names = [texts.first_upper(f.condition.name) for f in diagnosis.differential]
    assert page.texts(".derma-chart .name > span") == names
    assert page.texts(".derma-chart .value") == [texts.percent(f.probability) for f in diagnosis.differential]
    assert "n = 49" in page.find(".derma-rates").text
    page.press(".derma-chart summary", names[0])
    page.find(".derma-chart li", texts.first_upper(diagnosis.top.condition.prompts[0]))
    page.shot("02-answer")


def test_two_heat_maps_side_by_side(page):
    page.press("button", "Show the heat maps")
    page.find(".derma-map")
    WebDriverWait(page.driver, 60, 0.1).until(
        lambda _: len(page.pictures()) == 3 and len(page.all(".derma-map")) == 2
    )
    first, second = page.all(".derma-map")
    assert first.rect["y"] == second.rect["y"] and first.rect["x"] < second.rect["x"]
    assert len(set(page.pictures())) == 3
    page.shot("03-xray")
    page.shot("04-phone", PHONE)


def test_nothing_is_wider_than_a_phone(page):
    size = {"width": PHONE, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    assert max(page.settled(RIGHT_EDGES)) <= PHONE
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_notice_stays_in_sight(page):
    page.driver.execute_script("document.querySelector('.stMain').scrollTo(0, 99999)")
    box = page.find(".derma-notice", "Research use. Not a medical device.").rect
    inside = page.driver.execute_script("return window.innerHeight")
    assert box["y"] >= 0 and box["y"] + box["height"] <= inside + 1


def test_a_text_of_one_s_own_is_shown_as_letters(page):
    page.type("left", SCRIPT)
    page.find(".derma-map strong", SCRIPT)
    assert page.driver.title == "Derma-Semantics"
    page.type("left", "irregular streaks at the edge")
    page.find(".derma-map strong", "irregular streaks at the edge")
    page.shot("05-own-words")


def test_the_page_asks_nobody_else(page):
    script = "return performance.getEntriesByType('resource').map(e => e.name)"
    asked = [name for name in page.driver.execute_script(script) if not name.startswith(("data:", "blob:"))]
    assert asked
    assert [name for name in asked if not name.startswith(page.url)] == []


def test_without_the_sidecar_it_says_so_and_recovers(page, stack, until):
    stack.sidecar.stop()
    page.type("left", "a blue veil")
    page.find(".derma-box.red h3", texts.SALIENCY_DOWN)
    assert page.find(".derma-alert h3")
    page.shot("06-no-sidecar")
    stack.sidecar.start(until)
    page.gone(".derma-box.red h3", texts.SALIENCY_DOWN)
    page.find(".derma-map strong", "a blue veil")


def test_a_batch_is_a_table(page, tmp_path):
    paths = [tmp_path / f"picture-{seed}.jpg" for seed in range(5)]
    for seed, path in enumerate(paths):
        draw(seed).image.save(path, quality=92)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(paths[0].read_bytes()[:3000])
    page.tab("Batch")
    page.upload("batch", *paths, broken)
    page.press("button", "Classify 6 images")
    page.find(".derma-failures li", "broken.jpg: The JPEG is truncated")
    table = page.field("[data-testid=stDataFrame] table").get_attribute("textContent")
    assert all(path.name in table for path in paths)
    page.find(".derma-box.amber", "1 image was not classified")
    page.shot("07-batch")
    page.find("button", "Download as CSV")


def test_the_model_card_names_the_bundle(page, client):
    page.tab("Model card")
    page.find(".derma-digests dd", client.bundle().digest)
    page.find(".derma-card dd", "CC BY-NC 4.0")
    page.shot("08-model-card")


def test_a_dicom_file_shows_its_picture_and_no_name(page, tmp_path):
    page.tab("One image")
    page.upload("upload", dicom(tmp_path / "lesion.dcm"))
    page.find(".derma-chart")
    page.press("button", "Show the heat maps")
    WebDriverWait(page.driver, 60, 0.1).until(lambda _: len(page.all(".derma-map")) == 2)
    assert PATIENT not in page.driver.page_source
    page.shot("09-dicom")


def test_the_camera(page):
    page.press("button", "Camera")
    playing = "return document.querySelector('[data-testid=stCameraInput] video')?.readyState >= 2"
    WebDriverWait(page.driver, 60, 0.1).until(lambda driver: driver.execute_script(playing))
    page.press("[data-testid=stCameraInput] button", "Take")
    page.find(".derma-chart")
    page.shot("10-camera")


def test_without_triton_it_says_so_and_recovers(page, stack, until):
    stack.triton.stop()
    page.find(".derma-box.red h3", texts.SERVICE_DOWN)
    page.press("button", "Sample")
    page.find(".derma-empty", texts.WAITING)
    page.shot("11-no-service")
    stack.triton.start(until)
    page.gone(".derma-box.red h3", texts.SERVICE_DOWN)
    page.find(".derma-chart")


def test_the_app_ends_when_asked(stack):
    stack.app.stop()
    assert stack.app.process.returncode in (0, -signal.SIGTERM)


def dicom(path):
    from pydicom import Dataset, FileMetaDataset, dcmwrite, uid

    pixels = np.asarray(draw(4).image)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = uid.DermoscopicPhotographyImageStorage, uid.generate_uid()
    ds.PatientName, ds.PatientID = f"{PATIENT}^Florence", f"{PATIENT}-1820"
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.SamplesPerPixel, ds.PlanarConfiguration, ds.PhotometricInterpretation = 3, 0, "RGB"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PixelData = pixels.tobytes()
    dcmwrite(path, ds, enforce_file_format=True)
    return path
