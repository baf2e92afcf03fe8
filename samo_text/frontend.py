"""Joins corpora, tokens and text models to the shared trainer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from samo.data.augmented import copies_last
from samo.data.batch import Batch, Draws
from samo.data.manifest import Item, Manifest
from samo.data.splits import PARTS, SplitRequest
from samo.encoders.body import PretrainedBody
from samo.encoders.hub import remembered
from samo.encoders.logreg import inner_folds, inner_groups
from samo.encoders.model import fit_frozen, held_out_logits
from samo.encoders.states import States, encoder_states
from samo.errors import DataError
from samo.frontend import Notify, Progress
from samo.settings import SPLIT_SETTINGS, Config
from samo.tasks import LabelSpace, Task
from samo_text.baseline import BASELINE, baseline_logits
from samo_text.batches import collate
from samo_text.config import DataSettings, TextConfig
from samo_text.datasets import DATASETS, index_corpus, resolve_root
from samo_text.models import build_model, require_usable
from samo_text.models.text_model import TextModel
from samo_text.models.tfidf import fit_tfidf
from samo_text.tokens import (
    EncoderTokens,
    HashTokens,
    SeveralTokens,
    TokenLists,
    Tokens,
    about_cut,
    open_tokens,
    token_lists,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["TextFrontend"]


class TextFrontend:
    """Texts of a corpus as batches of token ids; see :class:`samo.frontend.Frontend`."""

    modality: ClassVar[str] = "text"
    unit: str = "row"
    item: ClassVar[str] = "text"
    preparing: ClassVar[str] = "tokenising"
    config_type: ClassVar[type[Config]] = TextConfig

    def __init__(
        self, config: TextConfig, manifest: Manifest, tokens: Tokens, lists: TokenLists, notify: Notify | None = None
    ) -> None:
        self._config = config
        self._notify = notify
        self.manifest = manifest
        if config.data.group_column:
            self.unit = "group"
        self.tokens = tokens
        self.lists = lists
        self._states: States | None = None
        self._frozen: nn.Module | None = None

    @property
    def config(self) -> TextConfig:
        """The settings with the data's place filled in."""
        return self._config

    @classmethod
    def located(cls, config: Config) -> TextConfig:
        """The settings as :meth:`open` has them; nothing is opened.

        Raises:
            SettingsError: an unknown corpus, or one that needs ``data_root`` or takes none.
            DataError: the root does not exist.
        """
        config = cast(TextConfig, config)
        return _with_places(config, resolve_root(config.data)[0])

    @classmethod
    def open(cls, config: Config, notify: Notify, progress: Progress | None = None, assets: Path | None = None) -> Self:
        """Index the corpus and tokenise its texts once.

        Raises:
            SettingsError: an unknown model or pooling, or texts longer than the encoder can take.
            DataError: no usable texts.
            ModelFileError, EnvironmentProblem: the encoder's tokenizer cannot be read.
        """
        config = cast(TextConfig, config)
        require_usable(config.model)
        data, line = resolve_root(config.data)
        if line:
            notify(line)
        config = _with_places(config, data)
        manifest = index_corpus(data)
        for note in manifest.notes:
            notify(note)
        tokens = open_tokens(config, assets)
        texts = [item.source for item in manifest.items]
        lists = token_lists(tokens, texts, progress)
        for note in about_cut(tokens, texts, lists):
            notify(note)
        return cls(config, manifest, tokens, lists, notify)

    def with_config(self, config: Config) -> Self:
        """The same texts under other settings; they are opened again for other data or other tokens."""
        config = cast(TextConfig, config)
        if _what_is_read(config) != _what_is_read(self._config):
            return self.open(config, lambda line: None)
        require_usable(config.model)
        return type(self)(config, self.manifest, self.tokens, self.lists, self._notify)

    def with_manifest(self, manifest: Manifest) -> Self:
        """The same items under other labels."""
        return type(self)(self._config, manifest, self.tokens, self.lists, self._notify)

    @staticmethod
    def check_model(config: TextConfig) -> None:
        """Read tokenizer and start weights once, so that what is wrong with them is met before any data are.

        Raises:
            SettingsError, ModelFileError, EnvironmentProblem: they cannot be read, or not with these settings.
        """
        tokens = open_tokens(config)
        space = LabelSpace((Task("any", ("a", "b")),))
        build_model(config, space, None, len(tokens) if isinstance(tokens, EncoderTokens) else None)

    @staticmethod
    def build_model(config: Config, space: LabelSpace, assets: Path | None = None) -> nn.Module:
        """A model without weights; an encoder's sizes are read from ``assets``."""
        return build_model(cast(TextConfig, config), space, assets)

    @staticmethod
    def batch_settings(config: Config, assets: Path | None = None) -> dict[str, Any]:
        """Which tokens a model reads: hashed words, or those of its encoder as its run keeps them."""
        config = cast(TextConfig, config)
        if not config.model.encoder:
            return {"tokens": "words", "max_tokens": config.tokens.max_tokens}
        kept = open_tokens(config, assets).digest[:12] if assets and assets.is_dir() else config.model.encoder
        return {"tokens": kept, "max_tokens": config.tokens.max_tokens}

    @staticmethod
    def packs(config: Config) -> bool:
        """Always: every model reads tokens of the text alone."""
        return True

    @staticmethod
    def reader(model: nn.Module, config: Config) -> nn.Module:
        """The model itself, which reads a text at once."""
        return model

    def shared_by(self, members: Sequence[tuple[Config, Path]]) -> tuple[Self, tuple[int, ...]]:
        """The same texts as the tokens of each of several models, and whose of them each reads."""
        tokens = [open_tokens(cast(TextConfig, config), assets) for config, assets in members]
        found = {each.digest: each for each in tokens}
        if len(found) == 1:
            return self, (0,) * len(members)
        # A member is a run, and no run is trained on several kinds of tokens.
        together = SeveralTokens(tuple(each for each in found.values() if isinstance(each, HashTokens | EncoderTokens)))
        lists = token_lists(together, [item.source for item in self.manifest.items])
        places = {digest: place for place, digest in enumerate(found)}
        shared = type(self)(self._config, self.manifest, together, lists, self._notify)
        return shared, tuple(places[each.digest] for each in tokens)

    def new_model(self) -> nn.Module:
        """A model to train, its encoder with the weights it was published with."""
        vocabulary = len(self.tokens) if isinstance(self.tokens, EncoderTokens) else None
        model = build_model(self._config, self.manifest.label_space, None, vocabulary)
        # A network of one's own may freeze what it likes; whose states could be kept is known of SAMO's alone.
        keeps = self._config.model.freeze_encoder and self._config.model.model == "encoder"
        self._states, self._frozen = None, model if keeps else None
        body = getattr(model, "body", None)
        note = body.unfreezing_note(self._config.train.epochs) if isinstance(body, PretrainedBody) else ""
        if note and self._notify:
            self._notify(note)
        return model

    def save_assets(self, folder: Path) -> None:
        """The tokenizer and the encoder's sizes, so that a run needs nothing else to predict."""
        self.tokens.save(folder)
        if self._config.model.encoder and not isinstance(self.tokens, SeveralTokens):
            from samo_text.models.pretrained import save_sizes

            assert isinstance(self.tokens, EncoderTokens)
            save_sizes(self._config.model.encoder, len(self.tokens), folder)

    @property
    def mixup_alpha(self) -> float:
        """Beta parameter of mixup, 0 = off."""
        return self._config.augment.mixup_alpha

    def split_request(self) -> SplitRequest:
        """The split asked for; ``auto``: the corpus' own where all items have one, else by group or stratified."""
        data = self._config.data
        own = all(item.split in PARTS for item in self.manifest.items)
        chosen = "table" if own else "group" if data.group_column else "stratified"
        rule = chosen if data.split == "auto" else data.split
        seed = data.split_seed_or(self._config.train.seed)
        return SplitRequest(
            rule,
            data.train_ratio,
            data.val_ratio,
            data.fold,
            seed,
            data.limit_fraction,
            data.drop_leaked,
            data.num_folds,
        )

    def augment(self, train_rows: np.ndarray, device: torch.device) -> tuple[Item, ...]:
        """Texts of ``extra_table``, then those made of the training rows and of them.

        See :mod:`samo_text.extra_table` and :mod:`samo_text.augmentation`.

        Raises:
            EnvironmentProblem, ModelFileError: WordNet or a model that is asked for is missing or damaged.
            DataError: ``extra_table`` holds nothing that can be trained on.
        """
        settings, manifest, added = self._config.augment, self.manifest, self._extra_items(train_rows)
        if not settings.methods:
            return added
        from samo_text.augmentation import augment

        if added:
            n = len(manifest.items)
            manifest = replace(manifest, items=(*manifest.items, *added))
            train_rows = np.concatenate([train_rows, np.arange(n, n + len(added))])
        return added + augment(manifest, train_rows, settings, self._config.train.seed, device, self._notify)

    def with_extra(self, items: Sequence[Item]) -> Self:
        """The same texts with those of ``items`` behind them, tokenised."""
        manifest = replace(self.manifest, items=(*self.manifest.items, *items))
        more = token_lists(self.tokens, [item.source for item in items])
        return type(self)(self._config, manifest, self.tokens, self.lists.followed_by(more), self._notify)

    def fit(self, train_rows: np.ndarray) -> dict[str, Tensor]:
        """Everything a ``tfidf`` model is, or what is fitted on a frozen encoder; else nothing."""
        if isinstance(self._frozen, TextModel):
            rows, n_plain = copies_last(self.manifest, train_rows)
            given = (self._frozen, self.eval_batches(rows, 64), self.manifest, self._config.train.seed, n_plain)
            return fit_frozen(*given, notify=self._notify)
        if self._config.model.model != "tfidf":
            return {}
        texts = [self.lists.row(row) for row in train_rows]
        return fit_tfidf(texts, self.manifest.targets[train_rows], self.manifest.label_space, self._config.model)

    def input_facts(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """(N,) ``n_chars`` and ``n_tokens`` of texts, tokens as read; of several models by the one that reads most."""
        n_chars = np.array([len(self.manifest.items[row].source) for row in rows])
        n_tokens = np.array([self.tokens.n_tokens(self.lists.row(row)) for row in rows])
        return {"n_chars": n_chars, "n_tokens": n_tokens}

    def sizes(self, rows: np.ndarray) -> np.ndarray | None:
        """(N,) tokens of each row, unless every batch is to be padded to the longest length."""
        return self.lists.lengths[rows] if self._config.tokens.length_sorted else None

    def train_batch(self, rows: np.ndarray, draws: Draws) -> Batch:
        """Token ids, or a frozen encoder's states of them."""
        return self._batch(rows, draws)

    def eval_batches(self, rows: np.ndarray, batch_size: int) -> Iterator[Batch]:
        """Every text once, whole (cut at the longest length)."""
        for start in range(0, len(rows), batch_size):
            yield self._batch(rows[start : start + batch_size])

    def sample_figures(self, model: nn.Module, draws: Draws) -> dict[str, Figure]:
        """None: texts that were made are in ``augmented.jsonl``, to be read."""
        return {}

    def out_of_fold(self, train_rows: np.ndarray) -> np.ndarray | None:
        """(N, C) logits of texts by a model without steps, fitted without their authors' texts; None for others."""
        if self._config.model.takes_no_steps:
            encoder = self.new_model()
            if not isinstance(encoder, TextModel):
                return None  # a network of one's own
            rows, n_plain = copies_last(self.manifest, train_rows)
            return held_out_logits(
                encoder,
                self.eval_batches(rows, 64),
                self.manifest,
                train_rows,
                self._config.train.seed,
                n_plain,
                evaluated=self.eval_batches(train_rows, 64) if n_plain < len(rows) else None,
            )
        if self._config.model.model != BASELINE:
            return None
        manifest, settings = self.manifest, self._config.model
        groups = np.array(inner_groups(manifest, train_rows))
        targets = manifest.targets[train_rows]
        folds = inner_folds(np.nan_to_num(targets) > 0.5, groups, seed=0)
        if not folds:
            raise DataError("answers on held-out folds need texts of at least two groups")
        logits = np.empty(targets.shape)
        model = build_model(self._config, manifest.label_space).eval()
        for learn, held_out in folds:
            lists = [self.lists.row(row) for row in train_rows[learn]]
            model.load_state_dict(fit_tfidf(lists, targets[learn], manifest.label_space, settings))
            places = iter(held_out)
            with torch.inference_mode():
                for batch in self.eval_batches(train_rows[held_out], 256):
                    found = model(batch.inputs, batch.lengths).numpy()
                    for row in found:
                        logits[next(places)] = row
        return logits

    def baseline(self, train_rows: np.ndarray, rows: np.ndarray) -> tuple[str, np.ndarray] | None:
        """tf-idf with logistic regression under its default settings; None for such a run itself.

        Its answers are cached: every run of a grid is judged beside the same baseline.
        """
        if self._config.model.model == BASELINE:
            return None
        return BASELINE, baseline_logits(self.manifest, train_rows)[rows]

    def shortcut(self, train_rows: np.ndarray, rows: np.ndarray) -> tuple[str, np.ndarray] | None:
        """None: a text has nothing but its words."""
        return None

    def data_card(self) -> dict[str, Any]:
        """Licence, citation and home of the corpus."""
        corpus = DATASETS[self._config.data.dataset]
        about = {"title": corpus.TITLE, "licence": corpus.LICENSE, "citation": corpus.CITATION}
        return about | ({"url": corpus.HOMEPAGE} if corpus.HOMEPAGE else {})

    def _extra_items(self, train_rows: np.ndarray) -> tuple[Item, ...]:
        if not self._config.augment.extra_table:
            return ()
        from samo_text.extra_table import extra_items

        path, data = Path(self._config.augment.extra_table).expanduser(), self._config.data
        columns = {"text_column": data.text_column, "separator": data.label_separator}
        return extra_items(path, self.manifest, train_rows, **columns, notify=self._notify)

    def _states_of(self, model: nn.Module, *, compute: bool = True) -> States | None:
        return encoder_states(
            model,
            lengths=self.lists.lengths,
            batch_of=self._batch,
            digest=self.tokens.digest,
            contents=(self.lists.row(row).tobytes() for row in range(len(self.lists))),
            compute=compute,
            notify=self._notify,
        )

    def use_kept_states(self, model: nn.Module) -> None:
        """Where states of all texts under a run's frozen encoder are kept, they are what batches hold from here on."""
        if self._config.model.freeze_encoder and isinstance(model, TextModel):
            self._states, self._frozen = self._states_of(model, compute=False), None

    def _batch(self, rows: np.ndarray, draws: Draws | None = None) -> Batch:
        targets = self.manifest.targets[rows]
        if self._frozen is not None:
            # Only now: a resumed run's encoder is that of its checkpoint, whatever lies in the folder today.
            frozen, self._frozen = self._frozen, None
            self._states = self._states_of(frozen)
        if self._states is not None:
            inputs = [self._states.row(row) for row in rows]
        else:
            inputs = [self.lists.row(row) for row in rows]
        width = 0 if self._config.tokens.length_sorted else self._config.tokens.max_tokens
        return collate(inputs, targets, rows, self.tokens.pad_id, width, draws)


def _with_places(config: TextConfig, data: DataSettings) -> TextConfig:
    """With where the corpus lies, and a folder of an encoder by its full path."""
    model = config.model.model_copy(update={"encoder": remembered(config.model.encoder)})
    return config.model_copy(update={"data": data, "model": model})


def _what_is_read(config: TextConfig) -> tuple[Any, ...]:
    """The settings on which manifest and tokens depend."""
    data = config.data.model_dump(exclude=set(SPLIT_SETTINGS) | {"drop_leaked"})
    return data, TextFrontend.batch_settings(config)
