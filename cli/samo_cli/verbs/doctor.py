"""``samo doctor``."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from samo_cli.options import Json

__all__ = ["doctor"]


DOWNLOADABLE = ("ravdess", "goemotions")


def doctor(json: Json = False) -> None:
    """Say what machine, precision, threads, versions and data SAMO sees."""
    from samo.data.corpora import downloaded_root
    from samo.files import cache_root
    from samo.runs.run import artifacts_root
    from samo.training.runtime import environment, make_runtime
    from samo_cli.render import out, print_json

    seen: dict[str, Any] = {"schema": 1, **environment(make_runtime())}
    cache = cache_root()
    seen["cache"] = {"folder": str(cache), "gigabytes": round(_size(cache) / 1e9, 2)}
    seen["artifacts"] = str(artifacts_root().absolute())
    for corpus in DOWNLOADABLE:
        seen[corpus] = str(downloaded_root(corpus)) if downloaded_root(corpus).is_dir() else ""
    for variable in ("SAMO_DATA_ROOT", "SAMO_TEXT_DATA_ROOT"):
        seen[variable] = os.environ.get(variable, "")
    if json:
        print_json(seen)
        return
    for corpus in DOWNLOADABLE:
        seen[corpus] = seen[corpus] or f"not downloaded: samo data download {corpus}"
    for name, value in list(seen.items())[1:]:
        if isinstance(value, dict):
            value = ", ".join(f"{key} {_word(inner)}" for key, inner in value.items())
        out.print(f"[bold]{name:20}[/bold]", end="")
        out.print(_word(value), markup=False, soft_wrap=True)


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return str(value) if value not in ("", None) else "none"


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*") if folder.is_dir() else ():
        with suppress(OSError):  # another process may be cleaning up
            total += path.stat().st_size if path.is_file() else 0
    return total
