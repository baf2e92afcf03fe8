"""One cell of a grid, wherever it runs: train it or go on with it, then judge it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samo.errors import DataError
from samo.modalities import config_type, frontend_type
from samo.settings import Config

if TYPE_CHECKING:
    from samo.runs.run import Run
    from samo.training.trainer import Observer

__all__ = ["spec_of", "work"]


def spec_of(
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
    """What :func:`work` needs, as plain JSON.

    Args:
        folder: of the run.
        settings: ``modality`` included.
        device, precision, threads: as the flags.
        command: what was typed.
        part: what the cell is judged on.
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
    }


# What the cell before had open: a worker's cells mostly share their data.
_last: dict[str, Any] = {}


def work(spec: Mapping[str, Any]) -> None:
    """Bring a cell to its end from wherever it was left; a finished one is left alone.

    Raises:
        SamoError: what the same training would raise alone.
    """
    from samo.experiments.cells import report_of
    from samo.launch.store import Store, working_copy
    from samo.runs.run import Run

    folder = Path(spec["folder"])
    if not spec["store"]:
        _bring_to_end(Run(folder), spec)
        return
    facts = {"settings": dict(spec["settings"]), "data": spec["data"]}
    with working_copy(Store(spec["store"], patient=True), folder.name, report_of(spec["part"]), facts) as (run, send):
        _bring_to_end(run, spec, _AfterEpochs(send))


class _AfterEpochs:
    """An observer that does something after each epoch."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act

    def on_step(self, epoch: int, step: int, n_steps: int, loss: float) -> None:
        """Nothing."""

    def on_epoch(self, row: dict[str, Any], improved: bool) -> None:
        """Do it."""
        self._act()


def _bring_to_end(run: Run, spec: Mapping[str, Any], *watching: Observer) -> None:
    from samo.experiments.cells import report_of
    from samo.runs.evaluate import evaluate_run
    from samo.runs.train import resume_training, train_run
    from samo.training.runtime import make_runtime
    from samo.training.setup import Setup
    from samo.training.tracking import Observers
    from samo_cli.render import TrainingView

    part = spec["part"]
    if run.path(report_of(part)).exists() and run.path("trained.json").exists():
        return
    settings = dict(spec["settings"])
    modality = settings.pop("modality")
    frontend = _open(modality, config_type(modality).build(settings))
    if spec["data"] not in ("", frontend.manifest.digest):
        raise DataError(
            f"the corpus on {socket.gethostname()} is not the one this grid was begun with",
            hint=f"bring {settings['data_root'] or settings['dataset']} up to date there",
        )
    if not run.path("trained.json").exists():
        runtime = make_runtime(spec["device"], spec["precision"], spec["threads"])
        with TrainingView(settings["epochs"], run.history) as view:
            if run.path("config.json").exists():
                resume_training(run, Setup(frontend, runtime), Observers(view, *watching))
            else:
                train_run(run, Setup(frontend, runtime), Observers(view, *watching), spec["command"])
    # Decided as `samo evaluate` judges.
    evaluate_run(run, Setup(frontend, make_runtime(spec["device"], "float32", spec["threads"])), part)


def _open(modality: str, config: Config) -> Any:
    known = _last.get(modality)
    _last[modality] = known.with_config(config) if known else frontend_type(modality).open(config, print)
    return _last[modality]
