"""``samo presets``."""

from __future__ import annotations

from typing import Annotated

import typer

from samo_cli.modalities import preset_files, read_preset

__all__ = ["presets"]


def presets(
    modality: Annotated[str, typer.Option(help="Whose recipes.")] = "audio",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """List the recipes for `samo train --preset` and what each of them sets."""
    from rich.table import Table

    from samo_cli.render import out, print_json

    found = {name: read_preset(modality, name) for name in preset_files(modality)}
    if json:
        print_json({name: {"description": text, "settings": settings} for name, (text, settings) in found.items()})
        return
    table = Table(title=f"presets of --modality {modality}", title_justify="left")
    for head in ("name", "what", "sets"):
        table.add_column(head, overflow="fold")
    for name, (text, settings) in found.items():
        table.add_row(name, text, ", ".join(f"{key}={value}" for key, value in settings.items()))
    out.print(table)
