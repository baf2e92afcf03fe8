"""A WordNet of a handful of synsets in its own file format, and tiny models that rewrite."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import tiny_text as tiny
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForMaskedLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    T5Config,
    T5ForConditionalGeneration,
)

# Part of speech, lemmas; the first synset of a lemma is its most frequent sense.
SYNSETS = (
    ("n", ("dog", "domestic_dog")),
    ("n", ("dog", "cad")),
    ("n", ("anger", "ire")),
    ("v", ("love", "adore")),
    ("v", ("not_do", "refrain")),
    ("a", ("happy", "glad")),
    ("a", ("sad", "no_good")),
    ("r", ("slowly", "tardily")),
)
_FILES = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
_LICENCE = "  1 WordNet 3.0 Copyright 2006 by nobody: a handful of synsets for tests\n"


def wordnet(root: Path) -> Path:
    """Write ``corpora/wordnet`` below ``root`` as the WordNet 3.0 database files have it; returns ``root``."""
    folder = root / "corpora" / "wordnet"
    folder.mkdir(parents=True)
    for name in ("cntlist.rev", "index.sense"):
        (folder / name).write_text("")
    (folder / "lexnames").write_text("00\tadj.all\t3\n")
    for part, name in _FILES.items():
        data, index = _LICENCE, defaultdict(list)
        for _, lemmas in (entry for entry in SYNSETS if entry[0] == part):
            offset = len(data)
            words = " ".join(f"{lemma} 0" for lemma in lemmas)
            data += f"{offset:08d} 00 {part} {len(lemmas):02x} {words} 000 | made up\n"
            for lemma in lemmas:
                index[lemma].append(offset)
        lines = [
            f"{lemma} {part} {len(offsets)} 0 {len(offsets)} 0 {' '.join(f'{offset:08d}' for offset in offsets)}  \n"
            for lemma, offsets in sorted(index.items())
        ]
        (folder / f"data.{name}").write_text(data)
        (folder / f"index.{name}").write_text(_LICENCE + "".join(lines))
        (folder / f"{name}.exc").write_text("")
    return root


def masked_lm(folder: Path) -> Path:
    """BERT with random weights that writes the words of ``tiny_text.WORDS``."""
    torch.manual_seed(0)
    AutoModelForMaskedLM.from_config(tiny.FAMILIES["bert"]()).save_pretrained(folder)
    tiny.tokenizer("bert").save_pretrained(folder)
    return folder


def byte_level_lm(folder: Path) -> Path:
    """RoBERTa whose tokens say with a mark in front (U+0120) that a word begins; ``ad`` goes on with one."""
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "\u0120happy", "\u0120glad", "\u0120never", "ad", "\u0120s"]
    known = {word: k for k, word in enumerate(words)}
    inner = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    inner.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>", mask_token="<mask>", bos_token="<s>",
        eos_token="</s>", cls_token="<s>", sep_token="</s>",
    ).save_pretrained(folder)  # fmt: skip
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=42, type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    return folder


def translator(folder: Path, seed: int) -> Path:
    """T5 with random weights: it answers, and always the same."""
    known = tiny.vocabulary("bert")
    torch.manual_seed(seed)
    T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(known), d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2, decoder_start_token_id=0,
            pad_token_id=0, eos_token_id=3,
        )
    ).save_pretrained(folder)  # fmt: skip
    tiny.tokenizer("bert").save_pretrained(folder)
    return folder
