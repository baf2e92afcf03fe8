"""The part of a model below the pooling: learning rates by layer, freezing, unfreezing step by step."""

from __future__ import annotations

import re
from typing import Any, Self

import torch
from torch import Tensor, nn

from samo.encoders.pooling import ALL, LAST, LAST4
from samo.encoders.settings import EncoderSettings
from samo.errors import SettingsError

__all__ = ["Body", "PretrainedBody"]

# BERT, RoBERTa, DeBERTa, ELECTRA: encoder.layer.3; DistilBERT: transformer.layer.3; ModernBERT: layers.3.
_LAYER = re.compile(r"(?:^|\.)(?:layers?|albert_layers|h|blocks?)\.(\d+)\.")
# What stands above the last layer, such as ModernBERT's final_norm and the norm behind Whisper's layers; the rest
# outside the layers lies below them all.
_ABOVE = re.compile(r"(?:^|\.)(?:final_|pooler)|^layer_norm\.")
# Convolutions of speech encoders below the first layer, some of them numbered like layers.
_BELOW = re.compile(r"^(?:feature_extractor|feature_projection|encoder\.pos_conv_embed)\.")


class Body(nn.Module):
    """Turns (B, T, ...) inputs and (B,) lengths into (B, T', H * k) states; padding may hold anything.

    Attributes:
        width: H, width of one state.
    """

    width: int

    def lr_scale(self, name: str) -> float:
        """Factor on the learning rate of the body's parameter called ``name``."""
        return 1.0

    def begin_epoch(self, epoch: int) -> None:
        """Freeze or unfreeze what the epoch (from 0) asks for."""


class PretrainedBody(Body):
    """A pretrained encoder: frozen, unfrozen step by step, or slower layer by layer; :meth:`forward` is the modality's.

    Attributes:
        network: a ``transformers.PreTrainedModel``.
        sequences: those of :func:`samo.encoders.pooling.sequences_of` that the pooling looks at.
        width: H, ``hidden_size`` of the network's configuration.
        n_layers: its transformer layers.
        n_states: L, those whose states it can give, the embeddings included.
    """

    def __init__(self, network: Any, sequences: tuple[str, ...], settings: EncoderSettings) -> None:
        """Take the network as it is; a frozen one needs no gradient from here on.

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
        found = [_layer(name) for name, _ in network.named_parameters()]
        self.n_layers = 1 + max((layer for layer in found if layer is not None), default=-1)
        # ALBERT runs one layer several times; the decoder of Whisper has layers of its own.
        known = ("encoder_layers", "num_hidden_layers")
        self.n_states = 1 + next((int(n) for name in known if (n := getattr(network.config, name, 0))), self.n_layers)
        if not self.n_layers and (self.unfreeze_epochs or self.lr_decay < 1.0):
            family = network.config.model_type
            raise SettingsError(
                f"`unfreeze_epochs` and `layer_lr_decay`: the layers of '{family}' cannot be told apart by name"
            )
        # Whisper's table of positions is not for learning.
        self._learns = frozenset(name for name, parameter in network.named_parameters() if parameter.requires_grad)
        if self.frozen:
            self.network.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """A frozen encoder never drops anything out."""
        super().train(mode)
        if self.frozen:
            self.network.eval()
        return self

    def level(self, name: str) -> int:
        """0 for the embeddings, k for the k-th layer from below, ``n_layers`` for what stands above them."""
        layer = _layer(name)
        if layer is not None:
            return layer + 1
        # wav2vec 2.0 and its kin have one norm around their layers: behind them where each layer begins with its own.
        stable = name.startswith("encoder.layer_norm.") and getattr(self.network.config, "do_stable_layer_norm", False)
        return self.n_layers if stable or _ABOVE.search(name) else 0

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
            parameter.requires_grad_(name in self._learns and self.level(name) > self.n_layers - n_open)

    def epochs_to_open(self) -> int:
        """How many epochs it takes until everything learns, the embeddings last; 1 without unfreezing by steps."""
        return 1 + self.unfreeze_epochs * (self.n_layers + 1)

    def unfreezing_note(self, epochs: int) -> str:
        """What a training of so many epochs never opens, and what would; empty where all is opened."""
        if self.frozen or epochs >= self.epochs_to_open():
            return ""
        n_open = min((epochs - 1) // self.unfreeze_epochs, self.n_layers)
        below = "the embeddings" if n_open == self.n_layers else "embeddings and lower layers"
        # The last epoch is the first in which all learns, so n + 1 steps of k epochs fit into the epochs before it.
        step = (epochs - 1) // (self.n_layers + 1)
        other = f" or `unfreeze_epochs={step}`" if step else ""
        return (
            f"`unfreeze_epochs={self.unfreeze_epochs}` opens {n_open} of {self.n_layers} layers in {epochs} epochs, "
            f"{below} never learn; `epochs={self.epochs_to_open()}`{other} opens all"
        )

    def looked_at(self, last: Tensor, layers: tuple[Tensor, ...] | None) -> Tensor:
        """The states that the pooling looks at, side by side.

        Args:
            last: (B, T, H), what the network ends with.
            layers: embeddings and every layer's (B, T, H) states, as ``output_hidden_states`` gives them; needed where
                the mean of the last four is looked at.

        Returns:
            (B, T, H * k): the last layer, the mean of the last four, or both; or the embeddings and all layers.
        """
        parts = []
        if LAST in self.sequences:
            parts.append(last)
        if LAST4 in self.sequences:
            assert layers is not None
            # The first entry are the embeddings; an encoder of fewer layers gives all it has.
            parts.append(torch.stack(layers[1:][-4:]).mean(dim=0))
        if ALL in self.sequences:
            assert layers is not None
            # A norm behind the last layer belongs to what the network ends with.
            parts += [*layers[:-1], last]
        return torch.cat(parts, dim=2)


def _layer(name: str) -> int | None:
    """The number of the layer a parameter belongs to, from 0; None outside the layers."""
    match = None if _BELOW.search(name) else _LAYER.search(name)
    return int(match[1]) if match else None
