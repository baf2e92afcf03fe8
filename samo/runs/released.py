"""The models that come with SAMO: what answers where nothing was trained."""

from __future__ import annotations

from pathlib import Path

from samo.errors import RunError
from samo.modalities import released_files
from samo.runs.artifacts import find_run

__all__ = ["DEFAULTS", "model_file", "other_model", "released_for"]

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


def other_model(modality: str) -> str:
    """How to name a model of a modality, for a hint where one of another answers."""
    return f"name a run with `run`, or take `model={DEFAULTS[modality]}`"


def model_file(model: Path | None, run: str, artifacts: Path, modality: str = "audio") -> Path | None:
    """The file that answers: the one named, a released model by its name, or that in place of a run; None for a run.

    Args:
        model: a file, or a released model's name where no such file is; None where a run may be meant.
        run: as in :func:`released_for`.
        artifacts: root of all outputs.
        modality: of the model in place of a run.
    """
    if model is None:
        return released_for(run, artifacts, modality)
    return model if model.exists() else released_files().get(str(model), model)
