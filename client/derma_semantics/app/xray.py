"""Heat maps of two texts, side by side.

    render(client, photo, diagnosis)

A map is requested once; its opacity is a matter of drawing.
"""

from __future__ import annotations

from contextlib import suppress

import streamlit as st

from derma_semantics.app import texts
from derma_semantics.app.markup import Markup, box, element, show
from derma_semantics.app.service import EVERY
from derma_semantics.app.service import PATIENCE as LOOK
from derma_semantics.app.source import Photo
from derma_semantics.client import DermaClient
from derma_semantics.domain.conditions import CONDITIONS
from derma_semantics.domain.diagnosis import Diagnosis
from derma_semantics.domain.errors import DeadlineExceeded, DermaError, ServiceError, ServiceUnavailable
from derma_semantics.saliency import Explanation

PATIENCE = 20.0
NAMES = {texts.first_upper(condition.name): condition.code for condition in CONDITIONS}
DEFAULT_METHOD = "Default"
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
    # Emptied at once: no map stays under the message about another.
    places = [column.empty() for column in columns]
    opacity = st.slider("Opacity of the heat maps", 0, 100, 50, format="%d %%", key="opacity") / 100
    with st.expander("Method"):
        method = _method(client)
    with places[0], st.spinner("Looking"):
        outcomes = _outcomes(client, photo, (left, right), method)
    for place, text, outcome in zip(places, (left, right), outcomes, strict=True):
        with place.container():
            _shown(outcome, text, photo, opacity)
    if any(isinstance(o, Explanation) and o.bundle_digest != diagnosis.bundle.digest for o in outcomes):
        show(box("amber", texts.OTHER_WEIGHTS))
    st.caption(texts.XRAY_CAUTION)
    _keep_asking(any(isinstance(outcome, AWAY) for outcome in outcomes))


def _wanted(digest: str) -> None:
    st.session_state.update(xrayed=digest, maps={})


def _choice(label: str, best: str, key: str) -> str:
    """A condition's name or free text; begins with what the answer suggests for this image."""
    options = list(NAMES)
    chosen = st.selectbox(
        label, options, index=options.index(best), accept_new_options=True, key=f"{key} {best}"
    )
    return str(chosen or best).strip() or best


def _method(client: DermaClient) -> str | None:
    """A method of those that the sidecar says it has; None for its default."""
    if "methods" not in st.session_state:
        with suppress(DermaError):  # asked again when the panel is next drawn
            offered = client.saliency_methods(timeout=LOOK)
            st.session_state.methods = {label: name for name, label in offered.items()}
    known: dict[str, str] = st.session_state.get("methods", {})
    chosen = st.radio("Method", [DEFAULT_METHOD, *known], key="method", label_visibility="collapsed")
    return known.get(str(chosen))


def _outcomes(
    client: DermaClient, photo: Photo, wanted: tuple[str, ...], method: str | None
) -> list[Explanation | DermaError]:
    """A map for each text, or why there is none; a sidecar that is away is tried once."""
    known: dict[tuple[str, str | None], Explanation] = st.session_state.maps
    outcomes: list[Explanation | DermaError] = []
    for text in wanted:
        away = next((outcome for outcome in outcomes if isinstance(outcome, AWAY)), None)
        outcome = known.get((text, method)) or away or _outcome(client, photo, text, method)
        if isinstance(outcome, Explanation):
            known[text, method] = outcome
        outcomes.append(outcome)
    return outcomes


def _outcome(client: DermaClient, photo: Photo, text: str, method: str | None) -> Explanation | DermaError:
    code = NAMES.get(texts.first_upper(text))
    prompt = None if code else text
    try:
        return client.explain(photo.data, prompt, condition=code, method=method, timeout=PATIENCE)
    except DermaError as exc:
        return exc


def _keep_asking(away: bool) -> None:
    """Draw the page anew where that has changed: the panel then asks again every few seconds, or stops."""
    if away != st.session_state.get("sidecar_away", False):
        st.session_state.sidecar_away = away
        st.rerun()


def _shown(outcome: Explanation | DermaError, text: str, photo: Photo, opacity: float) -> None:
    if isinstance(outcome, AWAY):
        show(box("red", texts.SALIENCY_DOWN, texts.SALIENCY_HINT, details=str(outcome)))
    elif isinstance(outcome, DermaError):
        show(box("amber", texts.NO_MAP, texts.sentence(outcome)))
    else:
        # Drawn at the size it is shown in, so that the slider answers at once.
        overlay = outcome.on(photo.picture.size).overlay(photo.picture, opacity)
        st.image(overlay, width="stretch")
        label = [element("strong", text), Markup(": "), element("span", _score(outcome.score))]
        show(element("p", label, "derma-map"))


def _score(score: float) -> str:
    side = "closer to this text than to the other conditions" if score > 0 else "closer to other conditions"
    return f"{score:+.3f}, {side} on average"
