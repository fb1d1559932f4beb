"""Cells of CSV tables that people open in spreadsheets.

    writer.writerow(map(cell, row))

A text that begins like a formula would be computed: ``=HYPERLINK(...)`` may be the name of a file.
"""

from __future__ import annotations

from typing import Any

# OWASP, CSV Injection.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
TEXT = "'"  # spreadsheets show what follows as it is


def cell(value: Any) -> Any:
    """A value as CSV holds it: lists separated by spaces, texts never a formula, numbers as they are."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = " ".join(value) if isinstance(value, list) else value
    return f"{TEXT}{text}" if isinstance(text, str) and text.startswith(FORMULA) else text
