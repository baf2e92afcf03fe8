"""Help that stays readable on 80 columns: whole flag names, one heading a group of settings."""

from __future__ import annotations

import os
import sys
import textwrap
from typing import Any

import typer
from typer.core import TyperCommand

__all__ = ["Verb"]

# Longer names stand on a line of their own.
WIDEST_NAME = 32


class Verb(TyperCommand):
    """A command whose options are listed under the headings of their panels."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write one list for the arguments and one for each panel, in the order they are declared."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if getattr(parameter, "hidden", False):
                continue
            panels.setdefault(_panel(parameter), []).append((_names(parameter), _text(parameter)))
        for title, rows in panels.items():
            with formatter.section(_bold(title)):
                _write(formatter, rows)


def _write(formatter: Any, rows: list[tuple[str, str]]) -> None:
    """Two columns; flags named in a description stay in one piece, so that they can be searched for and copied."""
    indent = formatter.current_indent
    column = indent + min(WIDEST_NAME, max(len(names) for names, _ in rows)) + 2
    for names, text in rows:
        lines = textwrap.wrap(text, formatter.width - column, break_on_hyphens=False) or [""]
        first = " " * indent + _paint(names)
        if indent + len(names) + 2 > column:
            formatter.write(f"{first}\n")
        else:
            formatter.write(first + " " * (column - indent - len(names)) + lines.pop(0) + "\n")
        for line in lines:
            formatter.write(" " * column + line + "\n")


def _panel(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return "Arguments"
    return getattr(parameter, "rich_help_panel", None) or "Options"


def _names(parameter: Any) -> str:
    """``-h, --help``, ``--lr NUMBER``, and ``--[no-]noise`` for a switch that goes both ways."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    names = ", ".join(sorted(parameter.opts, key=len))
    if parameter.secondary_opts:
        names = names.replace("--", "--[no-]", 1)
    return names if parameter.is_flag else f"{names} {parameter.metavar or parameter.name.upper()}"


def _text(parameter: Any) -> str:
    """The description; settings carry their default in it, other options get it here."""
    shown = parameter.default if getattr(parameter, "show_default", False) else None
    return (parameter.help or "") + (f" [{shown}]" if shown not in (None, "", False) else "")


def _bold(title: str) -> str:
    return typer.style(title, bold=True) if sys.stdout.isatty() else title


def _paint(names: str) -> str:
    return typer.style(names, fg="cyan") if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else names
