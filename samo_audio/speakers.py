"""What a run normalised by speaker knows of its speakers, and what it needs of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from samo.data.manifest import Manifest
from samo.encoders.states import States
from samo.errors import SettingsError, first_ten
from samo_audio.config import AudioConfig

__all__ = ["ONE_BY_ONE", "ONE_BY_ONE_HINT", "SPEAKER_CLIPS", "SpeakerCentres", "by_speaker", "rows_by_speaker"]

# Fewer clips say more of what was said, and how, than of who speaks.
SPEAKER_CLIPS = 8
ONE_BY_ONE = "a run with `normalisation=speaker` needs several clips of every speaker, and here clips come one by one"
ONE_BY_ONE_HINT = (
    "`samo evaluate` judges it on a corpus that names its speakers; `normalisation=train` answers any clip"
)


def by_speaker(config: AudioConfig) -> bool:
    """Whether each clip comes with, or is centred by, the statistics of its speaker's clips."""
    return config.features.normalisation == "speaker"


def rows_by_speaker(manifest: Manifest) -> list[np.ndarray]:
    """Rows of each speaker's clips.

    Raises:
        SettingsError: the speaker of a clip is not known, or has few clips.
    """
    groups = np.array([item.group for item in manifest.items])
    names, counts = np.unique(groups, return_counts=True)
    if "" in names or manifest.group_noun != "speaker":
        raise SettingsError("`normalisation=speaker` needs to know the speaker of every clip")
    few = [f"{name} ({n})" for name, n in zip(names, counts, strict=True) if n < SPEAKER_CLIPS]
    if few:
        raise SettingsError(
            f"`normalisation=speaker` needs {SPEAKER_CLIPS} clips of every speaker; fewer have: {first_ten(few)}"
        )
    return [np.flatnonzero(groups == name) for name in names]


class SpeakerCentres:
    """The mean of what is kept of a speaker's windows, by copy and row."""

    def __init__(self, kept: Sequence[States], owners: np.ndarray, rows_by_speaker: Sequence[np.ndarray]) -> None:
        """``owners`` are the (M,) rows of all windows."""
        self._speaker = np.zeros(int(owners.max()) + 1, dtype=np.int64)
        for speaker, rows in enumerate(rows_by_speaker):
            self._speaker[rows] = speaker
        places = [np.flatnonzero(np.isin(owners, rows)) for rows in rows_by_speaker]
        self._means = torch.stack(
            [torch.stack([_mean(states, some) for some in places]) for states in kept],
        )

    def __getitem__(self, of: tuple[np.ndarray, np.ndarray]) -> Tensor:
        """(B, 3, L, H) for the copies and rows of a batch."""
        copies, rows = of
        return self._means[torch.from_numpy(copies), torch.from_numpy(self._speaker[rows])]


def _mean(states: States, places: np.ndarray) -> Tensor:
    total = sum(states.row(place).astype(np.float64) for place in places)
    return torch.from_numpy(np.asarray(total / len(places), dtype=np.float32))
