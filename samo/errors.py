"""Errors meant for people: one line of what is wrong, the valid choices, a hint, an exit status."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "DataError",
    "DiskFull",
    "EnvironmentProblem",
    "ExportError",
    "Interrupted",
    "LeakError",
    "ModelFileError",
    "RankLost",
    "RunError",
    "SamoError",
    "SettingsError",
    "TrainingDiverged",
    "counted",
    "first_few",
    "first_ten",
    "nearest",
    "plural",
    "reporting_full_disk",
]


class SamoError(Exception):
    """Base of every error a user can cause or meet.

    Attributes:
        message: one line, what is wrong and where.
        hint: what to do about it; may be empty.
        exit_status: the status the command line leaves with.
    """

    exit_status = 1
    code = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = " ".join(message.split())
        self.hint = " ".join(hint.split())


class SettingsError(SamoError):
    """A flag, a configuration key or a combination of them is wrong."""

    exit_status = 2
    code = "settings"


class DataError(SamoError):
    """Input data is missing, unreadable or inconsistent."""

    exit_status = 3
    code = "data"


class LeakError(SamoError):
    """The same speaker, recording or text stands on both sides of a split."""

    exit_status = 4
    code = "leak"


class RunError(SamoError):
    """A run folder is missing, taken, busy or unfinished."""

    exit_status = 5
    code = "run"


class ModelFileError(SamoError):
    """A weights or checkpoint file is damaged, foreign or does not fit."""

    exit_status = 6
    code = "model-file"


class TrainingDiverged(SamoError):  # noqa: N818
    """The loss left the finite numbers."""

    exit_status = 7
    code = "diverged"


class DiskFull(SamoError):  # noqa: N818
    """No space left where SAMO writes."""

    exit_status = 8
    code = "disk-full"


class EnvironmentProblem(SamoError):  # noqa: N818
    """Something outside SAMO is missing: network, optional package, device."""

    exit_status = 9
    code = "environment"


class RankLost(SamoError):  # noqa: N818
    """Another process of a training under torchrun ended or does not answer."""

    exit_status = 10
    code = "rank-lost"


class ExportError(SamoError):
    """An exported file does not answer as it must."""

    exit_status = 11
    code = "export"


class Interrupted(SamoError):  # noqa: N818
    """Training was stopped by a signal; what was learned so far is kept."""

    code = "interrupted"

    def __init__(self, message: str, *, hint: str = "", exit_status: int = 130) -> None:
        super().__init__(message, hint=hint)
        self.exit_status = exit_status


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return ``"did you mean 'x'? "`` for the closest choice, or an empty string."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'? " if close else ""


def plural(noun: str, n: float, many: str = "") -> str:
    """The noun as it follows a number: the one rule for one and many.

    >>> plural("speaker", 1), plural("speaker", 0), plural("class", 2), plural("text is", 2, "texts are")
    ('speaker', 'speakers', 'classes', 'texts are')
    """
    return noun if n == 1 else many or noun + ("es" if noun.endswith("s") else "s")


def counted(n: int, noun: str, many: str = "") -> str:
    """A number and its noun, see :func:`plural`.

    >>> counted(1, "speaker"), counted(24, "speaker")
    ('1 speaker', '24 speakers')
    """
    return f"{n} {plural(noun, n, many)}"


def first_ten(names: Iterable[object]) -> str:
    """Join the first ten names and count the rest."""
    return first_few(names, 10)


def first_few(names: Iterable[object], n: int) -> str:
    """Join the first ``n`` names and count the rest."""
    listed = [str(name) for name in names]
    rest = f" and {len(listed) - n} more" if len(listed) > n else ""
    return ", ".join(listed[:n]) + rest


@contextmanager
def reporting_full_disk(target: Path) -> Iterator[None]:
    """Turn 'no space left' and 'quota exceeded' under ``target`` into :class:`DiskFull`.

    A writer that meets them may complain of something else after (torch.save does), so what came before is looked at.
    """
    try:
        yield
    except Exception as error:
        met: BaseException | None = error
        while met is not None and not (isinstance(met, OSError) and met.errno in (errno.ENOSPC, errno.EDQUOT)):
            met = met.__context__
        if met is not None:
            raise DiskFull(
                f"no space left while writing {target}",
                hint="free some space or point `artifacts` (or SAMO_CACHE) at another disk",
            ) from error
        raise
