"""What leaves the machine names files and folders, and does not say where on its disk they lie.

A run's own folder keeps whole paths: training goes on with them. Model cards, exported files and packages are passed
on, and have only the names: ``/home/anna/data/ravdess`` is ``ravdess``, and a folder of the Hugging Face cache is
``owner/name``. A relative path says nothing of the machine and stays, but for one that climbs out of its folder
(``../data/ravdess``).
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Mapping
from typing import Any

__all__ = ["published_card", "published_command", "published_settings", "published_value"]

# What may stand before a path, and how one begins. Behind < stands the end of a tag.
_BEFORE = r"(^|[\s\"'`=,:;(\[|>])"
_BEGIN = r"(?:~[\w.-]*|\.\.)?/+"
# A value is all of a path, spaces included; in a sentence a path ends at a space.
# A comma before a space belongs to a name, unless a path begins behind it.
_IN_VALUE = re.compile(rf"{_BEFORE}({_BEGIN}[^\s/,:;](?:[^,:;]|,(?=\s)(?!\s*{_BEGIN}))*)")
# Settings of one place, which may have any sign in its name; others may be of several with commas between them.
_ONE_PLACE = (
    "data_root", "noise_root", "extra_table", "weights", "encoder", "masked_lm", "artifacts", "config", "output",
)  # fmt: skip
_IN_PLACE = re.compile(rf"{_BEFORE}({_BEGIN}[^\s/,:;](?:[^,:;]|,(?!\s*{_BEGIN}))*)")
_WHOLE_PLACE = re.compile(rf"(^|,\s*)({_BEGIN}[^\s/](?:[^,]|,(?!\s*{_BEGIN}))*)")
_END = r"\s\"'`,:;()\[\]|<>"
_REST = rf"[^/{_END}][^{_END}]*"
_IN_COMMAND = re.compile(rf"{_BEFORE}({_BEGIN}{_REST})", re.MULTILINE)
# A sentence has slashes of other meanings, as in /r/joy or km /h: what is a path begins where people keep files.
_ROOTS = (
    "home", "Users", "mnt", "tmp", "root", "data", "work", "var", "opt", "usr", "srv", "media", "scratch", "content",
    "kaggle",
)  # fmt: skip
_BEGIN_IN_TEXT = rf"(?:(?:~[\w.-]*|\.\.)/+|(?://localhost)?/+(?:{'|'.join(_ROOTS)})/+)"
_IN_TEXT = re.compile(rf"{_BEFORE}({_BEGIN_IN_TEXT}{_REST})", re.MULTILINE)
_HUB = re.compile(r"/models--([^/]+?)--([^/]+)(?:/|$)")
# Tables of a card whose second column is a value.
_OF_VALUES = ("## Training settings\n", "## Environment\n")
_CELL = re.compile(r"(?<!\\)\|")
_CALL = re.compile(r"[\w.]+\(")


def published_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by name, with the names of files and folders in place of their paths."""
    return {name: _setting(name, value) for name, value in settings.items()}


def published_value(value: str, name: str = "") -> str:
    """One value, or several joined by commas; ``name``: of its setting or flag, where it is known."""
    one = name.removeprefix("--").replace("-", "_") in _ONE_PLACE
    pattern = (_WHOLE_PLACE if re.match(_BEGIN, value) else _IN_PLACE) if one else _IN_VALUE
    return pattern.sub(_named, value)


def published_command(line: str) -> str:
    """A command as it was typed, or a call in Python; what names no place stays as it is to the letter."""
    if _CALL.match(line) and (call := _published_call(line)) is not None:
        return call
    try:
        words = shlex.split(line)
    except ValueError:  # the half of a quoted text
        return _IN_COMMAND.sub(_named, line)
    named = []
    for k, word in enumerate(words):
        flag = word.partition("=")[0] if word.startswith("--") else words[k - 1] if k else ""
        named.append(word if _is_pattern(flag) else published_value(word, flag))
    return line if named == words else shlex.join(named)


def _published_call(line: str) -> str | None:
    """A call in Python, its arguments as settings of their names; None where it is none."""
    try:
        call = ast.parse(line, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if not isinstance(call, ast.Call):
        return None
    changed = False
    for argument in call.keywords:
        try:
            value = ast.literal_eval(argument.value)
        except (ValueError, TypeError, RecursionError, MemoryError):  # it is computed
            continue
        published = _setting(argument.arg or "", value)
        if published != value:
            argument.value, changed = ast.Constant(published), True
    return ast.unparse(call) if changed else line


def published_card(card: str) -> str:
    """A model card in Markdown, from :func:`samo.reporting.model_card.model_card` of whatever version."""
    return "".join(_section(part) for part in re.split(r"^(?=## )", card, flags=re.MULTILINE))


def _section(text: str) -> str:
    lines = text.split("\n")
    if text.startswith("## How to reproduce\n"):
        return "\n".join(published_command(line) for line in lines)
    if text.startswith(_OF_VALUES):
        return "\n".join(_row(line) for line in lines)
    return "\n".join(line if line.startswith("|") else _IN_TEXT.sub(_named, line) for line in lines)


def _row(line: str) -> str:
    cells = _CELL.split(line)
    if len(cells) != 4:
        return line
    name, value = cells[1].strip(), cells[2].strip()
    return f"|{cells[1]}| {_setting(name, value)} |"


def _setting(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return value if _is_pattern(name) else published_value(value, name)
    if isinstance(value, Mapping):
        return {key: _setting(str(key), each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([_setting(name, each) for each in value])
    return value


def _is_pattern(name: str) -> bool:
    """Whether a setting or its flag is a regular expression, whose slashes are no path's."""
    return name.endswith("pattern")


def _named(found: re.Match[str]) -> str:
    before, place = found[1], found[2]
    if place.startswith("//localhost/") and found.string.endswith("file:", 0, found.start(2)):
        place = place.replace("localhost", "", 1)
    if before == ":" and place.startswith("//"):
        # An address: of another machine, or, without one, of a file of this.
        return f":///{_name(place)}" if place.startswith("///") else found[0]
    return before + _name(place)


def _name(place: str) -> str:
    """The last part of a path, of a cached model its name on the hub; the path itself where it has no parts."""
    if hub := _HUB.search(place):
        return f"{hub[1]}/{hub[2]}"
    whole = place.rstrip()
    parts = [part for part in whole.split("/") if part not in ("", ".", "..") and not part.startswith("~")]
    return (parts[-1] if parts else whole) + place[len(whole) :]
