"""Help that stays readable on 80 columns: whole flag names, one heading a group of settings."""

from __future__ import annotations

import os
import sys
import textwrap
from typing import Any

import typer
from typer.core import TyperCommand

from samo.modalities import MODALITIES

__all__ = ["Verb"]

_MODALITY = "samo.modality"
# Longer names stand on a line of their own.
WIDEST_NAME = 32


class Verb(TyperCommand):
    """A command whose options are listed under the headings of their panels.

    Behind ``--modality audio`` only the settings of audio are listed, with what holds for audio.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Note the modality first: ``--help`` ends the parsing, wherever it stands."""
        ctx.meta[_MODALITY] = _value_of("--modality", args)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write one list for the arguments and one for each panel, in the order they are declared."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if getattr(parameter, "hidden", False):
                continue
            if row := self._row(parameter, ctx.meta.get(_MODALITY, "")):
                panels.setdefault(_panel(parameter), []).append(row)
        for title, rows in panels.items():
            with formatter.section(_bold(title)):
                _write(formatter, rows)

    def _row(self, parameter: Any, modality: str) -> tuple[str, str] | None:
        """Names and description; None for what another modality than the one typed has.

        An option of the verb's own that only one modality has begins its description with the modality's name.
        """
        if modality not in MODALITIES:
            return _names(parameter), _text(parameter)
        if setting := getattr(self.callback, "flags", {}).get(parameter.name):
            flag = setting.of(modality)
            return (_names(parameter, flag.metavar), flag.help) if flag else None
        text = _text(parameter)
        others = tuple(f"{other.capitalize()}: " for other in MODALITIES if other != modality)
        return None if text.startswith(others) else (_names(parameter), text)


def _value_of(flag: str, args: list[str]) -> str:
    """The last value typed behind a flag; empty where there is none."""
    pairs = zip(args, [*args[1:], ""], strict=False)
    found = [
        following if word == flag else word.partition("=")[2]
        for word, following in pairs
        if word == flag or word.startswith(f"{flag}=")
    ]
    return found[-1] if found else ""


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


def _names(parameter: Any, metavar: str | None = None) -> str:
    """``-h, --help``, ``--lr NUMBER``, and ``--[no-]noise`` for a switch that goes both ways."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    names = ", ".join(sorted(parameter.opts, key=len))
    if parameter.secondary_opts:
        names = names.replace("--", "--[no-]", 1)
    return names if parameter.is_flag else f"{names} {metavar or parameter.metavar or parameter.name.upper()}"


def _text(parameter: Any) -> str:
    """The description; settings carry their default in it, other options get it here."""
    shown = parameter.default if getattr(parameter, "show_default", False) else None
    return (parameter.help or "") + (f" [{shown}]" if shown not in (None, "", False) else "")


def _bold(title: str) -> str:
    return typer.style(title, bold=True) if _styled() else title


def _paint(names: str) -> str:
    return typer.style(names, fg="cyan") if _styled() else names


def _styled() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
