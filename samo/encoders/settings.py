"""The settings that models of speech and of text share: encoder, pooling, head, learning rates by layer."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from samo.settings import Section, setting

__all__ = ["EncoderSettings"]

_OF_LEARNED_HEADS = ("head_layers", "head_norm", "dropout", "dropout_samples", "dropout_inference", "state_mask")
_OF_HIDDEN_LAYERS = ("head_hidden", "head_intermediate", "head_residual")
_OF_ENCODER_RATES = ("encoder_lr_scale", "layer_lr_decay")


class EncoderSettings(Section):
    """An encoder, the pooling of its states and the head; a modality declares ``model`` anew and adds its own.

    The architecture of pretrained encoders is called ``encoder`` in every modality.
    """

    model: str = setting("encoder", "architecture")
    encoder: str = setting("", "pretrained encoder: a folder, or a name on the Hugging Face hub", needs="model=encoder")
    pooling: str = setting(
        "auto",
        "from states to one vector: cls, mean, sd, max, mean-sd, mean-max, attention, last4-mean; several joined"
        " with +",
    )
    layers: Literal["last", "all"] = setting(
        "last",
        "states of the last layer, or of all: a mean with learned weights (with `head=logreg` or kernel side by side)",
        came_later=True,
        needs="model=encoder",
    )
    state_mask: float = setting(
        0.0,
        "share of an item's states that is left out of the pooling in training, drawn anew each time; 0 = off",
        came_later=True,
        ge=0.0,
        lt=1.0,
        needs="model=encoder",
    )
    state_mask_span: int = setting(
        10, "neighbouring states that are left out in one piece", came_later=True, ge=1, le=10_000, needs="state_mask"
    )
    head: Literal["network", "logreg", "kernel"] = setting(
        "network",
        "network: `head_layers` learned by gradient; on a frozen encoder and without steps, logreg: a logistic"
        " regression, kernel: least squares on how near an item is to each that it learned from",
        came_later=True,
        needs="model=encoder",
    )
    head_centres: int = setting(
        1024,
        "texts or windows of clips that `head=kernel` measures nearness to; of more to learn from so many are drawn at"
        " random by `seed`",
        came_later=True,
        ge=1,
        le=16_384,
        needs="head=kernel",
    )
    head_layers: int = setting(1, "linear layers of the head, the output layer included", ge=1, le=12)
    head_hidden: int = setting(0, "units of the head's hidden layers; 0 = as many as go in", ge=0, le=16_384)
    head_intermediate: int = setting(
        0, "units inside each hidden layer (expand, GELU, contract); 0 = none", ge=0, le=65_536
    )
    head_residual: bool = setting(False, "residual connections around the head's hidden layers")
    head_norm: bool = setting(False, "layer norm before each of the head's layers")
    dropout: float = setting(0.1, "dropout before each of the head's layers", ge=0.0, lt=1.0)
    dropout_samples: int = setting(1, "dropout masks per row whose losses are averaged (Inoue 2019)", ge=1, le=64)
    dropout_inference: Literal["off", "mean", "vote"] = setting(
        "off", "in judging: no dropout, or the mean or the vote over `dropout_samples` fixed masks"
    )
    freeze_encoder: bool = setting(False, "leave the encoder as it is and train the head alone", needs="model=encoder")
    unfreeze_epochs: int = setting(
        0,
        "begin with the head alone and unfreeze one more encoder layer every so many epochs; 0 = all at once",
        ge=0,
        le=1000,
        needs="model=encoder",
    )
    encoder_lr_scale: float = setting(
        0.05, "learning rate of the encoder as a share of `lr`", gt=0.0, le=1.0, needs="model=encoder"
    )
    layer_lr_decay: float = setting(
        1.0,
        "factor on the learning rate from each encoder layer to the one below; 1 = off",
        gt=0.0,
        le=1.0,
        needs="model=encoder",
    )

    @model_validator(mode="before")
    @classmethod
    def _encoder_given(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("encoder") and "model" not in values:
            return {**values, "model": "encoder"}
        return values

    @model_validator(mode="after")
    def _encoder_whole(self) -> EncoderSettings:
        if self.model == "encoder" and not self.encoder:
            raise ValueError("`model=encoder` needs `encoder` with a folder or a name on the Hugging Face hub")
        # Of a network without an encoder it is said elsewhere that they do nothing; one of a user's own may have one.
        has_encoder = self.model == "encoder" or ":" in self.model
        if has_encoder and self.freeze_encoder and self.unfreeze_epochs:
            raise ValueError("`freeze_encoder` and `unfreeze_epochs` exclude each other")
        if self.dropout_inference != "off" and self.dropout_samples < 2:
            raise ValueError("`dropout_inference` mean and vote act only together with `dropout_samples` above 1")
        if self.dropout_samples > 1 and self.dropout == 0.0:
            raise ValueError("`dropout_samples` acts only together with `dropout` above 0")
        if self.layers == "all" and "last4-mean" in self.pooling.split("+"):
            raise ValueError("`pooling=last4-mean` names its layers; it acts only together with `layers=last`")
        if has_encoder and self.takes_no_steps:
            if not self.freeze_encoder:
                raise ValueError(f"`head={self.head}` acts only together with `freeze_encoder`")
            if "attention" in self.pooling.split("+"):
                raise ValueError(f"`pooling=attention` is learned in steps, which `head={self.head}` does not take")
            self.refuse_idle(_OF_LEARNED_HEADS, False, "`head=network`")
        self.refuse_idle(_OF_HIDDEN_LAYERS, self.head_layers > 1, "`head_layers` above 1")
        learns = not (has_encoder and self.freeze_encoder)
        self.refuse_idle(_OF_ENCODER_RATES, learns, "an encoder that learns, not `freeze_encoder`")
        return self

    @property
    def takes_no_steps(self) -> bool:
        """Whether the head is found in closed form instead of learned by gradient."""
        return self.head != "network"

    def refuse_idle(self, names: tuple[str, ...], acts: bool, partner: str) -> None:
        """Refuse settings that were changed and would do nothing without ``partner``.

        Raises:
            ValueError: for the first of them.
        """
        for name in names:
            if not acts and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"`{name}` acts only together with {partner}")
