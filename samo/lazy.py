"""Things named as ``"package.module:attribute"``: naming them imports nothing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["load_object"]


def load_object(target: str) -> Any:
    """Import what ``"package.module:attribute"`` names.

    Raises:
        ImportError: there is no such module.
        AttributeError: the module has no such attribute.
    """
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)
