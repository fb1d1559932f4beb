"""The code as it would be with one more entry in one table, and no other edit.

with edited("derma_semantics.domain.formats", "FORMATS", 'Format(name="GIF", suffixes=(".gif",))'):
    from derma_semantics.imaging.folders import images_in      # lists .gif
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType

PREFIX = "derma_"


@contextmanager
def edited(module: str, table: str, entry: str) -> Iterator[None]:
    """Import our packages anew inside, ``entry`` at the end of ``table``; afterwards they are as before."""
    before, finder = _taken_out(), _Finder(module, table, entry)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        _taken_out()
        sys.modules.update(before)


def _taken_out() -> dict[str, ModuleType]:
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith(PREFIX)}


class _Finder(PathFinder):
    def __init__(self, module: str, table: str, entry: str) -> None:
        self.module, self.table, self.entry = module, table, entry

    def find_spec(  # type: ignore[override]
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self.module:
            return None
        spec = PathFinder.find_spec(name, path, target)
        assert spec is not None and spec.origin is not None
        spec.loader = _Loader(name, spec.origin, self.table, self.entry)
        return spec


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, table: str, entry: str) -> None:
        super().__init__(name, path)
        self.table, self.entry = table, entry

    def get_code(self, fullname: str) -> CodeType:
        """Compile the edited source; what Python cached is the source as it was."""
        tree = ast.parse(self.get_data(self.path))
        _entries(tree, self.table).append(ast.parse(self.entry, mode="eval").body)
        return compile(ast.fix_missing_locations(tree), self.path, "exec")


def _entries(tree: ast.Module, table: str) -> list[ast.expr]:
    """The elements of the first tuple in what is assigned to ``table``."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == table for target in targets):
            value: ast.expr = node.value  # type: ignore[attr-defined]
            return next(found.elts for found in ast.walk(value) if isinstance(found, ast.Tuple))
    raise ValueError(f"the module assigns no {table}")
