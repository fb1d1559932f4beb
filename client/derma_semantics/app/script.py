"""The script that Streamlit runs for each session: the page, on one client for all of them."""

from derma_semantics.app.page import render
from derma_semantics.app.service import connect

render(connect())
