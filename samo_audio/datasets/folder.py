"""Any corpus with one folder per class: ``<class>/.../<clip>.wav``, any audio format, any depth.

Speakers are read off the relative path by ``speaker_pattern``, for example ``spk(\\d+)`` or
``^[^/]+/(?P<speaker>[^/]+)/``.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from samo.data.download import RemoteFile
from samo.errors import DataError, SettingsError, counted, first_ten
from samo_audio.datasets.emotions import label_task
from samo_audio.datasets.listing import clips_below, ids_without_suffix, left_out, require_folder
from samo_audio.problems import FORMAT_HINT

if TYPE_CHECKING:
    from samo.data.manifest import Manifest
    from samo_audio.config import DataSettings

__all__ = ["index"]

NAME = "folder"
TITLE = "your own folder: one folder per class, speakers by `speaker_pattern`"
LICENSE = "that of your clips"
CITATION = ""
HOMEPAGE = ""
SYNTHETIC = False
DOWNLOADS: tuple[RemoteFile, ...] = ()
FOLDS: tuple[frozenset[str], ...] = ()
GROUP_HINT = r"name the speaker, for example `speaker_pattern=^[^/]+/(spk\d+)` for CLASS/spk1_a.wav"


def index(root: Path, settings: DataSettings) -> Manifest:
    """List the clips below the class folders of ``root``.

    Without ``speaker_pattern`` the speakers stay unknown.

    Raises:
        DataError: no folder, clips outside the class folders, fewer than two classes, a class whose recordings are
            all in formats that cannot be read, a folder that cannot be read, or a path without a speaker.
        SettingsError: the pattern is no regular expression or has no group.
    """
    from samo.data.manifest import Item, Manifest
    from samo.tasks import LabelSpace

    speaker_of = _speaker_pattern(settings.speaker_pattern)
    paths, others = _clips(root)
    labels = [_class(path) for path in paths]
    _refuse_actors(root, set(labels))
    groups = _speakers(root, paths, speaker_of)
    task, class_of = label_task(labels, settings.mode, root)
    items = [
        Item(id=id_, source=path, labels={task.name: (class_of[label],)}, group=group)
        for id_, path, label, group in zip(ids_without_suffix(paths), paths, labels, groups, strict=True)
    ]
    return Manifest(
        dataset=NAME,
        label_space=LabelSpace((task,)),
        items=tuple(sorted(items, key=lambda item: item.id)),
        root=root.absolute(),
        origin=root.resolve().name,
        group_hint=GROUP_HINT,
        notes=left_out(others, root),
    )


def _clips(root: Path) -> tuple[list[str], list[str]]:
    """Clips, and recordings in formats that cannot be read."""
    from samo_audio.audio_io import is_audio, is_recording

    require_folder(root, NAME)
    found = clips_below(root, is_recording)
    paths = [path for path in found if is_audio(Path(path))]
    others = [path for path in found if not is_audio(Path(path))]
    if not paths:
        only = f", only {first_ten(others)}" if others else ""
        raise DataError(f"no audio file lies below {root}{only}", hint=FORMAT_HINT if others else "check `data_root`")
    empty = Counter(_class(path) for path in others if "/" in path)
    empty -= Counter(dict.fromkeys(map(_class, paths), len(others)))
    if empty:
        listed = first_ten(f"'{name}' ({counted(count, 'recording')})" for name, count in sorted(empty.items()))
        raise DataError(
            f"below {root} there are classes without a clip that can be read: {listed}, for example "
            + next(path for path in others if _class(path) in empty),
            hint=FORMAT_HINT,
        )
    loose = [path for path in paths if "/" not in path]
    if loose:
        raise DataError(
            f"{counted(len(loose), 'clip lies', 'clips lie')} directly in {root}, "
            f"outside any class folder: {first_ten(loose)}",
            hint="move them into the folder of their class, or list them in a CSV with `dataset=table`",
        )
    classes = sorted(set(map(_class, paths)))
    if len(classes) < 2:
        raise DataError(
            f"{root} needs a folder for each of at least two classes, found clips only in '{classes[0]}'",
            hint="`data_root` must be the folder that holds the class folders",
        )
    return paths, others


def _class(path: str) -> str:
    return path.split("/", 1)[0]


def _refuse_actors(root: Path, classes: set[str]) -> None:
    """Training on RAVDESS's actors as if they were emotions is a mistake that looks like success."""
    if all(re.fullmatch(r"Actor_\d\d", name, re.IGNORECASE) for name in classes):
        raise DataError(f"the folders of {root} are actors, not classes", hint="use `dataset=ravdess`")


def _speaker_pattern(pattern: str) -> re.Pattern[str] | None:
    if not pattern:
        return None
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise SettingsError(f"`speaker_pattern` '{pattern}' is no regular expression: {error}") from error
    if not compiled.groups:
        raise SettingsError(
            f"`speaker_pattern` '{pattern}' has no group",
            hint="put the speaker in parentheses, for example 'spk([0-9]+)'",
        )
    return compiled


def _speakers(root: Path, paths: list[str], pattern: re.Pattern[str] | None) -> list[str]:
    """The group named ``speaker``, or the first one, of each path's match."""
    if pattern is None:
        return [""] * len(paths)
    group: str | int = "speaker" if "speaker" in pattern.groupindex else 1
    matches = [pattern.search(path) for path in paths]
    speakers = [(match[group] or "") if match else "" for match in matches]
    unmatched = [path for path, speaker in zip(paths, speakers, strict=True) if not speaker]
    if unmatched:
        raise DataError(
            f"`speaker_pattern` '{pattern.pattern}' finds no speaker in {len(unmatched)} of {len(paths)} paths below "
            f"{root}: {first_ten(unmatched)}",
            hint="the pattern is searched in the path relative to `data_root`, with forward slashes",
        )
    return speakers
