"""The one connection to the services, and the watch over it.

client = connect()
if watch(client): ...        # whether the service can answer now; says so at the top of the page
"""

from __future__ import annotations

import os
from functools import cache

import streamlit as st

from derma_semantics.app import texts
from derma_semantics.app.markup import box, element, show
from derma_semantics.client import DermaClient
from derma_semantics.domain.contract import RANDOM_WEIGHTS
from derma_semantics.domain.diagnosis import ServedBundle
from derma_semantics.domain.errors import DermaError
from derma_semantics.wire.connection import tls_from_environment
from derma_semantics.wire.defaults import DEFAULT_SALIENCY_URL, DEFAULT_URL

# Seconds between two looks at a service, and that one look may take.
EVERY = 3.0
PATIENCE = 2.0


@cache
def connect() -> DermaClient:
    """A client for the addresses and credentials in the environment, shared by all sessions."""
    return DermaClient(
        os.environ.get("DERMA_URL", DEFAULT_URL),
        tls=tls_from_environment(),
        token=os.environ.get("DERMA_TOKEN") or None,
        saliency_url=os.environ.get("DERMA_SALIENCY_URL", DEFAULT_SALIENCY_URL),
        retry_for=PATIENCE,  # a visitor wants to know, and the page looks again by itself
    )


def watch(client: DermaClient) -> ServedBundle | None:
    """The served bundle, None where nothing is served; looks again every few seconds.

    The page is drawn anew when that changes, so it recovers by itself.
    """
    st.fragment(_strip, run_every=EVERY)(client)
    served: ServedBundle | None = st.session_state.served
    return served


def _strip(client: DermaClient) -> None:
    served, reason = _look(client)
    first = "served" not in st.session_state
    if first or served != st.session_state.served:
        st.session_state.served = served
        if not first:
            st.rerun()
    if served is None:
        show(box("red", texts.SERVICE_DOWN, texts.SERVICE_HINT, details=reason))
        return
    name = served.name or served.digest[:12]
    show(element("p", f"Service ready: {name}", "derma-state"))
    if RANDOM_WEIGHTS in name:
        show(box("red", RANDOM_WEIGHTS, texts.RANDOM))


def _look(client: DermaClient) -> tuple[ServedBundle | None, str]:
    """The served bundle, or None and why."""
    try:
        served = client.bundle(timeout=PATIENCE)
    except DermaError as exc:
        return None, str(exc)
    return (served, "") if client.ready(timeout=PATIENCE) else (None, texts.NOT_READY)
