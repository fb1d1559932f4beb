"""The sidecar's token: who shows it is served, probes need none."""

import httpx
import pytest

from derma_saliency.app import Limits, create_app
from derma_semantics.domain.errors import ImageTooLarge

TOKEN = "a-token-of-the-test"


class Explainer:
    """Counts how often it is reached."""

    name, digest, device = "fake", "ab" * 32, "cpu"

    def __init__(self):
        self.calls = 0

    def explain(self, image, **_):
        self.calls += 1
        raise ImageTooLarge("reached")


@pytest.fixture
def explainer():
    return Explainer()


async def ask(explainer, verb, path, header, token=TOKEN, **content):
    app = create_app(explainer, Limits(), None, token)
    headers = {} if header is None else {"Authorization": header}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://sidecar") as http:
        return await http.request(verb, path, headers=headers, **content)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        TOKEN,
        f"Basic {TOKEN}",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}x",
        "Bearer \xff",
    ],
)
@pytest.mark.parametrize("path", ["/v1/saliency", "/metrics", "/docs", "/openapi.json", "/nothing"])
async def test_without_the_token_nothing_is_said(explainer, header, path):
    if header is not None:
        header = header.encode("latin-1")
    form = {"files": {"image": b"x"}, "data": {"prompt": "x"}}
    answer = await ask(explainer, "POST" if path == "/v1/saliency" else "GET", path, header, **form)
    assert (answer.status_code, answer.json()["error"]) == (401, "AccessDenied")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert explainer.calls == 0


async def test_with_the_token_all_is_open(explainer):
    form = {"files": {"image": b"x"}, "data": {"prompt": "x"}}
    answer = await ask(explainer, "POST", "/v1/saliency", f"Bearer {TOKEN}", **form)
    assert (answer.status_code, explainer.calls) == (413, 1)
    assert (await ask(explainer, "GET", "/metrics", f"Bearer {TOKEN}")).status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_probes_need_no_token(explainer, path):
    assert (await ask(explainer, "GET", path, None)).status_code == 200


async def test_without_a_token_of_its_own_it_asks_for_none(explainer):
    assert (await ask(explainer, "GET", "/metrics", None, token=None)).status_code == 200
