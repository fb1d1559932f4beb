"""What is installed is pinned; what is loaded runs no code."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from derma_training.learning.checkpoint import Checkpoint
from derma_training.network.checkpoint import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)(\[[a-z0-9,-]+\])?==([^\s;]+)( ; [^\\]+)? \\$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")
FOLDERS = ("client", "training", "export", "saliency_service", "benchmarks", "deploy", "model_repository")
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
# Modules and functions that run what a file says.
UNSAFE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
UNSAFE_CALLS = {"read_pickle", "unsafe_load", "full_load", "load_from_checkpoint"}


def requirements(lock):
    """Names pinned in a lock file; every line must be a pin, a hash of it, or a comment."""
    names, hashes = [], []
    for number, line in enumerate(lock.read_text().splitlines(), 1):
        if pin := PIN.match(line):
            names.append(pin[1])
            hashes.append(0)
        elif HASH.match(line):
            hashes[-1] += 1
        else:
            assert re.match(r"^\s*#", line), f"{lock.name}:{number}: {line}"
    assert all(hashes), f"{lock.name}: {names[hashes.index(0)]} has no hash"
    return names


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_dependency_is_pinned_and_hashed(lock):
    names = requirements(lock)
    assert len(names) > 5
    text = lock.read_text()
    assert "://" not in text and "--index" not in text and "--find-links" not in text
    assert "git+" not in text and " @ " not in text


def test_locks_are_installed_with_their_hashes():
    """Also what the project asks for is in them."""
    files = (ROOT / "Makefile", ROOT / "deploy" / "containers" / "Containerfile")
    lines = [line for path in files for line in path.read_text().splitlines()]
    commands = [line for line in lines if ".lock" in line and "-r " in line]
    assert all(any(lock.name in line for line in commands) for lock in LOCKS)
    assert all("--require-hashes" in line for line in commands)
    # All else that the images install is the project itself, built without fetching anything.
    others = [line for line in lines if re.match(r"RUN (\S*/)?pip ", line) and line not in commands]
    assert others and all("--no-deps" in line and "://" not in line for line in others)
    assert all("wheels/*.whl" in line or "--no-build-isolation" in line for line in others)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(line for extra in extras for line in extra)]
    names = {re.match(r"[\w-]+", line)[0].lower().replace("_", "-") for line in wanted}
    locks = (ROOT / "requirements" / f"{lock}.lock" for lock in ("project", "triton"))
    locked = {name.replace("_", "-") for lock in locks for name in requirements(lock)}
    assert names - locked == {"derma-semantics"}


@pytest.mark.parametrize(
    "line", ["numpy>=1.26", "numpy==2.0", "numpy @ https://a.example/numpy.whl", "-r other"]
)
def test_a_line_that_is_not_pinned_is_found(tmp_path, line):
    lock = tmp_path / "bad.lock"
    lock.write_text(f"{line}\n")
    with pytest.raises(AssertionError, match=r"bad\.lock:1"):
        requirements(lock)


def unsafe_loads(source):
    """Places in a program that would run what a file says, with the reason."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        options = {k.arg: ast.unparse(k.value) for k in node.keywords}
        head, _, last = name.rpartition(".")
        if head == "torch" and last == "load" and options.get("weights_only") != "True":
            yield node.lineno, f"{name} without weights_only=True"
        if (
            options.get("allow_pickle", "False") != "False"
            or options.get("trust_remote_code", "False") != "False"
        ):
            yield node.lineno, f"{name} with pickles or remote code"
        if options.get("weights_only", "True") != "True":
            yield node.lineno, f"{name} with weights_only={options['weights_only']}"
        if head.split(".")[0] in UNSAFE or last in UNSAFE_CALLS or name in ("eval", "exec"):
            yield node.lineno, f"{name} runs what it reads"
        if head == "yaml" and last == "load":
            yield node.lineno, "yaml.load"


def imported_directly(source):
    """Functions taken out of modules where the calls could not be told any more."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {alias.name for alias in node.names}
            if node.module.split(".")[0] in UNSAFE or (
                node.module in ("torch", "numpy", "yaml") and "load" in names
            ):
                yield node.lineno, f"from {node.module} import {', '.join(sorted(names))}"


def test_no_file_is_unpickled():
    found = [
        f"{path.relative_to(ROOT)}:{line}: {why}"
        for path in SOURCES
        for line, why in (*unsafe_loads(path.read_text()), *imported_directly(path.read_text()))
    ]
    assert found == []
    assert sum("torch.load(" in path.read_text() for path in SOURCES) >= 2  # so there is something to find


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "np.load(path, allow_pickle=True)",
        "pickle.load(file)",
        "pickle.Unpickler(file).load()",
        "joblib.load(path)",
        "pandas.read_pickle(path)",
        "yaml.load(text)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "eval(text)",
        "from torch import load",
        "from pickle import loads",
    ],
)
def test_planted_unsafe_loads_are_found(source):
    assert [*unsafe_loads(source), *imported_directly(source)]


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.target}",)


def test_a_malicious_file_runs_nothing(tmp_path):
    """And it would, if it were unpickled: the test's own bomb is live."""
    path, owned = tmp_path / "evil.pt", tmp_path / "owned"
    for content in (Bomb(owned), {"state_dict": Bomb(owned)}, {"run": "mine", "model": Bomb(owned)}):
        torch.save(content, path)
        with pytest.raises(ValueError, match="not a checkpoint of plain tensors"):
            load_checkpoint(torch.nn.Linear(1, 1), path)
        with pytest.raises(Exception, match="weights_only|Weights only"):
            Checkpoint(path, "mine").load()
        assert not owned.exists()
    torch.load(path, weights_only=False)
    assert owned.exists()


@pytest.mark.skipif(not importlib.util.find_spec("cyclonedx_py"), reason="needs cyclonedx-bom")
@pytest.mark.parametrize("name", ["project", "triton", "container"])
def test_the_sbom_names_what_is_locked(tmp_path, name):
    """The command of `make sbom`."""
    lock, out = ROOT / "requirements" / f"{name}.lock", tmp_path / "sbom.json"
    command = [sys.executable, "-W", "ignore", "-m", "cyclonedx_py", "requirements", str(lock)]
    options = ["--pyproject", str(ROOT / "pyproject.toml"), "--output-reproducible", "-o", str(out)]
    subprocess.run([*command, *options], check=True, capture_output=True, timeout=120)
    components = json.loads(out.read_text())["components"]
    assert sorted(c["name"] for c in components) == sorted(requirements(lock))
    assert all(c["purl"].startswith("pkg:pypi/") and "@" in c["purl"] for c in components)
    assert all(c["externalReferences"][0]["hashes"] for c in components)
