"""Many images: a table, the failures with their reasons, a CSV.

render(client, ready=True)
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any

import pandas as pd
import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from derma_semantics.app import texts
from derma_semantics.app.alert import alert_of
from derma_semantics.app.markup import box, element, show
from derma_semantics.bulk.cells import cell
from derma_semantics.bulk.table import COLUMNS
from derma_semantics.client import DermaClient
from derma_semantics.domain.diagnosis import Diagnosis
from derma_semantics.domain.errors import Overloaded, ServiceUnavailable
from derma_semantics.domain.formats import CLIENT_SUFFIXES
from derma_semantics.domain.numbers import significant

COLOURS = {"High risk": "color: #b3261e; font-weight: 600", "Review": "color: #8a5a00"}

Answers = list[tuple[str, Diagnosis | Exception]]


class Upload(bytes):
    """An image that knows its name."""

    name: str


def render(client: DermaClient, ready: bool) -> None:
    """The batch tab. Answers stay until other files are chosen."""
    files = st.file_uploader(
        "Dermoscopic photographs", type=list(CLIENT_SUFFIXES), accept_multiple_files=True, key="batch"
    )
    st.caption(texts.LIMITS)
    batch = tuple(file.file_id for file in files)
    if not files:
        return
    label = f"Classify {texts.count(len(files), 'image')}"
    if st.button(label, type="primary", disabled=not ready, key="classify"):
        st.session_state.answers = (batch, _classified(client, files))
    known, answers = st.session_state.get("answers", ((), []))
    if known == batch:
        _table(answers)
        _failures(answers, len(files))


def _classified(client: DermaClient, files: list[UploadedFile]) -> Answers:
    """In order; ends early where the service goes away."""
    answers: Answers = []
    bar = st.progress(0.0)
    with closing(client.classify_many(_uploads(files))) as stream:
        for upload, answer in stream:
            if isinstance(answer, ServiceUnavailable) and not isinstance(answer, Overloaded):
                break
            answers.append((upload.name, answer))
            bar.progress(len(answers) / len(files), f"{len(answers)} of {texts.count(len(files), 'image')}")
    bar.empty()
    return answers


def _uploads(files: Iterable[UploadedFile]) -> Iterator[Upload]:
    for file in files:
        upload = Upload(file.getvalue())
        upload.name = file.name
        yield upload


def _table(answers: Answers) -> None:
    rows = [_row(name, answer) for name, answer in answers if isinstance(answer, Diagnosis)]
    if rows:
        columns = {"Probability": st.column_config.NumberColumn(format="%.1f %%")}
        table = pd.DataFrame(rows).style.map(COLOURS.get, subset=["Alert"])
        table = table.format(significant, subset=["Risk score"])  # still sorts as a number
        st.dataframe(table, hide_index=True, column_config=columns)
        st.caption(texts.EQUAL)
    if answers:
        st.download_button("Download as CSV", as_csv(answers), "derma-semantics.csv", "text/csv", key="csv")


def _row(name: str, diagnosis: Diagnosis) -> dict[str, Any]:
    possible = (condition.code for condition in diagnosis.prediction_set)
    return {
        "Image": cell(name),  # the table has a download of its own
        "Alert": alert_of(diagnosis).title,
        "Best match": texts.first_upper(diagnosis.top.condition.name),
        "Probability": 100 * diagnosis.top.probability,
        "Risk score": diagnosis.risk,
        "Stay possible": ", ".join(possible),
        "Noticed": ", ".join(reason.code.replace("_", " ") for reason in diagnosis.quality),
    }


def _failures(answers: Answers, wanted: int) -> None:
    failed = [(name, answer) for name, answer in answers if not isinstance(answer, Diagnosis)]
    if failed:
        title = f"{texts.count(len(failed), 'image was', 'images were')} not classified"
        show(box("amber", title))
        items = [element("li", f"{name}: {texts.sentence(error)}") for name, error in failed]
        show(element("ul", items, "derma-failures"))
    if missing := wanted - len(answers):
        show(box("red", texts.SERVICE_DOWN, texts.batch_stopped(missing)))


def as_csv(answers: Answers) -> str:
    """The columns of ``derma bulk``, and ``error`` and ``message`` for what failed."""
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, (*COLUMNS, "error", "message"), restval="", extrasaction="ignore")
    table.writeheader()
    for name, answer in answers:
        table.writerow({column: cell(value) for column, value in _record(name, answer).items()})
    return text.getvalue()


def _record(name: str, answer: Diagnosis | Exception) -> dict[str, Any]:
    if not isinstance(answer, Diagnosis):
        return {"image": name, "error": type(answer).__name__, "message": str(answer)}
    record = answer.to_dict()
    return {"image": name, **record, **record["probabilities"]}
