"""The models that come with SAMO: what answers where nothing was trained."""

from __future__ import annotations

from pathlib import Path

from samo.errors import RunError
from samo.modalities import released_files
from samo.runs.run import find_run

__all__ = ["DEFAULTS", "released_for"]

# The model of each modality in place of a run.
DEFAULTS = {"audio": "samo-speech", "text": "samo-text"}


def released_for(given: str, artifacts: Path, modality: str = "audio") -> Path | None:
    """The file of a released model, where one is meant: named, or in place of the newest run where there is no run.

    A run of the same name comes first.

    Args:
        given: what a person named; empty: the newest run.
        artifacts: root of all outputs.
        modality: of the model in place of a run.
    """
    files = released_files()
    if given and given not in files:
        return None
    try:
        find_run(artifacts, given)
    except RunError:
        return files.get(given or DEFAULTS.get(modality, ""))
    return None
