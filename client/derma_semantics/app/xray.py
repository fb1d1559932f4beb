"""Heat maps of two texts, side by side.

    render(client, photo, diagnosis)

A map is asked for once; its opacity is a matter of drawing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from derma_semantics.app import texts
from derma_semantics.app.markup import Markup, box, element, show
from derma_semantics.app.service import EVERY
from derma_semantics.app.source import Photo
from derma_semantics.client import DermaClient
from derma_semantics.conditions import CONDITIONS
from derma_semantics.diagnosis import Diagnosis
from derma_semantics.errors import DeadlineExceeded, DermaError, ServiceError, ServiceUnavailable

if TYPE_CHECKING:
    from derma_semantics.saliency import Explanation

PATIENCE = 20.0
NAMES = {texts.first_upper(condition.name): condition.code for condition in CONDITIONS}
METHODS = {
    "Default": None,
    "Attention × gradient (Chefer)": "attention",
    "LeGrad": "legrad",
    "Grad-ECLIP": "grad-eclip",
    "Grad-CAM": "grad-cam",
}
AWAY = (ServiceUnavailable, DeadlineExceeded, ServiceError)


def render(client: DermaClient, photo: Photo, diagnosis: Diagnosis) -> None:
    """The panel; while the sidecar is away it tries again by itself."""
    every = EVERY if st.session_state.get("sidecar_away") else None
    st.fragment(_panel, run_every=every)(client, photo, diagnosis)


def _panel(client: DermaClient, photo: Photo, diagnosis: Diagnosis) -> None:
    show(element("header", [element("h2", "X-ray"), element("p", texts.XRAY)], "derma-section"))
    first, second = (texts.first_upper(f.condition.name) for f in diagnosis.differential[:2])
    columns = st.columns(2, gap="large")
    with columns[0]:
        left = _choice("First text", first, "left")
    with columns[1]:
        right = _choice("Second text", second, "right")
    if st.session_state.get("xrayed") != photo.digest:
        st.button("Show the heat maps", type="primary", key="xray", on_click=_wanted, args=(photo.digest,))
        return
    places = [column.container() for column in columns]
    opacity = st.slider("Opacity of the heat maps", 0, 100, 50, format="%d %%", key="opacity") / 100
    with st.expander("Method"):
        method = METHODS[st.radio("Method", list(METHODS), key="method", label_visibility="collapsed")]
    maps = _maps(client, photo, (left, right), method)
    for place, text in zip(places, (left, right), strict=True):
        if text in maps:
            with place:
                _shown(maps[text], text, photo, opacity)
    if any(one.bundle_digest != diagnosis.bundle.digest for one in maps.values()):
        show(box("amber", texts.OTHER_WEIGHTS))
    st.caption(texts.XRAY_CAUTION)


def _wanted(digest: str) -> None:
    st.session_state.update(xrayed=digest, maps={})


def _choice(label: str, best: str, key: str) -> str:
    """A condition's name or free text; begins with what the answer suggests for this image."""
    options = list(NAMES)
    chosen = st.selectbox(
        label, options, index=options.index(best), accept_new_options=True, key=f"{key} {best}"
    )
    return str(chosen or best).strip() or best


def _maps(
    client: DermaClient, photo: Photo, wanted: tuple[str, ...], method: str | None
) -> dict[str, Explanation]:
    """By text, those that could be had; a message says why another could not."""
    known: dict[tuple[str, str | None], Explanation] = st.session_state.maps
    failure: DermaError | None = None
    for text in dict.fromkeys(wanted):
        if (text, method) in known or isinstance(failure, AWAY):
            continue
        try:
            with st.spinner("Looking"):
                known[text, method] = _explained(client, photo, text, method)
        except DermaError as exc:
            failure = exc
            away = isinstance(exc, AWAY)
            title = texts.SALIENCY_DOWN if away else texts.NO_MAP
            show(box("red" if away else "amber", title, texts.sentence(exc), texts.CHECKING if away else ""))
    if (away := isinstance(failure, AWAY)) != st.session_state.get("sidecar_away", False):
        st.session_state.sidecar_away = away
        st.rerun()
    return {text: known[text, method] for text in wanted if (text, method) in known}


def _explained(client: DermaClient, photo: Photo, text: str, method: str | None) -> Explanation:
    code = NAMES.get(texts.first_upper(text))
    if code:
        return client.explain(photo.data, condition=code, method=method, timeout=PATIENCE)
    return client.explain(photo.data, text, method=method, timeout=PATIENCE)


def _shown(explanation: Explanation, text: str, photo: Photo, opacity: float) -> None:
    # Drawn at the size it is shown in, so that the slider answers at once.
    overlay = explanation.on(photo.picture.size).overlay(photo.picture, opacity)
    st.image(overlay, width="stretch")
    label = [element("strong", text), Markup(": "), element("span", _score(explanation.score))]
    show(element("p", label, "derma-map"))


def _score(score: float) -> str:
    side = "closer to this text than to the other conditions" if score > 0 else "closer to other conditions"
    return f"{score:+.3f}, {side} on average"
