"""The plan of the house: which package may import which, without circles between folders."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HALLS = {
    "derma_semantics": "client",
    "derma_serving": "deploy",
    "derma_training": "training",
    "derma_export": "export",
    "derma_saliency": "saliency_service",
    "derma_bench": "benchmarks",
}
# Each package, and those that it may import: all arrows point to the lightest.
MAY_IMPORT = {
    "derma_semantics": set(),
    "derma_serving": {"derma_semantics"},
    "derma_training": {"derma_semantics"},
    "derma_export": {"derma_semantics", "derma_serving", "derma_training"},
    "derma_saliency": {"derma_semantics", "derma_training"},
    "derma_bench": {"derma_semantics", "derma_serving", "derma_training", "derma_export"},
}
HEAVY = {"torch", "open_clip", "timm", "transformers", "peft", "onnx"}


def modules():
    """Every module of the packages by its dotted name."""
    found = {}
    for package, hall in HALLS.items():
        for path in sorted((ROOT / hall / package).rglob("*.py")):
            parts = path.relative_to(ROOT / hall).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported(path):
    """Dotted names that a file imports, also inside functions and for types alone."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else node.module


GRAPH = {name: {target for target in imported(path) if target != name} for name, path in MODULES.items()}


def folder(module):
    """The folder of the package that a module is in; a module of a package's top is a room of its own."""
    package, *inner = module.split(".")
    is_folder = len(inner) > 1 or MODULES[module].name == "__init__.py"
    return ".".join([package, *inner[:1]]) if is_folder else module


def circles(graph):
    """Groups of nodes that reach each other (Tarjan's strongly connected components)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in graph.get(node, ()):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            group = [stack.pop()]
            while group[-1] != node:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for node in list(graph):
        if node not in index:
            visit(node)
    return found


def between_folders():
    graph = defaultdict(set)
    for module, targets in GRAPH.items():
        ours = {folder(target) for target in targets if target in MODULES}
        graph[folder(module)] |= ours - {folder(module)}
    return graph


def test_no_circle_stands_between_modules():
    graph = {module: {t for t in targets if t in MODULES} for module, targets in GRAPH.items()}
    assert circles(graph) == []


def test_no_circle_stands_between_folders():
    assert circles(between_folders()) == []


def test_a_circle_would_be_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c"]]


@pytest.mark.parametrize("package", HALLS)
def test_imports_point_to_lighter_packages(package):
    for module in (name for name in MODULES if name.split(".")[0] == package):
        packages = {target.split(".")[0] for target in GRAPH[module]} & HALLS.keys()
        assert packages - {package} <= MAY_IMPORT[package], module


@pytest.mark.parametrize("package", ["derma_semantics", "derma_serving"])
def test_neither_client_nor_serving_reaches_torch(package):
    reached, waiting = set(), [name for name in MODULES if name.split(".")[0] == package]
    while waiting:
        for target in GRAPH.get(waiting.pop(), ()):
            if target not in reached:
                reached.add(target)
                waiting.append(target)
    assert {name.split(".")[0] for name in reached} & HEAVY == set()


def test_the_server_owns_what_runs_in_triton():
    """Triton's own files import nothing but client and serving."""
    files = [*(ROOT / "model_repository").rglob("*.py"), *(ROOT / "deploy/derma_serving").rglob("*.py")]
    ours = {name.split(".")[0] for path in files for name in imported(path)} & HALLS.keys()
    assert ours == {"derma_semantics", "derma_serving"}
