"""The whole of a model over states: a body, a pooling and a head."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from samo.data.batch import Batch, Draws, Mix
from samo.data.manifest import Manifest
from samo.encoders.body import Body, PretrainedBody
from samo.encoders.fitted_heads import FittedHead, KernelHead, fitted_head
from samo.encoders.heads import Head
from samo.encoders.logreg import inner_groups
from samo.encoders.pooling import ALL, STATISTICS, Pooling, sequences_of, statistics
from samo.encoders.settings import EncoderSettings
from samo.tasks import LabelSpace

__all__ = ["StatesModel", "fit_frozen", "held_out_logits", "sequences_looked_at"]


class StatesModel(nn.Module):
    """States of tokens or frames, pooled, under a head; everything but the body learns at the full learning rate.

    A batch holds what the body takes, or what was kept of a frozen body: states, or :func:`statistics` of them.
    """

    body: Body

    def __init__(self, body: Body, parts: tuple[str, ...], space: LabelSpace, settings: EncoderSettings) -> None:
        """``parts`` are those of :func:`samo.encoders.pooling.pooling_parts`."""
        super().__init__()
        self.body = body
        self.pooling = pooling_of(body, parts, settings)
        make_head = fitted_head if settings.takes_no_steps else Head
        self.head: nn.Module = make_head(self.pooling.width, space, settings)

    @property
    def state_width(self) -> int:
        """W = H * k: width of what :meth:`states` gives, an H for each sequence (or layer) the pooling looks at."""
        n_layers = self.pooling.n_layers
        return self.body.width * sum(n_layers if name == ALL else 1 for name in self.pooling.sequences)

    def states(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """What the pooling looks at; of a frozen encoder it never changes and can be kept.

        Args:
            inputs: what the body takes, padded behind.
            lengths: (B,) int64 valid inputs.

        Returns:
            (B, T, W); what stands on padding means nothing.
        """
        states: Tensor = self.body(inputs, lengths)
        return states

    def state_lengths(self, lengths: Tensor) -> Tensor:
        """(B,) valid states of (B,) valid inputs."""
        return lengths

    def statistics(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """(B, 3, L, H): see :func:`samo.encoders.pooling.statistics`."""
        return statistics(self.states(inputs, lengths), self.state_lengths(lengths), self.pooling.n_layers)

    @staticmethod
    def is_kept(inputs: Tensor) -> bool:
        """Whether a batch holds what was kept of a frozen body: (B, T, W) states or (B, 3, L, H) statistics."""
        return torch.is_floating_point(inputs) and inputs.ndim > 2

    def kept(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """(B, 3, L, H) statistics of inputs, or as they are given."""
        return inputs if self.is_kept(inputs) else self.statistics(inputs, lengths)

    def pooled(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """(B, P) float32: inputs, states or statistics as one vector an item; ``lengths`` count what is given."""
        if self.is_kept(inputs):
            found: Tensor = self.pooling(inputs, lengths)
        else:
            found = self.pooling(self.states(inputs, lengths), self.state_lengths(lengths))
        return found

    def forward(self, inputs: Tensor, lengths: Tensor, draws: Draws | None = None, mix: Mix | None = None) -> Tensor:
        """Logits of a batch.

        Args:
            inputs: what the body takes, padded behind; or (B, T, W) states, or (B, 3, L, H) statistics.
            lengths: (B,) int64 valid inputs, or valid states.
            draws: not used; dropout draws from torch's own generator.
            mix: how to mix the rows' pooled embeddings, used in training mode only.

        Returns:
            (B, C) logits; in training with several dropout samples (S, B, C).
        """
        return self.answered(self.pooled(inputs, lengths), mix)

    def answered(self, pooled: Tensor, mix: Mix | None) -> Tensor:
        """Logits of (B, P) pooled vectors, mixed in training."""
        if self.training and mix is not None:
            pooled = mix.apply(pooled)
        logits: Tensor = self.head(pooled)
        return logits

    def lr_scale(self, name: str) -> float:
        """Factor on the learning rate of a parameter by its name in this model."""
        return self.body.lr_scale(name.removeprefix("body.")) if name.startswith("body.") else 1.0

    def begin_epoch(self, epoch: int) -> None:
        """Freeze or unfreeze the body's layers."""
        self.body.begin_epoch(epoch)


def pooling_of(body: Body, parts: tuple[str, ...], settings: EncoderSettings) -> Pooling:
    """The pooling over what a body gives, or over what of a frozen one is kept.

    A pretrained body is to be made with the ``sequences`` of :func:`sequences_looked_at`.
    """
    if not isinstance(body, PretrainedBody):
        return Pooling(parts, body.width, mask_share=settings.state_mask, mask_span=settings.state_mask_span)
    over_layers: Literal["last", "weigh", "join"]
    over_layers = "last" if settings.layers == "last" else "join" if settings.takes_no_steps else "weigh"
    return Pooling(
        parts,
        body.width,
        sequences=body.sequences,
        n_layers=body.n_states if ALL in body.sequences else 1,
        over_layers=over_layers,
        mask_share=settings.state_mask,
        mask_span=settings.state_mask_span,
        standardise=settings.freeze_encoder and over_layers == "weigh",
    )


