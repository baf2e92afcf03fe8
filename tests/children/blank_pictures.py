"""Pictures that are built and not drawn: drawing is two thirds of an evaluation, and few tests look at pixels."""

from __future__ import annotations

import base64
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# A grey PNG of one pixel.
PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==")
_PLACE = "samo.reporting.drawing"
# What is drawn now: nothing, or all with arguments in place of those that ``write_png`` is given.
_drawn: list[dict[str, Any]] = []


@contextmanager
def drawn(**instead: Any) -> Iterator[None]:
    """Draw what is saved in here; with ``dpi=10``, coarse."""
    _drawn.append(instead)
    try:
        yield
    finally:
        _drawn.pop()


def install() -> None:
    """From now on SAMO saves :data:`PIXEL` for every picture; nothing is imported for that."""
    if _PLACE in sys.modules:
        _replace(sys.modules[_PLACE])
    else:
        sys.meta_path.insert(0, _Finder())


def _replace(drawing: Any) -> None:
    real = drawing.write_png

    def write_png(figure: Any, file: Any, **how: Any) -> None:
        if _drawn:
            real(figure, file, **{**how, **_drawn[-1]})
        else:
            Path(file).write_bytes(PIXEL)

    drawing.write_png = write_png


class _Finder:
    """Finds the module that saves pictures as others do, and has it changed once it is there."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != _PLACE:
            return None
        sys.meta_path.remove(self)  # type: ignore[arg-type]
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            _replace(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
