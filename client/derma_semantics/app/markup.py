"""HTML that is safe to show: every text in it is escaped.

show(box("amber", "Review", "risk 0.2"))
show(element("p", "<script>", "note"))          # the letters, not the script
"""

from __future__ import annotations

from html import escape
from typing import Literal

import streamlit as st

Tone = Literal["red", "amber", "neutral"]


class Markup(str):
    """Text that is HTML already."""


def element(tag: str, content: str | list[Markup], name: str = "", **attributes: str) -> Markup:
    """One element; ``content`` is text to escape, or elements."""
    named = {"class": name, **attributes} if name else attributes
    head = "".join(f' {key}="{escape(value)}"' for key, value in named.items())
    return Markup(f"<{tag}{head}>{_inner(content)}</{tag}>")


def box(tone: Tone, title: str, *paragraphs: str, details: str = "") -> Markup:
    """A message with a coloured edge; screen readers announce red ones."""
    content = [element("h3", title), *(element("p", text) for text in paragraphs)]
    if details:
        content.append(folded("Details", [element("p", details)]))
    return element("div", content, f"derma-box {tone}", role="alert" if tone == "red" else "status")


def folded(title: str, content: list[Markup]) -> Markup:
    """A section that opens on demand."""
    return element("details", [element("summary", title), *content])


def show(markup: Markup) -> None:
    st.html(markup)


def _inner(content: str | list[Markup]) -> str:
    if isinstance(content, list):
        return "".join(content)
    return content if isinstance(content, Markup) else escape(content)
