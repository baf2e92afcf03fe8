"""Encoders with random weights, their tokenizers and settings so small that a test takes no time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoModel, PretrainedConfig, PreTrainedTokenizerFast

from samo.tasks import LabelSpace, Task
from samo_text.config import TextConfig

WORDS = (
    *("i", "you", "he", "she", "we", "this", "that", "is", "was", "not", "so", "very"),
    *("happy", "sad", "angry", "glad", "love", "hate", "it", "!", "?", ".", ",", "[UNUSED]"),
)
# <pad> is not 0 for RoBERTa, whose positions count from behind it.
SPECIAL = {"roberta": ("<s>", "<pad>", "</s>", "<unk>", "<mask>")}
DEFAULT_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
HIDDEN, LAYERS = 16, 5
SPACE = LabelSpace((Task("emotion", ("anger", "joy", "sadness"), multi_label=True),))
ONE_OF = LabelSpace((Task("mood", ("bad", "good")),))
BOTH = LabelSpace((*SPACE.tasks, *ONE_OF.tasks))


def vocabulary(family: str) -> dict[str, int]:
    return {word: k for k, word in enumerate((*SPECIAL.get(family, DEFAULT_SPECIAL), *WORDS))}


def tokenizer(family: str) -> PreTrainedTokenizerFast:
    """Whole words of a fixed list, as fast tokenizers keep them in tokenizer.json."""
    known = vocabulary(family)
    if family == "roberta":
        first, pad, last, unknown, mask = SPECIAL["roberta"]
    else:
        pad, unknown, first, last, mask = DEFAULT_SPECIAL
    inner = Tokenizer(models.WordLevel(known, unk_token=unknown))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", special_tokens=[(first, known[first]), (last, known[last])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=pad,
        unk_token=unknown,
        cls_token=first,
        sep_token=last,
        mask_token=mask,
        bos_token=first,
        eos_token=last,
    )


def _bert(**values: Any) -> PretrainedConfig:
    from transformers import BertConfig

    return BertConfig(**{**_sizes("bert"), **values})


def _roberta(**values: Any) -> PretrainedConfig:
    from transformers import RobertaConfig

    # 42 rows of positions for 40 tokens; one kind of segment, as in the published checkpoints.
    own = {"max_position_embeddings": 42, "type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    return RobertaConfig(**{**_sizes("roberta"), **own, **values})


def _deberta(**values: Any) -> PretrainedConfig:
    from transformers import DebertaV2Config

    # As DeBERTa-v3: positions are relative only, in buckets shared by keys and queries.
    own = {
        "relative_attention": True,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "type_vocab_size": 0,
    }
    return DebertaV2Config(**{**_sizes("deberta-v2"), **own, **values})


def _distilbert(**values: Any) -> PretrainedConfig:
    from transformers import DistilBertConfig

    own = {
        "vocab_size": len(vocabulary("distilbert")),
        "dim": HIDDEN,
        "n_layers": LAYERS,
        "n_heads": 2,
        "hidden_dim": 24,
    }
    return DistilBertConfig(**{**own, "max_position_embeddings": 40, "pad_token_id": 0, **values})


def _modernbert(**values: Any) -> PretrainedConfig:
    from transformers import ModernBertConfig

    own = {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3, "local_attention": 8}
    return ModernBertConfig(**{**_sizes("modernbert"), **own, **values})


def _sizes(family: str) -> dict[str, Any]:
    return {
        "vocab_size": len(vocabulary(family)),
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 40,
        "pad_token_id": 0,
    }


FAMILIES: dict[str, Callable[..., PretrainedConfig]] = {
    "bert": _bert,
    "roberta": _roberta,
    "deberta-v2": _deberta,
    "distilbert": _distilbert,
    "modernbert": _modernbert,
}


def encoder(folder: Path, family: str = "bert", seed: int = 0, **values: Any) -> Path:
    """Write an encoder of a family with random weights and its tokenizer; ``values`` win over the small sizes."""
    torch.manual_seed(seed)
    network = AutoModel.from_config(FAMILIES[family](**values))
    # Trained embeddings are far larger than fresh ones (0.02), among which every text looks alike.
    with torch.no_grad():
        network.get_input_embeddings().weight.mul_(20.0)
    network.save_pretrained(folder)
    tokenizer(family).save_pretrained(folder)
    return folder


def config(**values: Any) -> TextConfig:
    """Small settings; ``values`` win."""
    model = values.get("model", "encoder" if values.get("encoder") else "textcnn")
    own: dict[str, Any] = {"max_tokens": 24}
    if model in ("textcnn", "bigru"):
        own |= {"embedding_width": 8, "hash_buckets": 256}
        own |= {"filters": 4} if model == "textcnn" else {"gru_units": 6}
    return TextConfig.build({**own, **values})
