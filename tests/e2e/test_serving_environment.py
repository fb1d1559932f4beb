"""The environment that serves is small, has no PyTorch, and answers with the model that comes along."""

import json
import subprocess
from importlib.metadata import distributions

from packaging.requirements import Requirement

from derma_serving.server import environment
from derma_training.bundle import Bundle

PLACE = environment()
NEVER_LOADED = (
    "gevent",
    "ml_dtypes",
    "nvidia.nvimgcodec",
    "onnx",
    "sympy",
    "torch",
    "transformers",
    "tritonclient",
)
MOST = 700e6  # bytes


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=True, **options).stdout


def test_it_holds_nothing_heavy():
    code = (
        "import sys; from importlib.util import find_spec\n"
        "print(*[name for name in sys.argv[1:] if find_spec(name.split('.')[0])])"
    )
    assert run(PLACE.programs / "python", "-c", code, *NEVER_LOADED).split() == []
    files = [path.lstat() for path in PLACE.programs.parent.rglob("*")]
    assert 300e6 < sum(512 * file.st_blocks for file in files) <= MOST


def test_its_versions_are_those_that_its_packages_ask_for():
    """They are locked without their dependencies, so no resolver has looked."""
    found = {one.name.lower().replace("_", "-"): one for one in distributions(path=[str(PLACE.packages)])}
    asked = [
        (name, Requirement(line))
        for name, one in found.items()
        for line in one.requires or ()
        if not Requirement(line).marker or Requirement(line).marker.evaluate({"extra": ""})
    ]
    present = [(name, line) for name, line in asked if line.name.lower().replace("_", "-") in found]
    assert len(present) > 10
    wrong = [
        f"{name} asks for {line}, and {version} is there"
        for name, line in present
        if not line.specifier.contains(version := found[line.name.lower().replace("_", "-")].version)
    ]
    assert wrong == []


def test_it_classifies_with_the_model_that_comes_along(tmp_path, jpeg, mini, ports):
    """The main job, as `make demo` does it."""
    models, image = tmp_path / "models", tmp_path / "lesion.jpg"
    image.write_bytes(jpeg(0))
    launcher = [PLACE.programs / "python", "-m", "derma_serving"]
    assert "derma-mini" in run(*launcher, "prepare", f"--repository={models}")
    options = [f"--repository={models}", f"--state={tmp_path / 'state'}"]
    options += [f"--{name}-port={port}" for name, port in ports.items()]
    said = run(*launcher, "run", *options, "--", PLACE.programs / "derma", "classify", image, "--json")
    answer = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
    assert answer["image"] == str(image) and len(answer["probabilities"]) == 7
    assert (answer["bundle_digest"], answer["precision"]) == (Bundle.open(mini).digest, "fp32")
