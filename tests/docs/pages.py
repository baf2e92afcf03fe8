"""README and docs as data: blocks with their marks, commands in the text, links and headings.

A comment on the line before a fenced block marks it:

- ``<!-- not run: reason -->``: its commands are checked, not run.
- ``<!-- planned: reason -->``: each command is run with ``--dry-run``.
- ``<!-- run by: tests/FILE.py -->``: another test runs it.
- ``<!-- file: NAME -->``: its text is the file of that name in the working folder.

A Python block that begins with ``# NAME.py`` is that file.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- ([a-z ]+): ([^\n]+?) -->\n\Z")
_NAMED = re.compile(r"# (\w+\.py)\n")


@dataclass(frozen=True)
class Command:
    """One line behind ``$``, with the lines below it up to the next."""

    line: str
    printed: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        return shlex.split(self.line, comments=True)

    @property
    def fails(self) -> bool:
        """Whether its comment says so."""
        return "# fails" in self.line


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, its line on the page, and the mark before it."""

    kind: str
    text: str
    line: int
    mark: str = ""
    reason: str = ""

    @property
    def file(self) -> str:
        """The file that this block is; empty if it is none."""
        if self.mark == "file":
            return self.reason
        named = _NAMED.match(self.text) if self.kind == "python" else None
        return named[1] if named else ""

    @property
    def commands(self) -> list[Command]:
        found: list[Command] = []
        for line in self.text.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                found.append(Command(line[2:]))
            elif found:
                found[-1] = Command(found[-1].line, (*found[-1].printed, line))
        return found


def blocks_of(text: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = []
    for match in _FENCE.finditer(text):
        mark = _MARK.search(text[: match.start()])
        number = text.count("\n", 0, match.start()) + 1
        found.append(Block(match[1], match[2], number, *((mark[1], mark[2]) if mark else ("", ""))))
    return found


def prose_of(text: str) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", text)


def inline_of(text: str) -> Iterator[str]:
    """What stands between backquotes outside fenced blocks."""
    return (match[1] for match in re.finditer(r"`([^`\n]+)`", prose_of(text)))


def links_of(text: str) -> Iterator[str]:
    """Targets of links and pictures that are no web addresses."""
    targets = (match[1] for match in re.finditer(r"\]\(([^)\s]+)\)", prose_of(text)))
    return (target for target in targets if not re.match(r"[a-z]+:", target))


def anchors_of(text: str) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", prose_of(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
