"""Pretrained encoders of the ``transformers`` library: read, checked, resized, built again without weights."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import nn

from samo.encoders.hub import NO_CODE, offline, quiet, reading, source_of
from samo.errors import ModelFileError, first_few
from samo.files import write_text

__all__ = ["CONFIG_NAME", "from_assets", "load_pretrained", "position_limit", "resize", "save_sizes"]

CONFIG_NAME = "config.json"


def load_pretrained(place: str) -> Any:
    """Read a pretrained encoder, weights in float32.

    Args:
        place: a folder, or a name on the Hugging Face hub, which ``transformers`` downloads and keeps.

    Returns:
        A ``transformers.PreTrainedModel`` without a pooling layer, in evaluation mode.

    Raises:
        ModelFileError: a folder without encoder, no encoder, or weights that do not fit their configuration.
        EnvironmentProblem: a name that is neither on this machine nor reachable.
    """
    from safetensors import SafetensorError
    from transformers import AutoModel

    config = _read_config(place)
    options = {"dtype": torch.float32, "local_files_only": offline(place), "output_loading_info": True}
    with quiet(), reading(place, "weights"):
        try:
            encoder, found = AutoModel.from_pretrained(
                source_of(place), config=config, **options, **_plain(config), **NO_CODE
            )
        except SafetensorError as error:
            raise OSError(f"damaged: {error}") from error
    missing, n_tensors = sorted(found["missing_keys"]), len(encoder.state_dict())
    if missing:
        raise ModelFileError(
            f"--encoder {place}: {len(missing)} of {n_tensors} tensors are not among its weights:"
            f" {first_few(missing, 3)}",
            hint="its config.json and its weights must belong together",
        )
    return encoder.eval()


def from_assets(folder: Path) -> Any:
    """The architecture that :func:`save_sizes` described, its weights undefined until they are loaded.

    Raises:
        ModelFileError: no configuration there, or a damaged one.
    """
    from transformers import AutoConfig, AutoModel
    from transformers.initialization import no_init_weights

    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, **NO_CODE)
        # Random start weights of a large encoder take seconds, and are overwritten at once.
        with quiet(), no_init_weights():
            return AutoModel.from_config(config, dtype=torch.float32, **_plain(config), **NO_CODE)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelFileError(f"{folder / CONFIG_NAME} does not describe an encoder: {reason}") from error


def save_sizes(place: str, n_tokens: int, folder: Path) -> None:
    """Write the ``config.json`` that :func:`from_assets` reads, with the vocabulary that :func:`resize` makes.

    Raises:
        ModelFileError, EnvironmentProblem: see :func:`load_pretrained`.
    """
    config = _read_config(place)
    config.vocab_size = max(config.vocab_size, n_tokens)
    config.__dict__.pop("auto_map", None)  # a run names no code
    write_text(folder / CONFIG_NAME, config.to_json_string(use_diff=True))


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


def _read_config(place: str) -> Any:
    from transformers import AutoConfig

    _refuse_wrapped(place)
    with quiet(), reading(place, "configuration"):
        config = AutoConfig.from_pretrained(source_of(place), local_files_only=offline(place), **NO_CODE)
    _refuse_others(place, config)
    return config


def _refuse_wrapped(place: str) -> None:
    """A sentence-transformers folder may keep its encoder one level below."""
    folder = Path(place).expanduser()
    if not (folder / "modules.json").is_file() or (folder / CONFIG_NAME).is_file():
        return
    inner = sorted(path.parent.name for path in folder.glob(f"*_Transformer/{CONFIG_NAME}"))
    raise ModelFileError(
        f"--encoder {place} is a sentence-transformers model that keeps its encoder in a folder below",
        hint=f"give --encoder {folder / inner[0]}" if inner else "give the folder with config.json and weights",
    )


def _refuse_others(place: str, config: Any) -> None:
    """Only encoders see the words on both sides of a word."""
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
            f"--encoder {place}: '{family}' {why}; text runs need an encoder",
            hint="for example a BERT, RoBERTa, DeBERTa, DistilBERT, ELECTRA, MiniLM or ModernBERT",
        )


def _plain(config: Any) -> dict[str, bool]:
    """Leave out the layer on top of the first token, where a family has one: its output is never read."""
    from transformers import MODEL_MAPPING

    made: Any = MODEL_MAPPING[type(config)]
    made = made[0] if isinstance(made, tuple) else made
    return {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(made).parameters else {}
