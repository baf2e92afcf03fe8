"""A BERT with random weights, so small that a test takes no time."""

from __future__ import annotations

from pathlib import Path

import torch
from sentence_table import FILLERS, WORDS
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def small_bert(folder: Path, seed: int = 0) -> Path:
    """Write an encoder whose vocabulary are the words of :mod:`sentences`, and its tokenizer."""
    words = [*SPECIAL, *dict.fromkeys((*FILLERS, *(word for own in WORDS.values() for word in own)))]
    known = {word: k for k, word in enumerate(words)}
    inner = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(name, known[name]) for name in ("[CLS]", "[SEP]")]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    network = BertModel(BertConfig(vocab_size=len(known), max_position_embeddings=40, **sizes))
    # Trained embeddings are far larger than fresh ones, among which every text looks alike.
    with torch.no_grad():
        network.get_input_embeddings().weight.mul_(20.0)
    network.save_pretrained(folder)
    return folder
