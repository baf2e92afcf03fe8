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
_PLACE = "matplotlib.figure"
# What is drawn now: nothing, or all with arguments in place of those that ``savefig`` is given.
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
    """From now on ``Figure.savefig`` writes :data:`PIXEL`; matplotlib is not imported for that."""
    if _PLACE in sys.modules:
        _replace(sys.modules[_PLACE].Figure)
    else:
        sys.meta_path.insert(0, _Finder())


def _replace(figure: Any) -> None:
    real = figure.savefig

    def savefig(self: Any, file: Any, **how: Any) -> None:
        if _drawn:
            real(self, file, **{**how, **_drawn[-1]})
        else:
            Path(file).write_bytes(PIXEL)

    figure.savefig = savefig


class _Finder:
    """Finds the module of figures as others do, and has its class changed once it is there."""

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
            _replace(module.Figure)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
