"""Settings as they are typed: the core names ``class_weight_loss``, the command line ``--class-weight-loss``."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from typing import Any

import typer

from samo.lazy import load_object

__all__ = ["as_flags", "flag_names", "in_artifacts", "switch"]

# The core writes settings and arguments in backquotes, alone or with a value: `focal_loss`, `split=folds`.
_NAMED = re.compile(r"(?<!`)`([a-z][a-z0-9_]*)(?:=([^`]*))?`(?!`)")
# Only `samo train` goes on with a run, whichever verb stumbled over it.
_WHOLE = {"resume": "samo train --resume"}


def switch(name: str) -> str:
    """The flag of a setting: ``class_weight_loss`` is ``--class-weight-loss``."""
    return "--" + name.replace("_", "-")


def as_flags(text: str, *, own_words: bool = False) -> str:
    """A line of the core's with its settings as flags.

    Args:
        text: other words in backquotes, such as a label or a file of the user's, stay as they are.
        own_words: nothing in the text is the user's, so that every name in backquotes is a flag; saves looking.

    >>> as_flags("`focal_gamma` acts only together with `focal_loss`; try `split=folds`")
    '--focal-gamma acts only together with --focal-loss; try --split folds'
    >>> as_flags("label `happy` of `name=my run`; leave out `use_bn=False`")
    "label `happy` of --name 'my run'; leave out --no-use-bn"
    """

    def typed(match: re.Match[str]) -> str:
        name, value = match[1], match[2]
        if not own_words and name not in flag_names():
            return match[0]
        if value in ("True", "False"):
            return switch(name if value == "True" else f"no_{name}")
        return _WHOLE.get(name, switch(name)) + ("" if value is None else f" {shlex.quote(value)}")

    return _NAMED.sub(typed, text)


def in_artifacts(command: str, artifacts: str) -> str:
    """A command to type next, with the ``--artifacts`` that was typed.

    >>> in_artifacts("samo evaluate x", "out"), in_artifacts("samo evaluate x", "")
    ('samo evaluate x --artifacts out', 'samo evaluate x')
    >>> in_artifacts("samo evaluate x", "my out")
    "samo evaluate x --artifacts 'my out'"
    """
    return f"{command} --artifacts {shlex.quote(artifacts)}" if artifacts else command


@cache
def flag_names() -> frozenset[str]:
    """Every flag of every verb, written as the core writes it: ``class_weight_loss``.

    Imports all verbs, which is why it is called only for a line with something in backquotes.
    """
    app = typer.main.get_command(load_object("samo_cli.main:build_app")(None))
    return frozenset(flag.removeprefix("--").replace("-", "_") for flag in _flags(app) if flag.startswith("--"))


def _flags(command: Any) -> Iterator[str]:
    for option in command.params:
        yield from option.opts
    for inner in getattr(command, "commands", {}).values():
        yield from _flags(inner)