def sequences_looked_at(parts: tuple[str, ...], settings: EncoderSettings) -> tuple[str, ...]:
    """Which sequences of states a pretrained body is to give.

    All layers' also where a head without steps (``head=logreg`` or kernel) on the last is asked for: what is kept of a
    frozen encoder then serves every other question about it.
    """
    shared = settings.takes_no_steps and set(parts) <= set(STATISTICS)
    return (ALL,) if shared else sequences_of(parts, settings.layers)


def fit_frozen(
    model: StatesModel,
    batches: Iterable[Batch],
    manifest: Manifest,
    seed: int,
    n_plain: int | None = None,
    *,
    hears_copies: bool = False,
    notify: Callable[[str], None] | None = None,
) -> dict[str, Tensor]:
    """What is learned before step 1 of a model whose encoder is frozen, by name in its state.

    The head of ``head=logreg`` or kernel, see :mod:`samo.encoders.fitted_heads`; of a pooling that standardises, mean
    and sd of each statistic over the items. Else nothing, and no batch is asked for.

    Args:
        model: with a frozen body.
        batches: of the rows to learn from; a row may stand several times, once for each of its windows.
        manifest: the items, whose groups stay together where the strength (logreg) or the penalty (kernel) is chosen.
        seed: of the folds it is chosen on, and of which centres of a kernel are drawn where there are more rows.
        n_plain: rows of the batches behind the first so many are changed copies of these: clips at other speeds, texts
            that augmentation made. They are learned from, all rows together weigh as much as the first alone, no
            strength or penalty is chosen on them by themselves, and none is a centre. None: there are none.
        hears_copies: whether an item's answer is a mean over its windows, or over such copies, as with views; of a
            kernel that mean's loss is then measured.
        notify: takes the line that says how many centres of a kernel were drawn, where there are more rows.
    """
    if isinstance(model.head, FittedHead):
        pooled, rows = _of_batches(model, batches, model.pooled)
        plain = len(rows[:n_plain])
        if notify and isinstance(model.head, KernelHead) and plain > (n_centres := len(model.head.centres)):
            notify(
                f"`head=kernel` measures nearness to {n_centres:,} of {plain:,}, drawn at random by `seed`;"
                " `head_centres` takes more"
            )
        groups = inner_groups(manifest, rows)
        given = (pooled, manifest.targets[rows], manifest.label_space)
        items = np.asarray(rows) if hears_copies else None
        fitted = model.head.fitted(*given, groups=groups, seed=seed, n_plain=n_plain, items=items)
        return {f"head.{name}": tensor for name, tensor in fitted.items()}
    if not model.pooling.standardise:
        return {}
    learned, _ = _of_batches(model, batches, model.kept)
    centre, scale = learned.mean(axis=0, dtype=np.float64), learned.std(axis=0, dtype=np.float64)
    # A unit that never changes has no spread to be divided by.
    scale = np.where(scale > 1e-6, scale, 1.0)
    return {f"pooling.{name}": torch.from_numpy(v).float() for name, v in (("centre", centre), ("scale", scale))}


def held_out_logits(
    model: StatesModel,
    batches: Iterable[Batch],
    manifest: Manifest,
    train_rows: np.ndarray,
    seed: int,
    n_plain: int | None = None,
    *,
    hears_copies: bool = False,
    evaluated: Iterable[Batch] | None = None,
) -> np.ndarray:
    """(N, C) logits of N rows as evaluation has them, each by a head that was fitted without its group.

    Args:
        model: its head is one of those that are fitted.
        batches, manifest, seed, n_plain, hears_copies: of :func:`fit_frozen`.
        train_rows: (N,) the rows in the order wanted.
        evaluated: batches of these rows as evaluation hears them, over whose mean they are answered; None: as the first
            ``n_plain`` rows of ``batches``. Copies are learned from and give no answers.

    Raises:
        DataError: there are not two groups.
    """
    pooled, rows = _of_batches(model, batches, model.pooled)
    given = (pooled, manifest.targets[rows], manifest.label_space)
    heard, owners = (
        (pooled[:n_plain], rows[:n_plain]) if evaluated is None else _of_batches(model, evaluated, model.pooled)
    )
    place = dict(zip(rows.tolist(), range(len(rows)), strict=True))  # any of its rows: all are in one fold
    fold_of = np.array([place[owner] for owner in owners.tolist()])
    assert isinstance(model.head, FittedHead)
    each = model.head.held_out(
        *given,
        groups=inner_groups(manifest, rows),
        seed=seed,
        n_plain=n_plain,
        items=rows if hears_copies else None,
        answered=(heard, fold_of),
    )
    return np.stack([each[owners == row].mean(axis=0) for row in train_rows])


@torch.inference_mode()
def _of_batches(
    model: StatesModel, batches: Iterable[Batch], what: Callable[[Tensor, Tensor], Tensor]
) -> tuple[np.ndarray, np.ndarray]:
    """(M, ...) float32 of every row of the batches, and the (M,) rows."""
    training, device = model.training, next(model.parameters()).device
    model.eval()
    values, rows = [], []
    for batch in batches:
        moved = batch.to(device)
        values.append(what(moved.inputs, moved.lengths).float().cpu().numpy())
        rows.append(batch.rows)
    model.train(training)
    return np.concatenate(values), np.concatenate(rows)
