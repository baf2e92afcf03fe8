"""Live curves of a training in TensorBoard and MLflow: observers that may fail, but never stop what they watch."""

from __future__ import annotations

import importlib
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from samo.errors import EnvironmentProblem, Interrupted, RunError, SettingsError, nearest
from samo.files import write_json
from samo.stored import Stored, Text, read_stored

if TYPE_CHECKING:
    from samo.training.trainer import Observer

__all__ = [
    "TRACKERS",
    "MlflowTracker",
    "Observers",
    "TensorBoardTracker",
    "Tracker",
    "Watched",
    "draw_pictures",
    "require_trackers",
    "tracked",
]

STEP_EVERY = 10
# An MLflow server that went away may hold up the training this long, once; and no usage data leaves the machine.
MLFLOW_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "GIT_PYTHON_REFRESH": "quiet",
}


@dataclass(frozen=True)
class Watched:
    """The training that is tracked.

    Attributes:
        folder: the run's folder; its name is the run's name.
        root: the folder of all outputs, in whose ``runs`` it lies.
        settings: every setting by name.
        history: gives the rows of the epochs done so far.
    """

    folder: Path
    root: Path
    settings: Mapping[str, Any]
    history: Callable[[], Sequence[Mapping[str, Any]]]


class Tracker(Protocol):
    """An observer with an end; made before the run's folder is, it writes nothing until the first step."""

    packages: ClassVar[tuple[str, ...]]

    def __init__(self, watched: Watched) -> None: ...

    def on_step(self, epoch: int, step: int, n_steps: int, loss: float) -> None:
        """After each optimiser step of an epoch; ``step`` counts from 1."""

    def on_epoch(self, row: dict[str, Any], improved: bool) -> None:
        """After each validated epoch, with the row written to the history."""

    def close(self, status: str) -> None:
        """The training is over: ``FINISHED``, ``KILLED`` or ``FAILED``."""


class Observers:
    """Several observers as one; each is told in the order given."""

    def __init__(self, *observers: Observer) -> None:
        self.observers = observers

    def on_step(self, epoch: int, step: int, n_steps: int, loss: float) -> None:
        """Tell all."""
        for observer in self.observers:
            observer.on_step(epoch, step, n_steps, loss)

    def on_epoch(self, row: dict[str, Any], improved: bool) -> None:
        """Tell all."""
        for observer in self.observers:
            observer.on_epoch(row, improved)


class TensorBoardTracker:
    """Event files in the run's folder ``tensorboard``; every curve is drawn over optimiser steps.

    A resumed training purges what was drawn past the end of its last whole epoch, and draws the epochs that are
    missing from the history: those of a kill between an epoch's files and its curve, or of a training not tracked yet.
    The picture of what training sees stands beside the curves, and :func:`draw_pictures` adds those of its reports.
    """

    packages: ClassVar[tuple[str, ...]] = ("tensorboard",)

    def __init__(self, watched: Watched) -> None:
        self._watched, self._folder = watched, watched.folder / "tensorboard"
        self._writer: Any = None
        self._n_steps = 0

    def on_step(self, epoch: int, step: int, n_steps: int, loss: float) -> None:
        """Draw the loss of every tenth step."""
        if self._writer is None:
            self._n_steps = n_steps
            self._open(epoch)
        number = epoch * n_steps + step
        if number % STEP_EVERY == 0:
            self._writer.add_scalar("step_loss", loss, number)

    def on_epoch(self, row: dict[str, Any], improved: bool) -> None:
        """Draw every number of the row, at the epoch's last step."""
        self._draw(row)
        self._writer.flush()

    def close(self, status: str) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()

    def _open(self, epoch: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        begun = any(self._folder.glob("events.out.tfevents.*"))
        drawn = _drawn(self._folder) if begun else set()
        self._writer = SummaryWriter(str(self._folder), purge_step=epoch * self._n_steps + 1 if begun else None)
        if not begun:
            self._writer.add_text("settings", _as_table(self._watched.settings), 0)
            for picture in sorted(self._watched.folder.glob("*.png")):
                _add_picture(self._writer, picture.stem, picture, 0)
        for row in self._watched.history():
            self._draw(row, drawn)

    def _draw(self, row: Mapping[str, Any], drawn: Collection[tuple[str, int]] = ()) -> None:
        step = row["epoch"] * self._n_steps
        for name, value in row.items():
            if value is not None and (name, step) not in drawn:
                self._writer.add_scalar(name, value, step)


def draw_pictures(folder: Path, pictures: Mapping[str, Path], epoch: int, warn: Callable[[str], None]) -> None:
    """Show pictures beside a training's curves in TensorBoard; nothing where it has none.

    Args:
        folder: the run's.
        pictures: PNG files by the names they are shown under.
        epoch: of the weights that they speak of, from 1; TensorBoard's step.
        warn: told of what fails, which stops nothing.
    """
    curves = folder / "tensorboard"
    if not any(curves.glob("events.out.tfevents.*")):
        return
    try:
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(curves), filename_suffix=".pictures") as writer:
            for name, path in pictures.items():
                _add_picture(writer, name, path, epoch)
    except Exception as error:
        warn(f"no pictures in TensorBoard: {str(error).partition(chr(10))[0] or type(error).__name__}")


