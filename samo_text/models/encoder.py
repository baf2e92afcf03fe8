"""A pretrained encoder as the body of a text model: frozen, unfrozen step by step, or slower layer by layer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from samo.encoders.pooling import LAST, LAST4, pooling_parts, sequences_of, valid_positions
from samo.encoders.pretrained import from_assets, load_pretrained, position_limit, resize
from samo.errors import SettingsError
from samo.tasks import LabelSpace
from samo_text.config import ModelSettings, TextConfig
from samo_text.models import MODELS
from samo_text.models.text_model import Body, TextModel

__all__ = ["Encoder", "encoder"]

# BERT, RoBERTa, DeBERTa, ELECTRA: encoder.layer.3; DistilBERT: transformer.layer.3; ModernBERT: layers.3.
_LAYER = re.compile(r"(?:^|\.)(?:layers?|albert_layers|h|blocks?)\.(\d+)\.")
# What stands above the last layer, such as ModernBERT's final_norm; the rest outside the layers lies below them all.
_ABOVE = re.compile(r"(?:^|\.)(?:final_|pooler)")


class Encoder(Body):
    """Token states of a ``transformers`` encoder.

    Attributes:
        width: H, ``hidden_size`` of the encoder's configuration.
        n_layers: its transformer layers.
    """

    def __init__(self, network: Any, sequences: tuple[str, ...], settings: ModelSettings) -> None:
        """``network`` is a ``transformers.PreTrainedModel``; ``sequences`` those the pooling looks at.

        Raises:
            SettingsError: unfreezing or decay layer by layer of a network whose layers cannot be told apart.
        """
        super().__init__()
        self.network = network
        self.sequences = sequences
        self.frozen = settings.freeze_encoder
        self.unfreeze_epochs = settings.unfreeze_epochs
        self.lr_share, self.lr_decay = settings.encoder_lr_scale, settings.layer_lr_decay
        self.width = int(network.config.hidden_size)
        found = [_LAYER.search(name) for name, _ in network.named_parameters()]
        self.n_layers = 1 + max((int(match[1]) for match in found if match), default=-1)
        if not self.n_layers and (self.unfreeze_epochs or self.lr_decay < 1.0):
            family = network.config.model_type
            raise SettingsError(
                f"--unfreeze-epochs and --layer-lr-decay: the layers of '{family}' cannot be told apart by name"
            )
        if self.frozen:
            self.network.requires_grad_(False)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """(B, T) ids and (B,) lengths to (B, T, H * k): the last layer, the mean of the last four, or both."""
        mask = valid_positions(ids.shape[1], lengths).long()
        found = self.network(input_ids=ids, attention_mask=mask, output_hidden_states=LAST4 in self.sequences)
        parts = []
        if LAST in self.sequences:
            parts.append(found.last_hidden_state)
        if LAST4 in self.sequences:
            # The first entry are the embeddings; an encoder of fewer layers gives all it has.
            parts.append(torch.stack(found.hidden_states[1:][-4:]).mean(dim=0))
        return torch.cat(parts, dim=2)

    def train(self, mode: bool = True) -> Self:
        """A frozen encoder never drops anything out."""
        super().train(mode)
        if self.frozen:
            self.network.eval()
        return self

    def level(self, name: str) -> int:
        """0 for the embeddings, k for the k-th layer from below, ``n_layers`` for what stands above them."""
        match = _LAYER.search(name)
        if match:
            return int(match[1]) + 1
        return self.n_layers if _ABOVE.search(name) else 0

    def lr_scale(self, name: str) -> float:
        """``encoder_lr_scale * layer_lr_decay ** layers above it`` (Howard & Ruder 2018; Sun et al. 2019)."""
        return self.lr_share * self.lr_decay ** (self.n_layers - self.level(name))

    def begin_epoch(self, epoch: int) -> None:
        """Open one more layer from the top every ``unfreeze_epochs``, the embeddings last (Howard & Ruder 2018).

        In the first ``unfreeze_epochs`` epochs the head learns alone.
        """
        if self.frozen or not self.unfreeze_epochs:
            return
        n_open = epoch // self.unfreeze_epochs
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(self.level(name) > self.n_layers - n_open)


def encoder(config: TextConfig, space: LabelSpace, assets: Path | None, n_tokens: int | None) -> TextModel:
    """A pretrained encoder under its pooling and head; see :func:`samo_text.models.build_model`.

    Raises:
        SettingsError: ``--max-tokens`` above what the encoder has positions for.
    """
    parts = pooling_parts(config.model.pooling, MODELS["encoder"])
    network = load_pretrained(config.model.encoder) if assets is None else from_assets(assets)
    limit = position_limit(network)
    if limit is not None and config.tokens.max_tokens > limit:
        raise SettingsError(
            f"--max-tokens {config.tokens.max_tokens} is more than the {limit} tokens"
            f" --encoder {config.model.encoder} has positions for"
        )
    if n_tokens is not None:
        resize(network, n_tokens)
    return TextModel(Encoder(network, sequences_of(parts), config.model), parts, space, config.model)
