"""Words and subwords as ids: exact on small texts, the same after saving, cached."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from samo.encoders import hub
from samo.errors import EnvironmentProblem, ModelFileError, SettingsError
from samo_text.config import TextConfig
from samo_text.tokens import (
    EncoderTokens,
    HashTokens,
    TokenLists,
    about_cut,
    open_tokens,
    readable,
    token_lists,
    word_hash,
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path / "cache"))


def words(text: str, max_tokens: int = 16) -> list[int]:
    return HashTokens(max_tokens).encode([text])[0].tolist()


def test_a_word_is_the_first_62_bits_of_its_blake2b_digest():
    digest = hashlib.blake2b(b"love", digest_size=8).digest()
    assert words("Love") == [int.from_bytes(digest, "little") & ((1 << 62) - 1)]


def test_words_marks_and_apostrophes():
    assert words("I can't, [NAME]!") == [word_hash(w) for w in ("i", "can't", ",", "[NAME]", "!")]


@pytest.mark.parametrize("text", ["", "  \t", "\r\n"])
def test_a_text_without_words_is_one_token_of_its_own(text):
    assert words(text) == [word_hash("")]
    assert word_hash("") > 0


def test_long_texts_are_cut():
    assert len(words("so " * 50, max_tokens=8)) == 8
    assert words("so " * 1_000_000, max_tokens=4) == [word_hash("so")] * 4


def test_no_hash_pads():
    assert min(words("a b c d e f g")) > HashTokens.pad_id


def test_readable_mends_what_no_tokenizer_takes():
    assert readable("a\ud83db", 8) == "a\ufffdb"
    assert readable("a\x00b\r\n", 8) == "a\ufffdb"
    assert readable("cafe\u0301", 8) == "caf\u00e9"
    assert readable("😂 ok", 8) == "😂 ok"


def test_the_longest_length_is_part_of_the_digest():
    assert HashTokens(8).digest != HashTokens(9).digest
    assert HashTokens(8).digest == HashTokens(8).digest


def test_lists_are_cached_and_read_back(tmp_path, monkeypatch):
    tokens = HashTokens(8)
    texts = ["one two", "three"]
    seen: list[tuple[int, int]] = []
    first = token_lists(tokens, texts, lambda done, total: seen.append((done, total)))
    assert seen == [(2, 2)]
    monkeypatch.setattr(tokens, "encode", lambda texts: pytest.fail("tokenised twice"))
    again = token_lists(tokens, texts)
    assert [again.row(k).tolist() for k in (0, 1)] == [first.row(k).tolist() for k in (0, 1)]
    assert again.lengths.tolist() == [2, 1]


def test_other_texts_are_not_taken_for_cached_ones():
    tokens = HashTokens(8)
    token_lists(tokens, ["one two"])
    assert token_lists(tokens, ["one", "two"]).lengths.tolist() == [1, 1]
    assert token_lists(tokens, ["onetwo"]).row(0).tolist() == words("onetwo")


def test_a_damaged_cache_is_made_again(tmp_path):
    tokens = HashTokens(8)
    token_lists(tokens, ["one two"])
    (stored,) = (tmp_path / "cache" / "tokens").iterdir()
    stored.write_bytes(stored.read_bytes()[:40])
    assert token_lists(tokens, ["one two"]).row(0).tolist() == words("one two")


def test_rows_of_token_lists():
    lists = TokenLists.of([np.array([1, 2]), np.array([3]), np.array([4, 5, 6])])
    assert [lists.row(k).tolist() for k in range(3)] == [[1, 2], [3], [4, 5, 6]]
    assert len(lists) == 3


@pytest.fixture
def folder(tmp_path) -> Path:
    """A word-level tokenizer as a pretrained encoder has it beside its weights."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: k for k, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "i", "love", "you"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    fast.save_pretrained(tmp_path / "encoder")
    (tmp_path / "encoder" / "config.json").write_text('{"model_type": "bert"}')
    return tmp_path / "encoder"


def test_subwords_with_special_tokens_and_placeholders(folder):
    tokens = EncoderTokens.load(str(folder), 16)
    assert tokens.encode(["I love [NAME]", ""])[0].tolist() == [2, 4, 5, 7, 3]
    assert len(tokens) == 9
    assert tokens.encode([""])[0].tolist() == [2, 3]
    assert tokens.encode(["love " * 40])[0].tolist() == [2, *[5] * 14, 3]


def test_saved_tokens_are_the_same_tokens(folder, tmp_path):
    tokens = EncoderTokens.load(str(folder), 16)
    tokens.encode(["I love you"])  # cutting leaves its traces in the tokenizer
    tokens.save(tmp_path / "assets")
    config = TextConfig.build({"encoder": "/gone", "max_tokens": 16})
    again = open_tokens(config, tmp_path / "assets")
    assert again.digest == tokens.digest
    assert again.encode(["[RELIGION] you"])[0].tolist() == tokens.encode(["[RELIGION] you"])[0].tolist()


def test_words_need_no_assets(tmp_path):
    HashTokens(8).save(tmp_path / "assets")
    assert not (tmp_path / "assets").exists()
    assert isinstance(open_tokens(TextConfig.build({}), tmp_path / "assets"), HashTokens)


def test_no_room_beside_special_tokens(folder):
    config = TextConfig.build({"encoder": str(folder), "max_tokens": 4})
    assert open_tokens(config)
    tokenizer = EncoderTokens.load(str(folder), 4).tokenizer
    assert tokenizer.num_special_tokens_to_add() == 2


@pytest.mark.parametrize(
    ("place", "line"),
    [("/no/such/folder", "there is no such folder"), ("{tmp}", "so it is no pretrained model")],
)
def test_a_wrong_folder_is_one_line(place, line, tmp_path):
    with pytest.raises(ModelFileError, match=line):
        EncoderTokens.load(place.format(tmp=tmp_path), 16)


def test_a_name_without_a_net_is_one_line(monkeypatch):
    monkeypatch.setattr(hub, "_hub_answers", lambda: False)
    with pytest.raises(EnvironmentProblem, match="the hub cannot be reached and this machine has no copy") as caught:
        EncoderTokens.load("nobody/no-encoder", 16)
    assert "another `model`" in caught.value.hint


def test_encoder_without_padding_token(folder):
    tokens = EncoderTokens.load(str(folder), 16)
    tokens.tokenizer.pad_token = None
    assert tokens.pad_id == 0


def test_encoder_setting_chooses_the_model():
    assert TextConfig.build({"encoder": "x"}).model.model == "encoder"
    assert TextConfig.build({}).model.model == "textcnn"
    with pytest.raises(SettingsError, match="`model=encoder` needs `encoder`"):
        TextConfig.build({"model": "encoder"})
    with pytest.raises(SettingsError, match="`encoder` acts only together with `model=encoder`"):
        TextConfig.build({"model": "bigru", "encoder": "x"})


def test_texts_whose_end_is_cut_are_counted() -> None:
    texts = ["one two three four", "one two three four five", "a b c d e f", "a"]
    tokens = HashTokens(4)
    line = "2 of 4 texts are longer than 4 tokens: the rest is cut off (`max_tokens`)"
    assert about_cut(tokens, texts) == [line]
    assert about_cut(tokens, texts, token_lists(tokens, texts)) == [line]
    assert about_cut(HashTokens(5), texts) == [
        "1 of 4 texts is longer than 5 tokens: the rest is cut off (`max_tokens`)"
    ]
    assert about_cut(HashTokens(6), texts) == []
