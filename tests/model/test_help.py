"""``--help`` answers at once: it loads nothing that only the work needs."""

import subprocess
import sys

import pytest

HEAVY = {"PIL", "grpc", "numpy", "onnx", "onnxruntime", "torch", "tritonclient"}
# Each command's module, what it may load, and a word of its help.
COMMANDS = {
    "derma_semantics.commands.cli": (set(), "serve  "),
    "derma_serving.launcher": (set(), "serve  "),
    "derma_bench.cli": (set(), "saturate  "),
    "derma_export.rollout.cli": (set(), "promote  "),
    "derma_training.cli": (set(), "calibrate  "),
    "derma_export.cli": (set(), "--precision"),
}


@pytest.mark.parametrize("module", COMMANDS)
def test_help_loads_nothing_heavy(module):
    code = (
        f"import sys, {module} as m\ntry: m.main(['--help'])\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    allowed, word = COMMANDS[module]
    assert word in done.stdout
    assert {name.split(".")[0] for name in done.stderr.split()} & HEAVY <= allowed
