"""A pretrained encoder as the body of a text model."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from samo.encoders.body import PretrainedBody
from samo.encoders.model import sequences_looked_at
from samo.encoders.pooling import LAST, pooling_parts, valid_positions
from samo.encoders.pretrained import from_assets
from samo.errors import SettingsError
from samo.tasks import LabelSpace
from samo_text.config import TextConfig
from samo_text.models import MODELS
from samo_text.models.pretrained import load_pretrained, position_limit, resize
from samo_text.models.text_model import TextModel

__all__ = ["Encoder", "encoder"]


class Encoder(PretrainedBody):
    """Token states of a ``transformers`` encoder."""

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """(B, T) ids and (B,) lengths to (B, T, H * k): the last layer, the mean of the last four, or both."""
        mask = valid_positions(ids.shape[1], lengths).long()
        found = self.network(input_ids=ids, attention_mask=mask, output_hidden_states=self.sequences != (LAST,))
        return self.looked_at(found.last_hidden_state, found.hidden_states)


def encoder(config: TextConfig, space: LabelSpace, assets: Path | None, n_tokens: int | None) -> TextModel:
    """A pretrained encoder under its pooling and head; see :func:`samo_text.models.build_model`.

    Raises:
        SettingsError: ``max_tokens`` above what the encoder has positions for.
    """
    parts = pooling_parts(config.model.pooling, MODELS["encoder"])
    network = load_pretrained(config.model.encoder) if assets is None else from_assets(assets)
    limit = position_limit(network)
    if limit is not None and config.tokens.max_tokens > limit:
        raise SettingsError(
            f"`max_tokens={config.tokens.max_tokens}` is more than the {limit} tokens"
            f" `encoder={config.model.encoder}` has positions for"
        )
    if n_tokens is not None:
        resize(network, n_tokens)
    body = Encoder(network, sequences_looked_at(parts, config.model), config.model)
    return TextModel(body, parts, space, config.model)
