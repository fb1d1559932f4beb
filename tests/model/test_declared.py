"""Whatever the tests import, pyproject.toml declares."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Brought by another, without which no test works.
BROUGHT = {"starlette": "fastapi"}
OURS = {
    "tests",
    *(f"derma_{name}" for name in ("bench", "export", "saliency", "semantics", "serving", "training")),
}


def normal(name):
    return re.match(r"[\w.-]+", name)[0].lower().replace("_", "-")


DECLARED = {
    normal(line)
    for lines in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for line in lines
}


def imported(path):
    """Top-level names that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def undeclared(names):
    """Names of no declared distribution."""
    known = packages_distributions()
    for name in names - sys.stdlib_module_names - OURS:
        distributions = {normal(one) for one in known.get(name, [name])}
        if not (distributions | {BROUGHT.get(name)}) & DECLARED:
            yield name


def test_what_tests_import_is_declared():
    # Programs in tests/faults import their neighbours by name.
    neighbours = {path.stem for path in (ROOT / "tests" / "faults").glob("*.py")}
    names = {name for path in (ROOT / "tests").rglob("*.py") for name in imported(path)}
    assert {"numpy", "torch", "yaml"} <= names
    assert sorted(undeclared(names - neighbours)) == []


@pytest.mark.parametrize("name", ["nowhere", "kiwisolver"])
def test_an_undeclared_one_is_found(name):
    assert [*undeclared({name, "numpy"})] == [name]
