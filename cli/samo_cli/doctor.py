"""``samo doctor``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["doctor"]


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Say what machine, precision, threads, versions and data SAMO sees."""
    from samo_cli.render import out, print_json
    from samo_core.files import cache_root
    from samo_core.training.runtime import environment, make_runtime

    seen: dict[str, Any] = environment(make_runtime())
    cache = cache_root()
    seen["cache"] = {"folder": str(cache), "gigabytes": round(_size(cache) / 1e9, 2)}
    seen["SAMO_DATA_ROOT"] = os.environ.get("SAMO_DATA_ROOT", "")
    if json:
        print_json(seen)
        return
    for name, value in seen.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {inner}" for key, inner in value.items())
        out.print(f"[bold]{name:15}[/bold] {value if value not in ('', []) else 'none'}", soft_wrap=True)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
