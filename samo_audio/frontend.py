"""Joins corpora, waveforms, features and networks to the shared trainer."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from samo.data.batch import Batch, Draws, draw_mix
from samo.data.manifest import Item, Manifest
from samo.data.splits import PARTS, SplitRequest, make_split
from samo.encoders.hub import remembered
from samo.encoders.model import fit_frozen
from samo.encoders.model import held_out_logits as held_out_by_encoder
from samo.frontend import Notify, Progress
from samo.settings import SPLIT_SETTINGS, Config
from samo.tasks import LabelSpace
from samo_audio.audio_model import AudioModel, load_weights
from samo_audio.augment import (
    copy_speeds,
    noise_notes,
    read_noise,
    speed_factors,
)
from samo_audio.baseline import BASELINE, SHORTCUT, simple_logits
from samo_audio.batches import collate
from samo_audio.config import AudioConfig, DataSettings
from samo_audio.datasets import DATASETS, index_corpus, locate, resolve_root
from samo_audio.features import band_statistics
from samo_audio.fingerprint import fingerprints
from samo_audio.functionals import EGEMAPS_LICENCE
from samo_audio.kept_states import KeptStates
from samo_audio.models import build_whole, require_usable
from samo_audio.models.encoder import SpeechModel
from samo_audio.models.functionals import FunctionalsModel, features_of, fit_functionals, held_out_logits
from samo_audio.models.pretrained import save_sizes
from samo_audio.models.whole_clips import WholeClips
from samo_audio.several_readings import Part, SeveralReadings
from samo_audio.speakers import by_speaker, rows_by_speaker
from samo_audio.views import View, change_speed, views_of
from samo_audio.waveforms import Waveforms, open_waveforms
from samo_audio.windows import Windows, window_settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["AudioFrontend"]

# Kept states that are read at once.
_ROWS_AT_ONCE = 64
# Clips whose functionals are computed at once.
FUNCTIONALS_BATCH = 32


class AudioFrontend:
    """Clips of a corpus as batches of waveforms; see :class:`samo.frontend.Frontend`."""

    modality: ClassVar[str] = "audio"
    unit: str = "speaker"
    item: ClassVar[str] = "clip"
    preparing: ClassVar[str] = "decoding"
    config_type: ClassVar[type[Config]] = AudioConfig

    def __init__(
        self,
        config: AudioConfig,
        manifest: Manifest,
        waveforms: Waveforms,
        notify: Notify | None = None,
        several: SeveralReadings | None = None,
    ) -> None:
        """``several``: how the members of an ensemble read the clips, where that is not one way."""
        self._config = config
        self._several = several
        self._notify = notify
        self.manifest = manifest
        self.waveforms = waveforms
        self.window = config.features.window
        if manifest.group_noun != "speaker":
            self.unit = manifest.group_noun
        self._kept: KeptStates | None = None
        self._frozen: SpeechModel | None = None

    @property
    def config(self) -> AudioConfig:
        """The settings with the data's place filled in."""
        return self._config

    @property
    def sr(self) -> int:
        """The rate in Hz at which clips are read, the highest where members of an ensemble read them differently."""
        return self._several.sr if self._several else self._config.features.sr

    @classmethod
    def located(cls, config: Config) -> AudioConfig:
        """The settings as :meth:`open` has them, all but where the demo corpus lies; nothing is opened or made.

        Raises:
            SettingsError: an unknown corpus, or one that needs ``data_root``.
            DataError: the root does not exist.
        """
        config = cast(AudioConfig, config)
        return _with_places(config, locate(config.data)[0])

    @classmethod
    def open(
        cls,
        config: Config,
        notify: Notify,
        progress: Progress | None = None,
        assets: Path | None = None,
        *,
        left_out: Collection[str] = (),
    ) -> Self:
        """Index the corpus and decode its clips once, whatever a run keeps in its assets.

        Args:
            config: its settings.
            notify: is given lines for people.
            progress: called with (clips decoded, clips in all).
            assets: of a run; None: of none.
            left_out: ids of clips to go without, for whom only wants to look at the rest.

        Raises:
            SettingsError: an unknown model, or features too small for it.
            DataError: no usable clips.
        """
        config = cast(AudioConfig, config)
        require_usable(config.model, config.features)
        if config.model.functional_set == "egemaps":
            notify(EGEMAPS_LICENCE)
        data, line = resolve_root(config.data, on_progress=progress)
        if line:
            notify(line)
        config = _with_places(config, data)
        manifest = index_corpus(data)
        for note in manifest.notes:
            notify(note)
        if left_out:
            manifest = replace(manifest, items=tuple(item for item in manifest.items if item.id not in left_out))
        waveforms = _decoded(manifest, config.features.sr, progress)
        manifest = replace(
            manifest.with_content(waveforms.content),
            fingerprints=fingerprints(waveforms),
            near_copies=data.near_copies,
        )
        if config.features.trim_db:
            waveforms = waveforms.trimmed(config.features.trim_db)
        return cls(config, manifest, waveforms, notify, SeveralReadings.load(assets))

    def with_config(self, config: Config) -> Self:
        """The same clips under other settings; they are opened again for another rate, other trimming or other data.

        Raises:
            SettingsError: an unknown model, or features too small for it.
        """
        config = cast(AudioConfig, config)
        own = self._config
        if _what_is_read(config) != _what_is_read(own):
            return self.open(config, lambda line: None)
        require_usable(config.model, config.features)
        return type(self)(config, self.manifest, self.waveforms, self._notify, self._several)

    def with_manifest(self, manifest: Manifest) -> Self:
        """The same items under other labels."""
        return type(self)(self._config, manifest, self.waveforms, self._notify, self._several)

    @staticmethod
    def build_model(config: Config, space: LabelSpace, assets: Path | None = None) -> nn.Module:
        """A model without data, for a run's weights to be loaded into."""
        config = cast(AudioConfig, config)
        plain = config.model.model_copy(update={"pretrained": False, "weights": ""})
        quiet = config.augment.model_copy(update={"noise": False})
        config = config.model_copy(update={"model": plain, "augment": quiet})
        whole = build_whole(config, space, assets)
        return AudioModel(config, space) if whole is None else whole

    @staticmethod
    def batch_settings(config: Config, assets: Path | None = None) -> dict[str, Any]:
        """Sampling rate, trimming, window and how often it is heard, as log-mel features are made inside the model;
        what speakers' statistics are of, where they come with the clips."""
        config = cast(AudioConfig, config)
        features = config.features
        again = {"tta_speed": features.tta_speed, "tta_shift": features.tta_shift}
        speakers = hashlib.sha256(repr(features).encode()).hexdigest()[:12] if by_speaker(config) else ""
        return {**window_settings(features), **again, "speaker_statistics": speakers}

    @staticmethod
    def packs(config: Config) -> bool:
        """Whether a clip is all that a model reads of it: speakers' statistics come with batches of its own."""
        return not by_speaker(cast(AudioConfig, config))

    @staticmethod
    def reader(model: nn.Module, config: Config) -> nn.Module:
        """The mean of a model's logits over the windows and views of a clip."""
        return WholeClips(model, cast(AudioConfig, config).features)

    def shared_by(self, members: Sequence[tuple[Config, Path]]) -> tuple[Self, tuple[int, ...]]:
        """The same clips as each of several models reads them: at its rate and trimmed its way, all windows at once."""
        given = [self.batch_settings(config, assets) for config, assets in members]
        found = [settings for place, settings in enumerate(given) if settings not in given[:place]]
        if len(found) == 1:
            return self, (0,) * len(members)
        parts = tuple(Part(sr=settings["sr"], trim_db=settings["trim_db"]) for settings in found)
        several = SeveralReadings(parts, max(settings["duration"] for settings in found))
        shared = type(self)(self._config, self.manifest, self.waveforms, self._notify, several)
        return shared, tuple(found.index(settings) for settings in given)

    def new_model(self) -> nn.Module:
        """A model to train: pretrained or given weights in, noise recordings loaded."""
        augment = self._config.augment
        for line in noise_notes(Path(augment.noise_root)) if augment.noise and augment.noise_root else ():
            if self._notify:
                self._notify(line)
        whole = build_whole(self._config, self.manifest.label_space)
        self._kept, self._frozen = None, None
        if isinstance(whole, SpeechModel):
            self._frozen = whole if self._config.model.freeze_encoder else None
            note = whole.body.unfreezing_note(self._config.train.epochs)
            if note and self._notify:
                self._notify(note)
        if whole is not None:
            return whole
        noise = None
        if self._config.augment.noise and self._config.augment.noise_root:
            noise = read_noise(Path(self._config.augment.noise_root), self._config.features.sr)
        settings = self._config.model
        if settings.weights:  # of which every tensor below the head is taken: others would be downloaded for nothing
            settings = settings.model_copy(update={"pretrained": False})
        config = self._config.model_copy(update={"model": settings})
        model = AudioModel(config, self.manifest.label_space, noise)
        if settings.weights:
            load_weights(Path(settings.weights), model)
        return model

    def split_request(self) -> SplitRequest:
        """The split asked for; ``auto``: the table's own where all clips have one, else by speaker."""
        data = self._config.data
        own = all(item.split in PARTS for item in self.manifest.items)
        rule = ("table" if own else "speaker") if data.split == "auto" else data.split
        seed = data.split_seed_or(self._config.train.seed)
        return SplitRequest(
            rule, data.train_ratio, data.val_ratio, data.fold, seed, data.limit_fraction, num_folds=data.num_folds
        )

    @property
    def mixup_alpha(self) -> float:
        """Beta parameter of mixup, 0 = off."""
        return self._config.augment.mixup_alpha

    def augment(self, train_rows: np.ndarray, device: torch.device) -> tuple[Item, ...]:
        """None: clips are augmented anew in every epoch, inside the model."""
        return ()

    def with_extra(self, items: Sequence[Item]) -> Self:
        """The same clips: no others are ever made."""
        return self

    def fit(self, train_rows: np.ndarray) -> dict[str, Tensor]:
        """Mean and sd per mel band over the training split; all of ``functionals``; what a frozen encoder needs."""
        if self._config.model.model == BASELINE:
            model = FunctionalsModel(self._config, self.manifest.label_space)
            features, rows = features_of(model, self.eval_batches(train_rows, FUNCTIONALS_BATCH))
            return fit_functionals(features, rows, self.manifest, train_rows)
        if self._frozen is not None:
            batches, n_plain, several = self._learned_from(train_rows)
            given = (self._frozen, batches, self.manifest, self._config.train.seed, n_plain)
            return fit_frozen(*given, hears_copies=several, notify=self._notify)
        if by_speaker(self._config):
            _ = self._speaker_statistics  # refuses before the first step
        if self._config.features.normalisation != "train":
            return {}
        once = self._config.features.model_copy(update={"tta_speed": 0.0, "tta_shift": 0.0})
        plain = self.with_config(self._config.model_copy(update={"features": once}))
        mean, sd = band_statistics(once, plain.eval_batches(train_rows, 64))
        return {"features.mean": mean, "features.sd": sd}

    def save_assets(self, folder: Path) -> None:
        """An encoder's sizes and what its feature extractor does, and how members of an ensemble read clips.

        Other models need settings and weights alone.
        """
        if self._config.model.model == "encoder":
            save_sizes(self._config.model.encoder, folder)
        if self._several:
            self._several.save(folder)

    def input_facts(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """(N,) ``level_dbfs`` and ``duration_s`` of clips as they were recorded, before anything is cut off."""
        kept = self.waveforms
        return {
            "level_dbfs": np.array([kept.facts[row].rms_db for row in rows]),
            "duration_s": kept.recorded[rows] / kept.sr,
        }

    def sizes(self, rows: np.ndarray) -> np.ndarray | None:
        """None: every clip is seen through windows of one length."""
        return None

    def train_batch(self, rows: np.ndarray, draws: Draws) -> Batch:
        """A random window of each clip, shorter clips padded behind; or a frozen encoder's states of one of them."""
        if kept := self._kept_states():
            places = self._windows.first[rows] + draws.integers("crop", self._windows.counts[rows])
            copies = None
            if kept.n_copies:
                copies = draws.integers("speed", np.full(len(rows), 1 + kept.n_copies))
                copies = np.where(kept.copied[places], copies, 0)
            return self._batch_of_states(kept, places, draws, copies)
        lengths = self.waveforms.lengths[rows]
        factors = speed_factors(self._config.augment, draws)
        wanted = np.floor(self.window * (np.ones(len(rows)) if factors is None else factors)).astype(np.int64)
        starts = draws.integers("crop", np.maximum(lengths - wanted, 0) + 1)
        chunks = [
            self.waveforms.waveform(row)[start : start + n] for row, start, n in zip(rows, starts, wanted, strict=True)
        ]
        if factors is not None:
            chunks = [change_speed(chunk, factor) for chunk, factor in zip(chunks, factors, strict=True)]
        return self._with_speakers(collate(chunks, self.manifest.targets[rows], rows, self.window, draws))

    def eval_batches(self, rows: np.ndarray, batch_size: int) -> Iterator[Batch]:
        """Evenly spaced windows of every clip, each in all its views, in batches that may cut through a clip's.

        Of models that read clips differently, whole clips; see :class:`~samo_audio.several_readings.SeveralReadings`.
        """
        if self._several:
            yield from self._packed(self._several, rows, batch_size)
            return
        flat, views, kept = self._windows.of(rows), views_of(self._config.features), self._kept_states()
        places, which = np.repeat(flat, len(views)), np.tile(np.arange(len(views)), len(flat))
        for start in range(0, len(places), batch_size):
            some = slice(start, start + batch_size)
            if kept:
                yield self._batch_of_states(kept, places[some], copies=np.array(kept.views)[which[some]])
            elif len(views) == 1:
                yield self._with_speakers(self._batch_of(places[some]))
            else:
                yield self._batch_of_views(places[some], [views[view] for view in which[some]])

    def _packed(self, several: SeveralReadings, rows: np.ndarray, batch_size: int) -> Iterator[Batch]:
        """Every piece of every clip as one row of all parts."""
        pieces = ((row, several.row(piece)) for row in rows for _, piece in several.pieces(self._at_rates(row)))
        while some := list(islice(pieces, batch_size)):
            places = np.array([row for row, _ in some])
            yield collate([samples for _, samples in some], self.manifest.targets[places], places, 0)

    def _at_rates(self, row: int) -> dict[int, np.ndarray]:
        """(T,) samples of a clip by rate, as they were recorded."""
        return {rate: waveforms.waveform(row) for rate, waveforms in self._by_rate.items()}

    @cached_property
    def _by_rate(self) -> dict[int, Waveforms]:
        """The clips at every rate at which members of an ensemble read them, not trimmed."""
        return {rate: _decoded(self.manifest, rate) for rate in self._several.rates} if self._several else {}

    def _batch_of_views(self, places: np.ndarray, views: Sequence[View]) -> Batch:
        """Waveforms of windows by their place among all, each in its view."""
        rows = self._windows.rows[places]
        chunks = self._windows.views(places, views)
        return self._with_speakers(collate(chunks, self.manifest.targets[rows], rows, self.window))

    def _learned_from(self, rows: np.ndarray) -> tuple[Iterator[Batch], int, bool]:
        """What a head is fitted on, how many windows of it are heard as they are, and whether a clip is answered by
        several."""
        counts = self._windows.counts[rows]
        several = len(views_of(self._config.features)) > 1 or bool((counts > 1).any())
        return self._learning_batches(rows), int(counts.sum()), several

    def _learning_batches(self, rows: np.ndarray) -> Iterator[Batch]:
        """What a frozen encoder makes of every clip: first as it is, then at each speed of its copies."""
        kept = self._kept_states(rows)
        flat = self._windows.of(rows)
        for copy, speed in enumerate((1.0, *copy_speeds(self._config.augment))):
            if copy == 1 and kept and kept.n_copies:
                flat = flat[kept.copied[flat]]
            for start in range(0, len(flat), _ROWS_AT_ONCE):
                places = flat[start : start + _ROWS_AT_ONCE]
                if kept:
                    yield self._batch_of_states(kept, places, copies=np.full(len(places), copy))
                else:
                    yield self._batch_of(places, speed)

    @cached_property
    def _windows(self) -> Windows:
        return Windows(self.waveforms, self.window)

    def _batch_of(self, places: np.ndarray, speed: float = 1.0) -> Batch:
        """Waveforms of windows by their place among all, played ``speed`` times as fast."""
        rows = self._windows.rows[places]
        return collate(self._windows.chunks(places, speed), self.manifest.targets[rows], rows, self.window)

    def _with_speakers(self, batch: Batch) -> Batch:
        """With ``normalisation=speaker``, the statistics of each row's speaker behind its waveform."""
        # What is kept of a frozen encoder is centred instead.
        if not by_speaker(self._config) or self._config.model.model == "encoder":
            return batch
        return replace(batch, inputs=torch.cat([batch.inputs, self._speaker_statistics[batch.rows]], dim=1))

    @cached_property
    def _speaker_statistics(self) -> Tensor:
        """(N, 2 * n_mels) mean and sd per band over all clips of each clip's speaker, whatever their labels.

        Raises:
            SettingsError: the speaker of a clip is not known, or has few clips.
        """
        found = torch.zeros(len(self.manifest.items), 2 * self._config.features.n_mels)
        for rows in self._rows_by_speaker:
            places = np.flatnonzero(self._windows.of_any(rows))
            batches = (self._batch_of(places[start : start + 64]) for start in range(0, len(places), 64))
            found[rows] = torch.cat(band_statistics(self._config.features, batches))
        return found

    @cached_property
    def _rows_by_speaker(self) -> list[np.ndarray]:
        return rows_by_speaker(self.manifest)

    def sample_figures(self, model: nn.Module, draws: Draws) -> dict[str, Figure]:
        """The clips' spectrograms before and after augmentation; nothing without augmentation, or where a pretrained
        network makes its own features."""
        settings = self._config.augment
        changes = (settings.use_specaug, settings.noise, settings.time_shift, settings.gain, settings.freq_warp,
                   settings.speed, settings.mixup_alpha)  # fmt: skip
        if not any(changes) or not isinstance(model, AudioModel):
            return {}
        from samo_audio.sample_pictures import augmentation_figure

        was_training, rows, device = model.training, draws.rows, next(model.parameters()).device
        heads = [self.waveforms.waveform(row)[: self.window] for row in rows]
        plain = self._with_speakers(collate(heads, self.manifest.targets[rows], rows, self.window)).to(device)
        batch = self.train_batch(rows, draws).to(device)
        with torch.no_grad():
            before = model.eval().spectrograms(plain.inputs, plain.lengths)
            mix = draw_mix(draws, settings.mixup_alpha)
            after = model.train().spectrograms(batch.inputs, batch.lengths, draws, mix)
        model.train(was_training)
        seconds = self._config.features.duration
        return {
            "augmented": augmentation_figure(self.manifest, rows, before.cpu().numpy(), after.cpu().numpy(), seconds)
        }

    def _batch_of_states(
        self, kept: KeptStates, places: np.ndarray, draws: Draws | None = None, copies: np.ndarray | None = None
    ) -> Batch:
        """What is kept of windows by their place among all, as they are or (``copies``) at the k-th other speed."""
        inputs, lengths = kept.inputs(places, copies)
        rows = self._windows.rows[places]
        return Batch(inputs, lengths, torch.from_numpy(self.manifest.targets[rows]), rows, draws)

    def _kept_states(self, learned: np.ndarray | None = None) -> KeptStates | None:
        """What batches hold in place of waveforms; those of a frozen encoder are made when the first batch is asked
        for.

        ``learned`` are the rows to learn from, which alone are heard at other speeds; None: by the split.
        """
        if self._frozen is not None:
            # Only now: a resumed run's encoder is that of its checkpoint, whatever lies in the folder today.
            frozen, self._frozen = self._frozen, None
            self._kept = self._no_states_yet()
            self._kept.make(frozen, lambda: self._split_rows_to_learn() if learned is None else learned)
        return self._kept if self._kept and self._kept.are_there else None

    def _split_rows_to_learn(self) -> np.ndarray:
        return self.manifest.rows(make_split(self.manifest, self.split_request()).train)

    def use_kept_states(self, model: nn.Module) -> None:
        """Where states of all clips under a run's frozen encoder are kept, they are what batches hold from here on."""
        if self._config.model.freeze_encoder and isinstance(model, SpeechModel):
            self._kept, self._frozen = self._no_states_yet(), None
            self._kept.read(model)

    def _no_states_yet(self) -> KeptStates:
        def view_of(places: np.ndarray, view: View) -> Batch:
            return self._batch_of_views(places, [view] * len(places))

        given = self._config, self._windows, self._batch_of, view_of
        return KeptStates(*given, lambda: self._rows_by_speaker, self._notify)

    def out_of_fold(self, train_rows: np.ndarray) -> np.ndarray | None:
        """(N, C) logits of clips by a model that takes no steps, fitted without their speakers; None for others."""
        if self._config.model.takes_no_steps:
            encoder = self.new_model()
            if not isinstance(encoder, SpeechModel):
                return None  # a network of one's own
            batches, n_plain, several = self._learned_from(train_rows)
            has_views = len(views_of(self._config.features)) > 1
            return held_out_by_encoder(
                encoder,
                batches,
                self.manifest,
                train_rows,
                self._config.train.seed,
                n_plain,
                hears_copies=several,
                evaluated=self.eval_batches(train_rows, _ROWS_AT_ONCE) if has_views else None,
            )
        if self._config.model.model != BASELINE:
            return None
        model = FunctionalsModel(self._config, self.manifest.label_space)
        features, rows = features_of(model, self.eval_batches(train_rows, FUNCTIONALS_BATCH))
        return held_out_logits(features, rows, self.manifest, train_rows)

    def baseline(self, train_rows: np.ndarray, rows: np.ndarray) -> tuple[str, np.ndarray] | None:
        """Functionals with logistic regression under default settings; None for such a run itself, or if not wanted."""
        if self._config.data.baseline == "none" or self._config.model.model == BASELINE:
            return None
        return BASELINE, self._simple("spectrum", train_rows)[rows]

    def shortcut(self, train_rows: np.ndarray, rows: np.ndarray) -> tuple[str, np.ndarray] | None:
        """Level and duration alone, with logistic regression; None if not wanted."""
        if self._config.data.baseline == "none":
            return None
        return SHORTCUT, self._simple("level", train_rows)[rows]

    def _simple(self, functional_set: str, train_rows: np.ndarray) -> np.ndarray:
        """(N, C) logits of all clips by a simple model, which hears them at the run's rate and trimming."""
        own = self._config.features
        given = {"model": BASELINE, "functional_set": functional_set, "sr": own.sr, "trim_db": own.trim_db}
        other = type(self)(AudioConfig.build(given), self.manifest, self.waveforms)
        batches = other.eval_batches(np.arange(len(self.manifest.items)), FUNCTIONALS_BATCH)
        return simple_logits(other.config, self.manifest, train_rows, batches)

    def data_card(self) -> dict[str, Any]:
        """Licence, citation and home of the corpus."""
        corpus = DATASETS[self._config.data.dataset]
        about = {"title": corpus.TITLE, "licence": corpus.LICENSE, "citation": corpus.CITATION}
        return about | ({"url": corpus.HOMEPAGE} if corpus.HOMEPAGE else {})


def _decoded(manifest: Manifest, sr: int, progress: Progress | None = None) -> Waveforms:
    """The clips of a manifest at a rate in Hz."""
    items = [(item.id, manifest.path(item)) for item in manifest.items]
    segments = {item.id: item.segment for item in manifest.items if item.segment}
    return open_waveforms(items, sr, segments=segments, on_progress=progress)


def _with_places(config: AudioConfig, data: DataSettings) -> AudioConfig:
    """With where the corpus lies, and a folder of an encoder by its full path."""
    model = config.model.model_copy(update={"encoder": remembered(config.model.encoder)})
    return config.model_copy(update={"data": data, "model": model})


def _what_is_read(config: AudioConfig) -> tuple[dict[str, Any], int, float]:
    """The settings on which manifest and waveforms depend."""
    return config.data.model_dump(exclude=set(SPLIT_SETTINGS)), config.features.sr, config.features.trim_db
