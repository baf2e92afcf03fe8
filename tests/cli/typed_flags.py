"""What ``samo train`` would train with when flags are typed, and the options a help page declares."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tone_corpora import done

import samo.data.corpora
import samo.runs.train
import samo_cli.main
from samo.settings import Config, SettingField
from samo_cli.flags import as_flags, switch


def typed(name: str, value: Any) -> list[str]:
    """A setting as words of a command line."""
    if isinstance(value, bool):
        return [switch(name) if value else "--no-" + switch(name)[2:]]
    if isinstance(value, list):
        return [switch(name), *map(str, value)]
    if isinstance(value, dict):
        value = ",".join(f"{key}={number}" for key, number in value.items())
    return [switch(name), str(value)]


def described(field: SettingField) -> str:
    """How the help of one modality describes a setting, up to its limits."""
    default = field.info.default
    shown = {True: "on", False: "off", "": "none"}.get(default) if isinstance(default, bool | str) else None
    if isinstance(default, tuple):
        shown = " ".join(f"{number:g}" for number in default)
    shown = shown or ("none" if default == {} else f"{default:g}" if isinstance(default, float) else str(default))
    return as_flags(f"{' '.join(str(field.info.description).split())} [{shown}")


def options_of(page: str) -> dict[str, str]:
    """The text beside each option of a help page, by its flag; ``--[no-]x`` is ``--x``."""
    found: dict[str, list[str]] = {}
    flag = ""
    for line in page.splitlines():
        if match := re.match(r"  (?:-\w, )?--(?:\[no-\])?([\w-]+)", line):
            flag = f"--{match[1]}"
            found[flag] = []
        elif not line.startswith("   "):
            flag = ""
        if flag:
            found[flag] += line.split()
    return {flag: " ".join(words) for flag, words in found.items()}


def arrived(monkeypatch: pytest.MonkeyPatch, *argv: object) -> dict[str, Any]:
    """The settings ``samo train`` opens its data with, by name; nothing is read or trained."""

    class _Caught(Exception):  # noqa: N818
        pass

    class Frontend:
        preparing = "reading"

        @classmethod
        def open(cls, config: Config, *_: object) -> None:
            raise _Caught(config)

    caught: list[Config] = []
    real = samo_cli.main._explain

    def explain(error: BaseException, verb: str | None) -> int:
        if isinstance(error, _Caught):
            caught.append(error.args[0])
            return 0
        return real(error, verb)

    with monkeypatch.context() as patch:
        patch.setattr(samo.runs.train, "frontend_type", lambda modality: Frontend)
        for module in (samo.runs.train, samo.data.corpora):  # the places are made up
            patch.setattr(module, "require_places", lambda settings: None)
        patch.setattr(samo_cli.main, "_explain", explain)
        done("train", *argv)
    return caught[0].flat()
