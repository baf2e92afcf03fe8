"""``samo presets``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Annotated

import typer

from samo.modalities import MODALITIES, preset_files
from samo.settings import read_preset
from samo_cli.flags import switch
from samo_cli.options import (
    Json,
)

__all__ = ["presets"]


def presets(
    modality: Annotated[str, typer.Option(metavar="|".join(MODALITIES), help="Whose recipes.")] = "audio",
    json: Json = False,
) -> None:
    """List the recipes for `samo train --preset` and what each of them sets."""
    from samo_cli.render import print_json, show_table

    found = {name: read_preset(modality, name) for name in preset_files(modality)}
    if json:
        rows = {name: {"description": text, "settings": settings} for name, (text, settings) in found.items()}
        print_json({"schema": 1, "modality": modality, "presets": rows})
        return
    cells = [(name, text, _as_flags(values)) for name, (text, values) in found.items()]
    show_table(("name", "what", "sets"), cells, whole=("name",))


def _as_flags(settings: Mapping[str, object]) -> str:
    """What a preset sets, as it would be typed."""
    return " ".join(_as_flag(name, value) for name, value in settings.items())


def _as_flag(name: str, value: object) -> str:
    if isinstance(value, bool):
        return switch(name) if value else f"--no-{switch(name)[2:]}"
    if isinstance(value, Mapping):
        value = ",".join(f"{key}={number}" for key, number in value.items())
    return f"{switch(name)} {shlex.quote(str(value))}"
