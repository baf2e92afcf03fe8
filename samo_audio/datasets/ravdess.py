"""RAVDESS: 24 actors speak two sentences in eight emotions (Livingstone & Russo 2018).

A clip's name says everything: modality-channel-emotion-intensity-statement-repetition-actor, for example
``03-01-05-02-01-01-12``. Indexed are the audio-only speech clips (``03-01``), as WAV or as lossless FLAC. Clips of
the same release that were sung or cut from video (other modality or channel) are left out with a logged note,
since people unpack the song archive into the same folders. Any other name is refused: skipping it in silence would
hide a mistake.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from samo.data.download import RemoteFile
from samo.errors import DataError, first_ten
from samo_audio.datasets.emotions import EMOTION_TO_SENTIMENT, EMOTIONS, SENTIMENTS
from samo_audio.datasets.listing import clips_below, left_out, require_folder

if TYPE_CHECKING:
    from samo.data.manifest import Item, Manifest
    from samo.tasks import Task
    from samo_audio.config import DataSettings

__all__ = ["DOWNLOADS", "FOLDS", "N_CLIPS", "RavdessName", "index", "index_as", "parse_name"]

NAME = "ravdess"
TITLE = "RAVDESS emotional speech, audio only: 1,440 clips, 24 actors, 8 emotions (English)"
LICENSE = "CC BY-NC-SA 4.0"
CITATION = (
    "Livingstone SR, Russo FA (2018). The Ryerson Audio-Visual Database of Emotional Speech and Song (RAVDESS). "
    "PLoS ONE 13(5): e0196391. doi:10.1371/journal.pone.0196391"
)
HOMEPAGE = "https://zenodo.org/records/1188976"
SYNTHETIC = False
N_CLIPS = 1440
DOWNLOADS = (
    RemoteFile(
        name="Audio_Speech_Actors_01-24.zip",
        urls=("https://zenodo.org/records/1188976/files/Audio_Speech_Actors_01-24.zip",),
        size=208_468_073,
        md5="bc696df654c87fed845eb13823edef8a",
        sha256="5d208e01632cc3e5242106fa2af3273e6dc5239fb8143131979ac74c4aa40657",
    ),
)
# Test actors of the five folds of Luna-Jimenez et al. (2021), doi:10.3390/s21227665.
FOLDS = tuple(
    frozenset(f"{actor:02d}" for actor in fold)
    for fold in (
        (2, 5, 14, 15, 16),
        (3, 6, 7, 13, 18),
        (10, 11, 12, 19, 20),
        (8, 17, 21, 23, 24),
        (1, 4, 9, 22),
    )
)

_NAME = re.compile(r"(0[1-3])-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-(0[1-9]|1\d|2[0-4])")
_ACTOR_FOLDER = re.compile(r"Actor_(\d\d)", re.IGNORECASE)


@dataclass(frozen=True)
class RavdessName:
    """What a file name says.

    Attributes:
        modality: "audio-video", "video" or "audio".
        channel: "speech" or "song".
        emotion: one of :data:`~samo_audio.datasets.emotions.EMOTIONS`.
        intensity: "normal" or "strong".
        statement: "kids" (are talking by the door) or "dogs" (are sitting by the door).
        repetition: "1" or "2".
        actor: "01" to "24".
    """

    modality: str
    channel: str
    emotion: str
    intensity: str
    statement: str
    repetition: str
    actor: str

    @property
    def gender(self) -> str:
        """Odd actors are male, even ones female."""
        return "male" if int(self.actor) % 2 else "female"

    @property
    def is_speech(self) -> bool:
        """Whether this is an audio-only speech clip."""
        return self.modality == "audio" and self.channel == "speech"


def parse_name(stem: str) -> RavdessName | None:
    """Read a file name without its suffix; None when it is no RAVDESS name."""
    match = _NAME.fullmatch(stem)
    if match is None:
        return None
    modality, channel, emotion, intensity, statement, repetition, actor = match.groups()
    return RavdessName(
        modality=("audio-video", "video", "audio")[int(modality) - 1],
        channel=("speech", "song")[int(channel) - 1],
        emotion=EMOTIONS[int(emotion) - 1],
        intensity=("normal", "strong")[int(intensity) - 1],
        statement=("kids", "dogs")[int(statement) - 1],
        repetition=str(int(repetition)),
        actor=actor,
    )


def index(root: Path, settings: DataSettings) -> Manifest:
    """List the speech clips below ``root``, each once, however deep the actors' folders lie.

    Raises:
        DataError: no folder, no clips, no RAVDESS names, or a wrong name among good ones.
    """
    return index_as(root, settings.mode, dataset=NAME)


def index_as(
    root: Path, mode: str, *, dataset: str, synthetic: bool = SYNTHETIC, folds: tuple[frozenset[str], ...] = FOLDS
) -> Manifest:
    """:func:`index` for any corpus with RAVDESS's names; the demo corpus has them too."""
    from samo.data.manifest import Manifest
    from samo.tasks import LabelSpace, Task

    names, others = _speech_names(root, dataset)
    task = Task("emotion", EMOTIONS) if mode == "emotion" else Task("sentiment", SENTIMENTS)
    return Manifest(
        dataset=dataset,
        label_space=LabelSpace((task,)),
        items=tuple(sorted((_item(path, name, task) for path, name in names.items()), key=lambda item: item.id)),
        root=root.absolute(),
        synthetic=synthetic,
        folds=folds,
        notes=left_out(others, root),
    )


