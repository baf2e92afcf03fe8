"""A study as Optuna keeps it: where its trials are stored, what it searches, how it draws and prunes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial

from samo.errors import EnvironmentProblem, RunError, SettingsError, first_ten, nearest
from samo.settings import with_defaults
from samo.training.runtime import step_seed
from samo.tuning.space import SearchSpace

__all__ = [
    "PRUNERS",
    "StudySpec",
    "TrialSeeded",
    "connect",
    "join_study",
    "make_pruner",
    "open_study",
    "require_same_data",
]

PRUNERS = ("median", "hyperband", "none")
# Where the data lies may change; that they are the same is checked by their digest.
MOVABLE = frozenset({"data_root"})
_SPEC, _DATA = "samo", "samo_data"


@dataclass(frozen=True)
class StudySpec:
    """What a study searches; the same from its first trial to its last.

    Attributes:
        settings: every base setting by name.
        space: the search space as it stands in a file.
        pruner: one of :data:`PRUNERS`.
    """

    name: str
    modality: str
    settings: Mapping[str, Any]
    space: Mapping[str, Any]
    pruner: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def refuse_changes(self, stored: StudySpec) -> None:
        """Refuse to go on with a study that was begun otherwise.

        Raises:
            RunError: names what differs.
        """
        changed = [
            f"{what} was {before}, is now {now}"
            for what, before, now in (
                ("modality", stored.modality, self.modality),
                ("pruner", stored.pruner, self.pruner),
            )
            if before != now
        ]
        for title, old, new in (("", stored.settings, self.settings), ("space of ", stored.space, self.space)):
            for name in [*old, *(name for name in new if name not in old)]:
                before, now = old.get(name, "not there"), new.get(name, "not there")
                if name not in MOVABLE and before != now:
                    changed.append(f"{title}{name} was {_plain(before)}, is now {_plain(now)}")
        if changed:
            raise RunError(
                f"study '{self.name}' was begun otherwise: {first_ten(changed)}",
                hint="leave these settings out to go on with it, or choose another `name`",
            )


def connect(folder: Path, url: str = "") -> optuna.storages.BaseStorage:
    """The storage of a study: a database, a Redis, or a journal file (``journal.log`` in the folder unless named).

    Raises:
        SettingsError: no such database, or it cannot be reached.
        EnvironmentProblem: its driver is not installed.
    """
    # Optuna logs to a handler of its own; passed on, only its warnings become notes.
    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import BaseJournalBackend, JournalFileBackend, JournalRedisBackend

    try:
        if "://" in url and not url.startswith("redis"):
            return RDBStorage(url)
        backend: BaseJournalBackend
        if url.startswith("redis"):
            backend = JournalRedisBackend(url)
        else:
            path = Path(url).expanduser() if url else folder / "journal.log"
            path.parent.mkdir(parents=True, exist_ok=True)
            backend = JournalFileBackend(str(path))
        return JournalStorage(backend)
    except ImportError as error:
        raise EnvironmentProblem(f"`storage` needs a package that is missing: {error}") from error
    except OSError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split("\n")[0].split())
        raise SettingsError(
            f"`storage`: no study can be kept there: {reason}",
            hint="a file, or a URL such as sqlite:///study.db or postgresql://user@host/name",
        ) from error


def open_study(storage: optuna.storages.BaseStorage, name: str) -> tuple[optuna.Study, StudySpec] | None:
    """A study that was begun and what it searches, or None.

    Raises:
        RunError: a study of this name exists that SAMO did not make.
    """
    if name not in optuna.get_all_study_names(storage):
        return None
    study = optuna.load_study(study_name=name, storage=storage)
    stored = study.user_attrs.get(_SPEC)
    if stored is None:
        raise RunError(f"the storage holds a study '{name}' that samo did not begin", hint="choose another `name`")
    settings = with_defaults({"modality": stored["modality"], **stored["settings"]})
    del settings["modality"]
    return study, StudySpec(**{**stored, "settings": settings})


def join_study(storage: optuna.storages.BaseStorage, spec: StudySpec, space: SearchSpace) -> optuna.Study:
    """Begin the study, its base settings first in line, or join the one that was begun alike.

    Raises:
        RunError: it was begun otherwise.
    """
    found = open_study(storage, spec.name)
    if found is None:
        study = optuna.create_study(study_name=spec.name, storage=storage, direction="maximize")
        study.set_user_attr(_SPEC, spec.to_json())
        params = space.base_params()
        if params is not None:
            study.enqueue_trial(params, user_attrs={"base": True})
    else:
        study, stored = found
        spec.refuse_changes(stored)
    study.sampler = TrialSeeded(int(spec.settings["seed"]))
    study.pruner = make_pruner(spec.pruner, int(spec.settings["epochs"]))
    return study


def require_same_data(study: optuna.Study, digest: str) -> None:
    """Remember what the study is about, or check that it still is.

    Raises:
        RunError: the data changed.
    """
    before = study.user_attrs.get(_DATA)
    if before is None:
        study.set_user_attr(_DATA, digest)
    elif before != digest:
        raise RunError(
            f"the data of study '{study.study_name}' changed since it was begun", hint="choose another `name`"
        )


def make_pruner(name: str, epochs: int) -> optuna.pruners.BasePruner:
    """A pruner for trainings of so many epochs.

    ``median`` ends a trial whose best score so far is below the median of the others at the same epoch; it waits for
    five finished trials and, in each, for a quarter of the epochs. ``hyperband`` is Li et al. 2018.

    Raises:
        SettingsError: unknown pruner.
    """
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=max(1, epochs // 4))
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=max(1, epochs // 9), max_resource=epochs)
    if name == "none":
        return optuna.pruners.NopPruner()
    raise SettingsError(f"`pruner={name}`: unknown", hint=nearest(name, PRUNERS) + f"valid: {', '.join(PRUNERS)}")


class TrialSeeded(BaseSampler):
    """TPE whose random numbers are a function of seed and trial number.

    A study that was stopped and goes on draws what it would have drawn, and no two workers draw alike.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._number = -1
        self._current: BaseSampler = TPESampler(seed=seed)

    def _of(self, trial: FrozenTrial) -> BaseSampler:
        if trial.number != self._number:
            self._number = trial.number
            self._current = TPESampler(seed=step_seed(self.seed, trial.number) % 2**32, constant_liar=True)
        return self._current

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """See Optuna."""
        self._of(trial).before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        """See Optuna."""
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        """See Optuna."""
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        """See Optuna."""
        return self._of(trial).sample_independent(study, trial, param_name, param_distribution)


def _plain(value: Any) -> str:
    return str(value).replace("'", "")
