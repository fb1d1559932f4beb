"""The page: one image, a batch, the model card; the notice stays in sight.

render(client)      # in a Streamlit script
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from derma_semantics.app import batch, card, source, texts, xray
from derma_semantics.app.alert import alert_markup
from derma_semantics.app.charts import differential
from derma_semantics.app.markup import box, element, show
from derma_semantics.app.service import watch
from derma_semantics.app.source import Photo
from derma_semantics.client import DermaClient
from derma_semantics.domain.contract import NOTICE
from derma_semantics.domain.diagnosis import Diagnosis, ServedBundle
from derma_semantics.domain.errors import DermaError, InvalidImage

HERE = Path(__file__).parent


def render(client: DermaClient) -> None:
    """Draw the whole page, for one visitor, once."""
    st.set_page_config("Derma-Semantics", HERE / "icon.svg", layout="wide")
    st.html(HERE / "style.css")
    show(element("div", NOTICE, "derma-notice", role="note"))
    show(element("header", [element("h1", "Derma-Semantics"), element("p", texts.LEAD)], "derma-header"))
    served = watch(client)
    one, many, about = st.tabs(["One image", "Batch", "Model card"])
    with one:
        _one(client, served)
    with many:
        batch.render(client, served is not None)
    with about:
        card.render(served)


def _one(client: DermaClient, served: ServedBundle | None) -> None:
    left, right = st.columns([5, 7], gap="large")
    with left:
        photo = source.chosen()
        if photo and st.session_state.source != "Camera":  # which shows it itself
            st.image(photo.picture, width="stretch")
    with right:
        diagnosis = _diagnosis(client, photo, served) if photo else None
        if diagnosis:
            show(alert_markup(diagnosis))
            show(differential(diagnosis))
            st.caption(f"{texts.SET} {texts.EQUAL}")
        elif not photo:
            show(element("p", texts.NOTHING_YET, "derma-empty"))
    if photo and diagnosis:
        xray.render(client, photo, diagnosis)


def _diagnosis(client: DermaClient, photo: Photo, served: ServedBundle | None) -> Diagnosis | None:
    """The answer of the weights that are served to this photograph, requested once."""
    known: tuple[str, Diagnosis] | None = st.session_state.get("diagnosis")
    if known and known[0] == photo.digest and (not served or known[1].bundle.digest == served.digest):
        return known[1]
    if not served:
        show(element("p", texts.WAITING, "derma-empty"))
        return None
    try:
        with st.spinner("Classifying"):
            diagnosis = client.classify(photo.data)
    except InvalidImage as exc:
        show(box("amber", texts.UNREADABLE, texts.sentence(exc)))
        return None
    except DermaError as exc:
        show(box("red", texts.NO_ANSWER, texts.CHECKING, details=str(exc)))
        return None
    st.session_state.diagnosis = (photo.digest, diagnosis)
    return diagnosis
