"""Settings as they are typed: the core names ``class_weight_loss``, the command line ``--class-weight-loss``."""

from __future__ import annotations

import re

__all__ = ["as_flags", "in_artifacts", "switch"]

# The core writes settings and arguments in backquotes, alone or with a value: `focal_loss`, `split=folds`.
_NAMED = re.compile(r"`([a-z][a-z0-9_]*)(?:=([^`]*))?`")


def switch(name: str) -> str:
    """The flag of a setting: ``class_weight_loss`` is ``--class-weight-loss``."""
    return "--" + name.replace("_", "-")


def as_flags(text: str) -> str:
    """A line of the core's with its settings as flags.

    >>> as_flags("`focal_gamma` acts only together with `focal_loss`; try `split=folds`")
    '--focal-gamma acts only together with --focal-loss; try --split folds'
    """

    def typed(match: re.Match[str]) -> str:
        name, value = match[1], match[2]
        if value in ("True", "False"):
            return switch(name if value == "True" else f"no_{name}")
        return switch(name) + (f" {value}" if value else "")

    return _NAMED.sub(typed, text)


def in_artifacts(command: str, artifacts: str) -> str:
    """A command to type next, with the ``--artifacts`` that was typed.

    >>> in_artifacts("samo evaluate x", "out"), in_artifacts("samo evaluate x", "")
    ('samo evaluate x --artifacts out', 'samo evaluate x')
    """
    return f"{command} --artifacts {artifacts}" if artifacts else command