def _speech_names(root: Path, dataset: str) -> tuple[dict[str, RavdessName], list[str]]:
    """Parsed name by relative path of every speech clip, second copies left out; and recordings of other formats."""
    from samo_audio.audio_io import is_recording

    require_folder(root, dataset)
    found = clips_below(root, is_recording)
    paths = [path for path in found if PurePosixPath(path).suffix.lower() in (".wav", ".flac")]
    others = [path for path in found if PurePosixPath(path).suffix.lower() not in (".wav", ".flac")]
    if not paths:
        only = f", only {first_ten(others)}" if others else ""
        raise DataError(
            f"no .wav or .flac file lies below {root}{only}",
            hint="convert them: ffmpeg -i in.m4a out.wav" if others else "check `data_root`",
        )
    names = {path: parse_name(PurePosixPath(path).stem) for path in paths}
    parsed = {path: name for path, name in names.items() if name is not None}
    if not parsed:
        raise DataError(
            f"none of the {len(paths)} clips below {root} has a RAVDESS name like 03-01-05-02-01-01-12.wav",
            hint="use `dataset=folder` if each class has its own folder, `dataset=table` if a CSV lists the clips",
        )
    wrong = [path for path, name in names.items() if name is None or _misfiled(path, name)]
    if wrong:
        raise DataError(
            f"{len(wrong)} of {len(paths)} clips below {root} have no RAVDESS name, or lie in another actor's "
            f"folder: {first_ten(wrong)}",
            hint="move them away, or use `dataset=table` to list the clips by hand",
        )
    speech = {path: name for path, name in parsed.items() if name.is_speech}
    if not speech:
        raise DataError(f"{root} holds no speech clips (03-01-...), only song or video", hint=f"see {HOMEPAGE}")
    if len(speech) < len(parsed):
        rest = [path for path in parsed if path not in speech]
        logging.getLogger(__name__).warning(
            "left out %d song or video clips below %s: %s", len(rest), root, first_ten(rest)
        )
    return _first_copies(speech), others


def _misfiled(path: str, name: RavdessName) -> bool:
    """Whether the folder names another actor: a speaker label that would leak between splits."""
    folder = _ACTOR_FOLDER.fullmatch(PurePosixPath(path).parent.name)
    return folder is not None and folder[1] != name.actor


def _first_copies(names: dict[str, RavdessName]) -> dict[str, RavdessName]:
    """One path a clip: the official zip unpacks to a second, nested copy of the whole set."""
    chosen: dict[str, str] = {}
    for path in sorted(names, key=lambda path: (path.count("/"), path)):
        chosen.setdefault(PurePosixPath(path).stem, path)
    return {path: names[path] for path in chosen.values()}


def _item(path: str, name: RavdessName, task: Task) -> Item:
    from samo.data.manifest import Item

    label = name.emotion if task.name == "emotion" else EMOTION_TO_SENTIMENT[name.emotion]
    return Item(
        id=PurePosixPath(path).stem,
        source=path,
        labels={task.name: (label,)},
        group=name.actor,
        meta={
            "gender": name.gender,
            "intensity": name.intensity,
            "statement": name.statement,
            "repetition": name.repetition,
        },
    )
