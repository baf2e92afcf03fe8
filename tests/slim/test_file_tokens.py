"""Ids by the text of a tokenizer are those that ``transformers`` gives, which a run was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from samo.errors import ModelFileError
from samo_text.tokens import EncoderTokens, FileTokens, HashTokens, Tokens, exported_tokens

TEXTS = [
    "a b c d e f g",
    "a",
    "",
    "  ",
    "[NAME] likes [RELIGION] b",
    "b\r\nc\x00",
    "\ud800 a",
    "unknown words " * 99,
    "a b c",
]
VOCABULARY = {word: k for k, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefg"])}


def encoder_tokens(side: str = "right", special: bool = True, max_tokens: int = 6) -> EncoderTokens:
    backend: Any = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", truncation_side=side
    )
    return EncoderTokens(tokenizer, max_tokens)


def stored(tokens: Tokens, max_tokens: int = 6) -> Tokens:
    return exported_tokens(tokens.to_json(), max_tokens, tokens.pad_id, "a.onnx")


def rows(tokens: Tokens, texts: list[str]) -> list[list[int]]:
    return [row.tolist() for row in tokens.encode(texts)]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("special", [True, False])
def test_ids_are_those_of_the_encoder(side: str, special: bool) -> None:
    tokens = encoder_tokens(side, special)
    # How the last call cut and padded stays behind in the tokenizer.
    tokens.tokenizer(["a b c", "a"], padding=True, truncation=True, max_length=2)
    read = stored(tokens)
    assert rows(read, TEXTS) == rows(tokens, TEXTS)
    assert [read.cut_at(text) for text in TEXTS] == [tokens.cut_at(text) for text in TEXTS]
    assert all(row.dtype == np.int64 for row in read.encode(TEXTS))
    assert rows(stored(read), TEXTS) == rows(tokens, TEXTS)


def test_ids_by_hand() -> None:
    """[CLS], four words and [SEP] are the six tokens; placeholders come behind the vocabulary."""
    read = stored(encoder_tokens())
    assert rows(read, ["a b c d e f g", "a", ""]) == [[2, 4, 5, 6, 7, 3], [2, 4, 3], [2, 3]]
    assert rows(stored(encoder_tokens("left")), ["a b c d e f g"]) == [[2, 7, 8, 9, 10, 3]]
    assert rows(read, ["[NAME] a [RELIGION]"]) == [[2, 11, 4, 12, 3]]
    assert (read.cut_at("a b c d"), read.cut_at("a b c d e")) == (None, 6)


def test_hashed_words_need_no_vocabulary() -> None:
    tokens = HashTokens(6)
    read = stored(tokens)
    assert rows(read, TEXTS) == rows(tokens, TEXTS)
    assert read.digest == tokens.digest


def test_no_room_beside_special_tokens() -> None:
    with pytest.raises(ModelFileError, match="2 tokens leave no room beside 2 special ones"):
        stored(encoder_tokens(), 2)


def test_other_tokenizers_have_other_digests() -> None:
    text = encoder_tokens().to_json()["tokenizer"]
    digests = {FileTokens(text, n, 0).digest for n in (6, 7)} | {FileTokens(text.replace('"a"', '"z"'), 6, 0).digest}
    assert len(digests) == 3


@pytest.mark.real
def test_ids_of_minilm(minilm_root: Path) -> None:
    tokens = EncoderTokens.load(str(minilm_root), 16)
    texts = [*TEXTS, "Naïve café 😀 it's [NAME]'s", "中文 text", "x" * 3000]
    assert rows(stored(tokens, 16), texts) == rows(tokens, texts)