def _add_picture(writer: Any, name: str, path: Path, step: int) -> None:
    from matplotlib.image import imread

    writer.add_image(name, imread(path)[..., :3], step, dataformats="HWC")


class MlflowTracker:
    """A run in the MLflow store of ``$MLFLOW_TRACKING_URI``, else in ``ARTIFACTS/mlflow/mlflow.db``.

    Settings are its parameters, the numbers of an epoch its metrics at that epoch. Its id is kept in the run's folder,
    so that a resumed training goes on with the same one; epochs it has not seen are logged from the history.
    MLflow 3 keeps new local stores in SQLite: folders of files are in maintenance mode and refused by default.
    """

    packages: ClassVar[tuple[str, ...]] = ("mlflow", "sqlalchemy", "alembic")

    def __init__(self, watched: Watched) -> None:
        self._watched, self._file = watched, watched.folder / "mlflow.json"
        self._store = watched.root / "mlflow"
        self._client: Any = None
        self._id = ""

    def on_step(self, epoch: int, step: int, n_steps: int, loss: float) -> None:
        """Open the run; steps are not logged."""
        if self._client is None:
            self._open()

    def on_epoch(self, row: dict[str, Any], improved: bool) -> None:
        """Log every number of the row."""
        self._log(row)

    def close(self, status: str) -> None:
        """Leave the status, also of a resumed training that had no step left to do."""
        if status == "FINISHED" and self._client is None and self._file.exists():
            self._open()
        if self._client is not None:
            self._client.set_terminated(self._id, status)

    def _open(self) -> None:
        from mlflow import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI", "")
        if not uri:
            self._store.mkdir(parents=True, exist_ok=True)
            uri = f"sqlite:///{self._store.resolve() / 'mlflow.db'}"
        client = MlflowClient(tracking_uri=uri)
        self._id = _kept_id(self._file, uri)
        if self._id:
            client.update_run(self._id, status="RUNNING")
        else:
            self._id = self._create(client)
            write_json(self._file, {"tracking_uri": uri, "run_id": self._id})
        self._client = client
        seen = {metric.step for metric in client.get_metric_history(self._id, "val_macro_f1")}
        for row in self._watched.history():
            if row["epoch"] not in seen:
                self._log(row)

    def _create(self, client: Any) -> str:
        from mlflow.entities import Param

        run: str = client.create_run(self._experiment(client), run_name=self._watched.folder.name).info.run_id
        params = [Param(name, str(value)) for name, value in self._watched.settings.items()]
        for start in range(0, len(params), 100):  # the most that a server takes at once
            client.log_batch(run, params=params[start : start + 100])
        return run

    def _experiment(self, client: Any) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "samo"
        found = client.get_experiment_by_name(name)
        # A local store would put the files of its runs into the working directory.
        place = None if os.environ.get("MLFLOW_TRACKING_URI") else (self._store.resolve() / "files").as_uri()
        experiment: str = found.experiment_id if found else client.create_experiment(name, artifact_location=place)
        return experiment

    def _log(self, row: Mapping[str, Any]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        values = {name: value for name, value in row.items() if name != "epoch" and value is not None}
        metrics = [Metric(name, float(value), now, row["epoch"]) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoardTracker, "mlflow": MlflowTracker}


def require_trackers(given: str) -> tuple[str, ...]:
    """The names in ``tracker`` (or ``$SAMO_TRACKER``), joined by commas, each known and installed.

    Raises:
        SettingsError: an unknown name.
        EnvironmentProblem: its package is not installed, or cannot be imported.
    """
    requested = given or os.environ.get("SAMO_TRACKER", "")
    names = tuple(dict.fromkeys(filter(None, (part.strip() for part in requested.split(",")))))
    for name in names:
        if name not in TRACKERS:
            raise SettingsError(
                f"`tracker` '{name}': unknown", hint=nearest(name, TRACKERS) + f"valid: {', '.join(TRACKERS)}"
            )
    for name in names:
        if name == "mlflow":
            _quieten_mlflow()
        for package in TRACKERS[name].packages:
            try:
                importlib.import_module(package)
            except ImportError as error:
                raise EnvironmentProblem(
                    f"`tracker={name}` needs the package {package}: {error}", hint='pip install "samo-emotion[track]"'
                ) from error
    return names


@contextmanager
def tracked(names: Sequence[str], watched: Watched, warn: Callable[[str], None]) -> Iterator[list[Observer]]:
    """An observer for each tracker, closed at the end with what became of the training.

    Args:
        names: keys of :data:`TRACKERS`, as :func:`require_trackers` returns them.
        watched: the training.
        warn: told once of each tracker that fails; the training goes on without it.
    """
    trackers = [_Spared(name, TRACKERS[name](watched), warn) for name in names]
    status = "FAILED"
    try:
        yield list(trackers)
        status = "FINISHED"
    except (Interrupted, KeyboardInterrupt):
        status = "KILLED"
        raise
    finally:
        for tracker in trackers:
            tracker.close(status)


class _Spared:
    """Hands on to a tracker until it fails; what comes after is not handed on."""

    def __init__(self, name: str, tracker: Tracker, warn: Callable[[str], None]) -> None:
        self._name, self._tracker, self._warn = name, tracker, warn
        self._failed = False

    def on_step(self, epoch: int, step: int, n_steps: int, loss: float) -> None:
        self._try(self._tracker.on_step, epoch, step, n_steps, loss)

    def on_epoch(self, row: dict[str, Any], improved: bool) -> None:
        self._try(self._tracker.on_epoch, row, improved)

    def close(self, status: str) -> None:
        self._try(self._tracker.close, status)

    def _try(self, call: Callable[..., None], *arguments: Any) -> None:
        if self._failed:
            return
        try:
            call(*arguments)
        except Exception as error:
            self._failed = True
            reason = str(error).partition("\n")[0] or type(error).__name__
            self._warn(f"the training goes on without `tracker={self._name}`, which failed: {reason}")


def _quieten_mlflow() -> None:
    for variable, value in MLFLOW_DEFAULTS.items():
        os.environ.setdefault(variable, value)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # one warning is enough, and it is ours


def _drawn(folder: Path) -> set[tuple[str, int]]:
    """Every curve and the steps it has, less what was purged; a record that a kill cut in two is passed over."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {(name, event.step) for name in events.Tags()["scalars"] for event in events.Scalars(name)}


def _as_table(settings: Mapping[str, Any]) -> str:
    rows = [f"| {name} | {value} |" for name, value in settings.items()]
    return "\n".join(["| setting | value |", "|---|---|", *rows])


def _kept_id(file: Path, uri: str) -> str:
    """The id of the run in this store, or nothing."""
    try:
        kept = read_stored(file, _StoredId) if file.exists() else _StoredId()
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {file}: {error}", hint="remove it; MLflow then begins a new run") from error
    return kept.run_id if kept.tracking_uri == uri else ""


class _StoredId(Stored):
    run_id: Text = ""
    tracking_uri: Text = ""
