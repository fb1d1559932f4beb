"""How good the answers to labelled images are: metrics, official scorer, plots, submission."""

from __future__ import annotations

from importlib.util import find_spec

_NEEDED = ("scipy", "matplotlib", "isic_challenge_scoring")

if _missing := [name for name in _NEEDED if find_spec(name) is None]:
    raise ImportError(f"evaluation needs {', '.join(_missing)}: pip install 'derma-semantics[evaluate]'")
