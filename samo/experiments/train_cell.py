"""One cell of a grid, wherever it runs: train it or go on with it, then evaluate it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from samo.errors import DataError
from samo.experiments.cells import report_of
from samo.frontend import Frontend
from samo.launch.store import Store, working_copy
from samo.modalities import frontend_type
from samo.plugins import trust, trusted
from samo.runs.evaluate import evaluate_run
from samo.runs.run import Run
from samo.runs.training import resume_training, train_run
from samo.settings import Config, stored_config
from samo.training.runtime import make_runtime
from samo.training.setup import Setup
from samo.training.tracking import Observers
from samo.training.trainer import Observer
from samo.training.training_log import TrainingLog

__all__ = ["cell_spec", "train_cell"]


def cell_spec(
    folder: Path,
    settings: Mapping[str, Any],
    device: str,
    precision: str,
    threads: int,
    command: str,
    part: str = "test",
    data: str = "",
    store: str = "",
) -> dict[str, Any]:
    """What :func:`train_cell` needs, as plain JSON: what was trusted here is trusted there.

    Args:
        folder: of the run.
        settings: ``modality`` included.
        device, precision, threads: as in :class:`~samo.launch.resources.Resources`.
        command: what was typed.
        part: what the cell is evaluated on.
        data: digest of the items and their contents; empty: any.
        store: URL of the run, where machines share no folder.
    """
    return {
        "folder": str(folder.resolve()),
        "settings": dict(settings),
        "device": device,
        "precision": precision,
        "threads": threads,
        "command": command,
        "part": part,
        "data": data,
        "store": store,
        "trusted": trusted(),
    }


def train_cell(spec: Mapping[str, Any]) -> None:
    """Bring a cell to its end from wherever it was left; a finished one is left alone.

    Raises:
        SamoError: what the same training would raise alone.
    """
    trust(*spec.get("trusted", ()))
    folder = Path(spec["folder"])
    if not spec["store"]:
        _finish(Run(folder), spec)
        return
    facts = {"settings": dict(spec["settings"]), "data": spec["data"]}
    with working_copy(Store(spec["store"], patient=True), folder.name, report_of(spec["part"]), facts) as (run, send):
        _finish(run, spec, _AfterEpochs(send))


class _AfterEpochs:
    """An observer that does something after each epoch."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act

    def on_step(self, epoch: int, step: int, n_steps: int, loss: float) -> None:
        """Nothing."""

    def on_epoch(self, row: dict[str, Any], improved: bool) -> None:
        """Do it."""
        self._act()


def _finish(run: Run, spec: Mapping[str, Any], *observers: Observer) -> None:
    part = spec["part"]
    if run.path(report_of(part)).exists() and run.path("trained.json").exists():
        return
    settings = spec["settings"]
    frontend = _open(stored_config(settings))
    if spec["data"] not in ("", frontend.manifest.digest):
        raise DataError(
            f"the corpus on {socket.gethostname()} is not the one this grid was begun with",
            hint=f"bring {settings['data_root'] or settings['dataset']} up to date there",
        )
    if not run.path("trained.json").exists():
        setup = Setup(frontend, make_runtime(spec["device"], spec["precision"], spec["threads"]))
        observer = Observers(TrainingLog(settings["epochs"]), *observers)
        if run.path("config.json").exists():
            resume_training(run, setup, observer)
        else:
            train_run(run, setup, observer, spec["command"])
    # In the precision of `samo evaluate`.
    evaluate_run(run, Setup(frontend, make_runtime(spec["device"], "float32", spec["threads"])), part)


# The data of the cell before, by modality: a worker's cells mostly share them.
_opened: dict[str, Frontend] = {}


def _open(config: Config) -> Frontend:
    known = _opened.get(config.modality)
    found = known.with_config(config) if known else frontend_type(config.modality).open(config, print)
    _opened[config.modality] = found
    return found
