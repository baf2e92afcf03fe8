"""Pretrained encoders of text: only those that see a word from both sides, with room for SAMO's own tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from samo.encoders import pretrained
from samo.encoders.hub import quiet
from samo.errors import ModelFileError

__all__ = ["load_pretrained", "position_limit", "resize", "save_sizes"]


def load_pretrained(place: str) -> Any:
    """Read a pretrained encoder of text; see :func:`samo.encoders.pretrained.load_pretrained`.

    Raises:
        ModelFileError, EnvironmentProblem: as there; also a decoder, or a model of something else than text.
    """
    return pretrained.load_pretrained(place, refuse_others)


def save_sizes(place: str, n_tokens: int, folder: Path) -> None:
    """Write what :func:`samo.encoders.pretrained.from_assets` reads, with the vocabulary that :func:`resize` makes.

    Raises:
        ModelFileError, EnvironmentProblem: see :func:`load_pretrained`.
    """
    config = pretrained.read_config(place, refuse_others)
    config.vocab_size = max(config.vocab_size, n_tokens)
    pretrained.save_config(config, folder)


def resize(encoder: Any, n_tokens: int) -> None:
    """Make room for tokens added to the vocabulary; each new one begins as the mean of all others.

    Nothing happens when the table is large enough already: some encoders keep spare rows.
    """
    table = encoder.get_input_embeddings()
    n_known = table.num_embeddings
    if n_tokens <= n_known:
        return
    middle = table.weight.detach().mean(dim=0)
    with quiet():
        encoder.resize_token_embeddings(n_tokens, mean_resizing=False)
    with torch.no_grad():
        encoder.get_input_embeddings().weight[n_known:] = middle


def position_limit(encoder: Any) -> int | None:
    """Longest text in tokens an encoder has positions for; None where positions are only relative.

    RoBERTa and its kin count positions from behind the padding index: 514 rows are 512 tokens.
    """
    for name, module in encoder.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and isinstance(module, nn.Embedding):
            before = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - before
    if getattr(encoder.config, "relative_attention", False):
        return None
    limit = getattr(encoder.config, "max_position_embeddings", None)
    return int(limit) if limit else None


def refuse_others(place: str, config: Any) -> None:
    """Only encoders see the words on both sides of a word.

    Raises:
        ModelFileError: the configuration is not one of an encoder of text.
    """
    from transformers.models.auto import modeling_auto as auto

    family = config.model_type
    masked = family in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    causal = family in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    text = masked or causal or family in auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    why = ""
    if getattr(config, "is_encoder_decoder", False):
        why = "has an encoder and a decoder"
    elif getattr(config, "is_decoder", False) or (causal and not masked):
        why = "is a decoder"
    elif not text:
        why = "is not a text model"
    if why:
        raise ModelFileError(
            f"`encoder={place}`: '{family}' {why}; text runs need an encoder",
            hint="for example a BERT, RoBERTa, DeBERTa, DistilBERT, ELECTRA, MiniLM or ModernBERT",
        )
