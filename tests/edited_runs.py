"""Runs as if they had been trained with other settings: in all files that hold these."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from samo.training.checkpoint import load_tensors, read_metadata, save_tensors


def trained_with(folder: Path, *left_out: str, **changed: Any) -> None:
    """Change settings of a run in ``config.json`` and in what it was begun with; leave some out, as older runs did."""

    def edited(values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in {**values, **changed}.items() if name not in left_out}

    config, fitted = folder / "config.json", folder / "fitted.safetensors"
    config.write_text(json.dumps(edited(json.loads(config.read_text()))))
    if fitted.exists():
        begun = edited(json.loads(read_metadata(fitted)["settings"]))
        save_tensors(fitted, load_tensors(fitted), {"settings": json.dumps(begun)})
