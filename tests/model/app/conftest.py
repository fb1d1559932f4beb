"""The web app over an injected client; in a browser and with the real services it is tested in e2e."""

import sys

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from derma_export.facts import facts
from derma_semantics.domain.conditions import CONDITIONS
from derma_semantics.domain.contract import Triage
from derma_semantics.domain.diagnosis import Diagnosis, Finding, ServedBundle
from derma_semantics.domain.errors import CorruptImage, InvalidRequest, ServiceUnavailable
from derma_semantics.imaging.preprocess import crop_box
from derma_semantics.saliency import Explanation
from derma_training.bundle import Bundle

DIGEST = "ab" * 32
MELANOMA = (0.72, 0.12, 0.09, 0.02, 0.03, 0.019, 0.001)
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
        self.methods = {"attention": "Attention × gradient (Chefer)", "grad-cam": "Grad-CAM"}
        self.other_digest = None

    def ready(self, *, timeout):
        return True

    def bundle(self, *, timeout):
        if self.down:
            raise ServiceUnavailable("127.0.0.1:8001 is not available: refused")
        return self.served

    def saliency_methods(self, *, timeout):
        if self.sidecar_down:
            raise ServiceUnavailable("127.0.0.1:8003 is not available: refused")
        return self.methods

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
