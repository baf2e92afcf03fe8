"""What a training learns from other runs: their probabilities for its training items (knowledge distillation)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from samo.data.manifest import Manifest
from samo.data.splits import Split
from samo.encoders.logreg import inner_groups
from samo.errors import ModelFileError, RunError, SettingsError, first_ten
from samo.evaluation.calibration import apply_temperature
from samo.files import cache_root, caching
from samo.frontend import Frontend
from samo.runs.artifacts import find_run
from samo.runs.calibrate import decision_of
from samo.runs.load import load_run_model
from samo.runs.provenance import Learned, learned_by, refuse_known
from samo.runs.run import ASSETS, Run
from samo.settings import LossSettings
from samo.tasks import LabelSpace
from samo.training.runtime import Runtime
from samo.training.setup import Setup
from samo.training.trainer import predict_logits

__all__ = ["checked_teachers", "known_to", "taught_probabilities"]

# Raise it with every change of what is kept.
_CACHE_VERSION = 3


def checked_teachers(settings: LossSettings, root: Path, modality: str, manifest: Manifest, split: Split) -> list[Run]:
    """The runs that ``teacher`` names, none of which knows what the student is validated or tested on.

    The folder of a cross-validation gives those of its runs that learned from exactly the student's training part:
    all its seeds of one fold. Teachers that are fitted anew (``distil_out_of_fold``) know what their start weights and
    their teachers learned, and nothing else.

    Args:
        settings: of the student.
        root: its artifacts, or the folder of its grid.
        modality: its modality.
        manifest: what it is trained on.
        split: its parts.

    Raises:
        RunError: there is no such run, or none of the folds learned from this training part.
        ModelFileError: it has no model.
        SettingsError: a teacher of another modality, or one that answers another question.
        LeakError: a teacher, or a run that it learned from, knows the validation or test part.
    """
    found: list[Run] = []
    for name in filter(None, (part.strip() for part in settings.teacher.split(","))):
        found += _named(name, root, split)
    for run in found:
        if run.modality != modality:
            raise SettingsError(f"`teacher` '{run.name}' is of modality {run.modality}, this run of {modality}")
        if not run.has_model:
            raise ModelFileError(f"`teacher` '{run.name}' has no model at {run.model_file}", hint="train it first")
        refuse_known(known_to([run], settings), manifest, split, f"`teacher` of run '{run.name}'")
    return found


def known_to(teachers: Sequence[Run], settings: LossSettings) -> tuple[Learned, ...]:
    """What teachers learned from; of those fitted anew out of fold what their start weights and teachers learned."""
    own = 1 if settings.distil_out_of_fold else 0
    return tuple(each for run in teachers for each in learned_by(run)[own:])


def _named(name: str, root: Path, split: Split) -> list[Run]:
    roots = [root, root.parent.parent] if root.parent.name == "grids" else [root]
    for folder in (Path(name).expanduser(), *(each / "grids" / name for each in roots)):
        if (folder / "runs").is_dir() and not (folder / "config.json").is_file():
            return _of_this_fold(folder, split)
    for each in roots[:-1]:
        try:
            return [find_run(each, name)]
        except RunError:
            continue
    return [find_run(roots[-1], str(Path(name).expanduser()))]


def _of_this_fold(grid: Path, split: Split) -> list[Run]:
    """The trained runs of a grid that learned from exactly this training part."""
    runs = [Run(folder.resolve()) for folder in sorted((grid / "runs").iterdir()) if (folder / "config.json").is_file()]
    same = [run for run in runs if run.has_model and set(run.split.train) == set(split.train)]
    if not same:
        raise RunError(
            f"`teacher`: none of the {len(runs)} runs of {grid} learned from exactly this training part",
            hint="cross-validate teacher and student with the same folds and the same `split_seed`; "
            f"runs: {first_ten([run.name for run in runs]) or 'none'}",
        )
    return same


def taught_probabilities(teachers: Sequence[Run], learner: Frontend, rows: np.ndarray, runtime: Runtime) -> np.ndarray:
    """(rows of the learner's manifest, C) float32: the teachers' mean probabilities at ``distil_temperature``.

    A teacher hears an item as in evaluation, once and unaugmented: its logits are averaged over the item's windows and
    divided by its own temperature, that it may be as sure as it is right. NaN for rows that are not learned from.

    Args:
        teachers: of :func:`checked_teachers`.
        learner: gives the student's items, those made by augmentation among them.
        rows: what is learned from.
        runtime: where; always in float32.

    Raises:
        SettingsError: a teacher answers another question, or cannot be fitted anew where that is asked for.
        RunError: its data are not the student's.
    """
    space = learner.manifest.label_space
    settings: LossSettings = learner.config.loss  # type: ignore[attr-defined]
    total = np.zeros((len(rows), space.n_columns))
    for run in teachers:
        logits = _logits(run, learner, rows, runtime, fit_anew=settings.distil_out_of_fold)
        total += space.probabilities(logits / settings.distil_temperature)
    taught = np.full((len(learner.manifest.items), space.n_columns), np.nan, dtype=np.float32)
    taught[rows] = total / len(teachers)
    return taught


def _logits(run: Run, learner: Frontend, rows: np.ndarray, runtime: Runtime, *, fit_anew: bool) -> np.ndarray:
    """(N, C) float64 logits under the teacher's own temperature."""
    space = learner.manifest.label_space
    own = Run(run.folder)  # its settings may have been read before it was trained anew
    key = _key(own, learner, rows, fit_anew)
    if (kept := _kept(key)) is not None:
        return kept
    opened = _opened(own, learner)
    if fit_anew:
        found = opened.out_of_fold(rows)
        if found is None:
            raise SettingsError(
                f"`distil_out_of_fold`: teacher '{run.name}' is not found in closed form",
                hint="leave it away, or cross-validate the teacher and name that folder",
            )
        logits = np.asarray(found, dtype=np.float64)
    else:
        model, answers = load_run_model(own, type(opened), runtime)
        _refuse_other_question(run, answers, space)
        decision = decision_of(own, answers)
        opened.use_kept_states(model)
        raw = predict_logits(model, Setup(opened, runtime), rows)
        logits = apply_temperature(raw, decision.calibration.temperature, space)
    with caching(_place(key)) as temporary:
        np.savez(temporary, logits=logits)
    return logits


def _opened(run: Run, learner: Frontend) -> Frontend:
    """The student's items as the teacher reads them."""
    kind = type(learner)
    data = {field.name for field in kind.config_type.fields() if field.section == "data"}
    given = {name: value for name, value in learner.config.flat().items() if name in data}
    config = kind.config_type.build({**run.flat_settings, **given, "teacher": "", **_NO_DISTILLATION})
    opened = kind.open(config, lambda line: None, None, run.path(ASSETS))
    n = len(opened.manifest.items)
    items = learner.manifest.items
    if [item.id for item in opened.manifest.items] != [item.id for item in items[:n]]:
        raise RunError(f"teacher '{run.name}' reads other items than this run", hint="give both the same `data_root`")
    return opened.with_extra(items[n:]) if len(items) > n else opened


# A teacher may have had teachers; what it reads does not depend on them.
_NO_DISTILLATION = {
    name: LossSettings.model_fields[name].default
    for name in ("distil_temperature", "distil_alpha", "distil_out_of_fold")
}


def _refuse_other_question(run: Run, answers: LabelSpace, space: LabelSpace) -> None:
    if answers != space:
        labels = "; ".join(f"{task.name}: {', '.join(task.labels)}" for task in answers.tasks)
        raise SettingsError(f"`teacher` '{run.name}' answers another question: {labels}", hint="choose the same `mode`")


def _key(run: Run, learner: Frontend, rows: np.ndarray, fit_anew: bool) -> str:
    """Of the teacher's weights, temperature and settings, and of the items it is asked about with their groups."""
    known = hashlib.sha256(f"{_CACHE_VERSION}:{fit_anew}:{learner.manifest.digest}".encode())
    known.update(json.dumps(run.flat_settings, sort_keys=True, default=str).encode())
    known.update(str(learner.manifest.label_space.to_json()).encode())
    calibration = run.path("calibration.json")
    known.update(calibration.read_bytes() if calibration.is_file() else b"")
    known.update(run.model_file.read_bytes())
    for row, group in zip(rows, inner_groups(learner.manifest, rows), strict=True):
        item = learner.manifest.items[row]
        known.update(f"{item.id}\0{item.content or item.source}\0{group}\0".encode(errors="surrogateescape"))
    return known.hexdigest()


def _place(key: str) -> Path:
    return cache_root() / "teachers" / f"{key}.npz"


def _kept(key: str) -> np.ndarray | None:
    path = _place(key)
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            logits: np.ndarray = stored["logits"]
            return logits
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        path.unlink(missing_ok=True)  # damaged: made again
        return None
