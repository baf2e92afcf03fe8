"""What a frozen encoder makes of all windows, kept so that a training hears each of them once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from samo.data.batch import Batch
from samo.encoders.states import States, collate_states, encoder_states, size_of_states
from samo.errors import SettingsError
from samo.frontend import Notify
from samo_audio.augment import copy_speeds
from samo_audio.config import AudioConfig
from samo_audio.models.encoder import SpeechModel
from samo_audio.speakers import SpeakerCentres, by_speaker
from samo_audio.views import View, views_of
from samo_audio.windows import Windows, window_settings

__all__ = ["KeptStates"]

# More would not be faster, and take more memory than caches hold.
_WINDOWS_AT_ONCE = 16


@dataclass(frozen=True)
class _Heard:
    """How an encoder heard windows.

    Attributes:
        speed: factor on it.
        view: as evaluation hears them, which cuts a window out of its clip before it changes its speed.
    """

    speed: float = 1.0
    view: View | None = None


_PLAIN = _Heard()


class KeptStates:
    """The states of all windows under one frozen encoder, in all their views, and of those to learn from at other
    speeds too.

    Attributes:
        copied: (M,) whether a window is kept at other speeds; empty where none is.
    """

    def __init__(
        self,
        config: AudioConfig,
        windows: Windows,
        batch_of: Callable[[np.ndarray, float], Batch],
        view_of: Callable[[np.ndarray, View], Batch],
        clips_by_speaker: Callable[[], Sequence[np.ndarray]],
        notify: Notify | None = None,
    ) -> None:
        """Nothing is made yet.

        Args:
            config: settings of the run.
            windows: of the corpus.
            batch_of: waveforms of windows by their places, at a speed.
            view_of: waveforms of windows by their places, as a view hears them in evaluation.
            clips_by_speaker: rows of each speaker's clips, asked for with ``normalisation=speaker`` only.
            notify: is given lines for people.
        """
        self._config = config
        self._windows = windows
        self._batch_of, self._view_of = batch_of, view_of
        self._clips_by_speaker = clips_by_speaker
        self._notify = notify
        self._plain: States | None = None
        self._copies: list[States] = []
        self._views: list[States] = []
        self.copied = np.zeros(0, dtype=bool)

    @property
    def are_there(self) -> bool:
        """Whether there are states of all windows; without, the encoder hears them anew each time."""
        return self._plain is not None

    @property
    def n_copies(self) -> int:
        """How many other speeds there are states of."""
        return len(self._copies)

    def make(self, model: SpeechModel, learned: Callable[[], np.ndarray]) -> None:
        """Make what is not kept from before, at all speeds or at none, where the disk has no room for all.

        Args:
            model: the frozen encoder.
            learned: gives the rows to learn from, which alone are heard at other speeds.

        Raises:
            SettingsError: ``normalisation=speaker``, and there is no room.
        """
        kinds = [_PLAIN, *map(_Heard, self._copy_speeds), *self._view_kinds]
        sizes = {each: size_of_states(model, self._lengths(model, each)) for each in kinds}
        self._plain = self._states_of(model, _PLAIN, sizes=sizes)  # all are kept, or none: then all is heard anew
        if self._plain is not None and self._copy_speeds:
            self.copied = self._heard_at_other_speeds(learned())
            places = np.flatnonzero(self.copied)
            self._copies = self._each_of(model, map(_Heard, self._copy_speeds), places, sizes)
        if self._plain is not None:
            self._views = self._each_of(model, self._view_kinds, np.arange(len(self._windows.rows)), sizes)
        self._require()

    def read(self, model: SpeechModel) -> None:
        """Take the states of all clips under a run's encoder where they are kept, in every view; without those of all
        its clips a speaker's mean is not known, so that with ``normalisation=speaker`` they are made.

        Raises:
            SettingsError: ``normalisation=speaker``, and there is no room.
        """
        sizes = {each: size_of_states(model, self._lengths(model, each)) for each in (_PLAIN, *self._view_kinds)}
        self._plain = self._states_of(model, _PLAIN, compute=by_speaker(self._config), sizes=sizes)
        if self._plain is not None:
            self._views = self._each_of(model, self._view_kinds, np.arange(len(self._windows.rows)), sizes)
        self._require()

    @property
    def views(self) -> tuple[int, ...]:
        """Which of the ``copies`` of :meth:`inputs` evaluation averages over, the window as it is first."""
        return (0, *range(1 + len(self._copies), 1 + len(self._copies) + len(self._views)))

    def inputs(self, places: np.ndarray, copies: np.ndarray | None = None) -> tuple[Tensor, Tensor]:
        """States of windows and their lengths, as they are or (``copies``) at the k-th other speed, or in a view."""
        assert self._plain is not None
        kept = [self._plain, *self._copies, *self._views]
        which = np.zeros(len(places), dtype=np.int64) if copies is None else copies
        inputs, lengths = collate_states([kept[copy].row(place) for place, copy in zip(places, which, strict=True)])
        if by_speaker(self._config):
            inputs = inputs - self._speaker_centres[which, self._windows.rows[places]]
        return inputs, lengths

    @cached_property
    def _speaker_centres(self) -> SpeakerCentres:
        assert self._plain is not None
        return SpeakerCentres([self._plain, *self._copies], self._windows.rows, self._clips_by_speaker())

    def _heard_at_other_speeds(self, learned: np.ndarray) -> np.ndarray:
        """(M,) whether a window is of a row to learn from; with ``normalisation=speaker`` of such a row's speaker."""
        if by_speaker(self._config):
            learned = np.concatenate([rows for rows in self._clips_by_speaker() if np.isin(rows, learned).any()])
        return self._windows.of_any(learned)

    def _require(self) -> None:
        if self._plain is None and by_speaker(self._config):
            raise SettingsError(
                "`normalisation=speaker`: the encoder's states of all clips would fill the disk",
                hint="`pooling=mean-sd` without `state_mask` takes least, each of `speed_steps` twice as much again",
            )

    @property
    def _copy_speeds(self) -> tuple[float, ...]:
        return tuple(copy_speeds(self._config.augment))

    @property
    def _view_kinds(self) -> list[_Heard]:
        """The views of evaluation besides the window as it is."""
        as_copies = self._windows.end_within
        views = views_of(self._config.features)[1:]
        return [_Heard(view[0]) if as_copies and not view[1] else _Heard(view[0], view) for view in views]

    def _each_of(
        self, model: SpeechModel, kinds: Iterable[_Heard], places: np.ndarray, sizes: Mapping[_Heard, int]
    ) -> list[States]:
        """States of windows in all these ways; none where there is no room."""
        each = [self._states_of(model, kind, sizes=sizes, places=places) for kind in kinds]
        return [states for states in each if states is not None]

    def _sizes_by_setting(self, sizes: Mapping[_Heard, int]) -> dict[tuple[str, ...], int]:
        """Bytes that are there for settings, by those without all of which they would not be."""
        copies = set(map(_Heard, self._copy_speeds))
        views = dict(zip(self._view_kinds, views_of(self._config.features)[1:], strict=True))
        found: dict[tuple[str, ...], int] = {}
        for kind, size in sizes.items():
            names: tuple[str, ...] = ("`speed_steps`",) if kind in copies else ()
            names += (("`tta_shift`" if views[kind][1] else "`tta_speed`"),) if kind in views else ()
            if names:
                found[names] = found.get(names, 0) + size
        return found

    def _lengths(self, model: SpeechModel, heard: _Heard) -> np.ndarray:
        """(M,) states of all windows."""
        windows = self._windows
        lengths = windows.lengths(heard.speed) if heard.view is None else windows.view_lengths(heard.view)
        return model.state_lengths(torch.from_numpy(lengths)).numpy()

    def _states_of(
        self,
        model: SpeechModel,
        heard: _Heard,
        *,
        sizes: Mapping[_Heard, int],
        compute: bool = True,
        places: np.ndarray | None = None,
    ) -> States | None:
        """States of all windows, or of those at some places, kept together with all of these ``sizes``; see
        :func:`encoder_states`."""
        features, speed, view = self._config.features, heard.speed, heard.view
        made_by = {**window_settings(features), "level": features.level, "extractor": model.body.facts}
        made_by |= {"view": view} if view else {} if speed == 1.0 else {"speed": speed}

        def announce(n_windows: int) -> None:
            if self._notify:
                played = "" if speed == 1.0 else f" at {speed:.3g} times their speed"
                played = f" moved by {view[1] / features.sr:g} s" if view and view[1] else played
                self._notify(f"the encoder hears {n_windows:,} windows once{played}; what it makes of them is kept")

        return encoder_states(
            model,
            lengths=self._lengths(model, heard),
            batch_of=lambda places: self._view_of(places, view) if view else self._batch_of(places, speed),
            digest=json.dumps(made_by, sort_keys=True),
            contents=(content.encode() for content in self._windows.contents()),
            batch_size=_WINDOWS_AT_ONCE,
            compute=compute,
            on_compute=announce,
            rows=places,
            beside=sum(sizes.values()) - sizes[heard],
            beside_for=self._sizes_by_setting(sizes),
            notify=self._notify,
        )
