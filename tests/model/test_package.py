"""The public surface, and what importing it costs."""

import html
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import derma_semantics

ROOT = Path(__file__).resolve().parents[2]


def test_everything_exported_exists():
    for name in derma_semantics.__all__:
        assert getattr(derma_semantics, name).__name__ if name != "CONDITIONS" else True
    assert dir(derma_semantics) == sorted(derma_semantics.__all__)


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="Nothing"):
        derma_semantics.Nothing  # noqa: B018


def test_import_loads_neither_torch_nor_upper_packages():
    code = (
        "import sys, derma_semantics, derma_semantics.commands.cli; "
        "derma_semantics.DermaClient; "
        "print([m for m in ('torch','open_clip','onnx','derma_training','derma_export') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_preprocessing_needs_no_grpc():
    """The Triton server's environment has Pillow and numpy, and no client."""
    code = (
        "import sys, derma_semantics.imaging.preprocess; "
        "print('grpc' in sys.modules, 'tritonclient' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def run(code):
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.split()


def test_import_loads_nothing_before_it_is_used():
    """So it takes a few milliseconds: `python -X importtime -c "import derma_semantics"`."""
    code = "import sys; before = set(sys.modules); import derma_semantics; print(*set(sys.modules) - before)"
    loaded = {module.split(".")[0] for module in run(code)}
    assert loaded - sys.stdlib_module_names == {"derma_semantics"}


def test_the_client_loads_no_tracing_before_it_is_used():
    code = "import sys, derma_semantics; derma_semantics.DermaClient; print('opentelemetry' in sys.modules)"
    assert run(code) == ["False"]


def test_the_wheel_says_that_it_is_typed():
    """PEP 561: the marker lies in the folder that the wheel takes whole."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert "client/derma_semantics" in packages
    assert (ROOT / "client/derma_semantics/py.typed").read_bytes() == b""
    ignored = subprocess.run(
        ["git", "check-ignore", "client/derma_semantics/py.typed"], cwd=ROOT, capture_output=True, check=False
    )
    assert ignored.returncode == 1  # hatch leaves out what git ignores


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The reference's page of the package."""
    folder = tmp_path_factory.mktemp("docs")
    command = [sys.executable, str(ROOT / "docs" / "reference.py"), str(folder)]
    subprocess.run(command, check=True, timeout=120, capture_output=True)
    return (folder / "derma_semantics.html").read_text()


@pytest.mark.parametrize("name", [name for name in derma_semantics.__all__ if name != "CONDITIONS"])
def test_public_names_are_documented(name, page):
    thing = getattr(derma_semantics, name)
    assert len(thing.__doc__.splitlines()[0]) > 15
    members = [
        member
        for member, value in vars(thing).items()
        if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, property))
    ]
    for member in members:
        assert inspect.getdoc(getattr(thing, member)), f"{name}.{member} has no docstring"
    for anchor in (name, *(f"{name}.{member}" for member in members)):
        assert f'<section id="{name}">' in page
        assert f'id="{anchor}"' in page
    first = html.escape(thing.__doc__.strip().split("``")[0].splitlines()[0], quote=False)[:40]
    assert first.rstrip() in html.unescape(page)


def test_the_reference_shows_arguments_and_errors(page):
    text = re.sub(r"<[^>]+>", "", page)
    assert text.count("Arguments:") >= 5
    for words in (
        "retry_for:",
        "uint8 array of shape (H, W, 3)",
        "seconds an image",
        "InvalidImage:",
        "The seven conditions",
    ):
        assert words in text
