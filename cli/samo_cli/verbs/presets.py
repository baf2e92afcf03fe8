"""``samo presets``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from samo.modalities import MODALITIES, ensemble_files, preset_files
from samo.settings import based_on, measured_presets, read_ensemble, read_preset, resolve
from samo_cli.flags import switch
from samo_cli.options import (
    Json,
)

__all__ = ["presets"]


def presets(
    modality: Annotated[str, typer.Option(metavar="|".join(MODALITIES), help="Whose recipes.")] = "audio",
    json: Json = False,
) -> None:
    """List the recipes for `samo train --preset`, what each of them sets, and what was measured of it.

    Ensembles are for `samo train` and `samo crossval`: their members are trained, and answer as one.
    """
    from samo_cli.render import note, print_json, show_table

    rows: dict[str, dict[str, Any]] = {}
    for name in preset_files(modality):
        description, settings = read_preset(modality, name)
        network = resolve(modality, name, None, {}).flat()["model"]
        rows[name] = {"kind": network, "description": description, "settings": settings}
        if (base := based_on(modality, name)) != name:
            rows[name]["based_on"] = base
    for name in ensemble_files(modality):
        description, members = read_ensemble(modality, name)
        rows[name] = {"kind": "ensemble", "description": description, "settings": {}, "members": list(members)}
    for name, facts in measured_presets(modality).items():
        rows[name]["measured"] = facts
    if json:
        print_json({"schema": 1, "modality": modality, "presets": rows})
        return
    measured = [row["measured"] for row in rows.values() if "measured" in row]
    cells = [(name, f"{row['description']}\n{_facts(row)}", _sets(row)) for name, row in rows.items()]
    show_table(("name", "what", "sets"), cells, whole=("name",), piped_width=100)
    for on in dict.fromkeys(str(facts["on"]) for facts in measured):
        note(f"macro-F1: {on}; minutes: in the epochs of one training, without those an encoder's states take")


def _facts(row: Mapping[str, Any]) -> str:
    """The network, then macro-F1 and minutes where they were measured, and what the figure is to be read with."""
    facts = row.get("measured", {})
    score = [f"macro-F1 {facts['macro_f1']:.3f}"] if facts else []
    minutes = [f"{facts['minutes']:.1f} minutes"] if "minutes" in facts else []
    caveat = f"; the figure {facts['caveat']}" if "caveat" in facts else ""
    return ", ".join([str(row["kind"]), *score, *minutes]) + caveat


def _sets(row: Mapping[str, Any]) -> str:
    """What a preset sets, as it would be typed, or by the names of others."""
    if "members" in row:
        return ", ".join(row["members"])
    return f"as {row['based_on']}" if "based_on" in row else _as_flags(row["settings"])


def _as_flags(settings: Mapping[str, object]) -> str:
    """What a preset sets, as it would be typed."""
    return " ".join(_as_flag(name, value) for name, value in settings.items())


def _as_flag(name: str, value: object) -> str:
    if isinstance(value, bool):
        return switch(name) if value else f"--no-{switch(name)[2:]}"
    if isinstance(value, Mapping):
        value = ",".join(f"{key}={number}" for key, number in value.items())
    return f"{switch(name)} {shlex.quote(str(value))}"
