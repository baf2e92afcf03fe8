"""``samo train --encoders A,B,C``: each trained under the same settings, the best on validation kept as a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from samo.errors import SettingsError
from samo.settings import collect_settings
from samo_cli.flags import in_artifacts, switch

__all__ = ["train_encoders"]


def train_encoders(
    encoders: str,
    modality: str,
    preset: str,
    config: Path | None,
    settings: Mapping[str, Any],
    artifacts: str,
    *,
    json: bool,
    **others: Any,
) -> None:
    """Select an encoder from those joined by commas, and show how they compare.

    ``others`` are arguments of :func:`samo.experiments.selection.select_encoder`.

    Raises:
        SettingsError: flags that do not go together.
    """
    if modality != "text":
        raise SettingsError("--encoders belongs to --modality text")
    clash = [switch(name) for name in ("encoder", "model") if name in settings]
    if clash:
        raise SettingsError(f"--encoders and {clash[0]} exclude each other")
    collected = collect_settings(modality, preset, config, dict(settings))[0]
    from samo.experiments.selection import select_encoder
    from samo_cli.render import TerminalReporter, print_json, show_selection

    given = [place.strip() for place in encoders.split(",") if place.strip()]
    summary = select_encoder(given, collected, artifacts=artifacts, reporter=TerminalReporter(), **others)
    if json:
        print_json(summary)
    else:
        show_selection(summary, in_artifacts(f"samo evaluate {summary['run']}", artifacts))
