"""A line on the terminal while a library is imported that takes seconds."""

from __future__ import annotations

import importlib.machinery
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

__all__ = ["announced_imports"]

SLOW = frozenset({"torch", "transformers", "sklearn", "matplotlib"})


class _Announcer(MetaPathFinder):
    """Finds nothing itself; what the usual way finds under one of :data:`SLOW` is run beside a line on the terminal."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in SLOW:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        loader: Any = spec and spec.loader
        if loader is not None:
            run = loader.exec_module

            def announced(module: ModuleType) -> None:
                line = f"loading {fullname} ..."
                sys.stderr.write(line)
                sys.stderr.flush()
                try:
                    run(module)
                finally:
                    sys.stderr.write("\r" + " " * len(line) + "\r")
                    sys.stderr.flush()

            loader.exec_module = announced
        return spec


@contextmanager
def announced_imports() -> Iterator[None]:
    """Name on the terminal what is imported inside the block, while it is; without a terminal do nothing."""
    if not sys.stderr.isatty():
        yield
        return
    announcer = _Announcer()
    sys.meta_path.insert(0, announcer)
    try:
        yield
    finally:
        sys.meta_path.remove(announcer)
