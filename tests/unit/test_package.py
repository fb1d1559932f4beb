"""The public surface, and what importing it costs."""

import subprocess
import sys

import pytest

import derma_semantics


def test_everything_exported_exists():
    for name in derma_semantics.__all__:
        assert getattr(derma_semantics, name).__name__ if name != "CONDITIONS" else True
    assert dir(derma_semantics) == sorted(derma_semantics.__all__)


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="Nothing"):
        derma_semantics.Nothing  # noqa: B018


def test_import_loads_neither_torch_nor_upper_packages():
    code = (
        "import sys, derma_semantics, derma_semantics.cli; "
        "derma_semantics.DermaClient; "
        "print([m for m in ('torch','open_clip','onnx','derma_training','derma_export') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_preprocessing_needs_no_grpc():
    """The Triton server's environment has Pillow and numpy, and no client."""
    code = (
        "import sys, derma_semantics.preprocess; print('grpc' in sys.modules, 'tritonclient' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
