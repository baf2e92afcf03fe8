"""``samo doctor``."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from samo.lazy import extra_hint, installed_extras
from samo.modalities import released_files
from samo_cli.options import Json

__all__ = ["doctor"]


DOWNLOADABLE = ("ravdess", "goemotions")


def doctor(json: Json = False) -> None:
    """Say what machine, precision, threads, versions, extras and data SAMO sees.

    Without the extra `train` there is no torch, so that nothing is known of precision and graphics cards.
    """
    from samo.data.corpora import downloaded_root
    from samo.files import cache_root
    from samo.runs.artifacts import artifacts_root
    from samo_cli.render import out, print_json

    extras = installed_extras()
    seen: dict[str, Any] = {"schema": 1, **_machine(), "extras": extras}
    cache = cache_root()
    seen["cache"] = {"folder": str(cache), "gigabytes": round(_size(cache) / 1e9, 2)}
    seen["released_models"] = list(released_files())
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
    missing = [extra for extra, installed in extras.items() if not installed]
    seen["extras"] = ", ".join(extra for extra in extras if extras[extra]) or "none"
    if missing:
        seen["extras"] += f"; missing: {', '.join(missing)} ({extra_hint(','.join(missing))})"
    for name, value in list(seen.items())[1:]:
        if isinstance(value, dict):
            value = ", ".join(f"{key} {_word(inner)}" for key, inner in value.items())
        out.print(f"[bold]{name:20}[/bold]", end="")
        out.print(_word(value), markup=False, soft_wrap=True)


def _machine() -> dict[str, Any]:
    """What torch sees of the machine, or where it is not installed what Python does."""
    from samo.training.machine import machine

    if find_spec("torch") is None:
        return machine()
    from samo.training.runtime import environment, make_runtime

    return environment(make_runtime())


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
