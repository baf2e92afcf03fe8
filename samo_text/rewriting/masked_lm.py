"""Words replaced by what a masked language model would write in their place."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from samo.errors import ModelFileError
from samo_text.rewriting.pretrained import read_model
from samo_text.rewriting.words import (
    Piece,
    how_many,
    in_case_of,
    is_negation,
    join_pieces,
    pieces_of,
    sample,
    word_places,
)

__all__ = ["MaskedWords"]

_BATCH = 32
# The model's first guesses; a word further down fits too badly.
_TOP = 20
# How subword vocabularies mark a token that begins a word (byte-level BPE, SentencePiece) or goes on with one.
_BEGIN = ("\u0120", "\u2581")
_GOES_ON = "##"


class MaskedWords:
    """Replaces words by likely ones.

    After contextual augmentation (Kobayashi 2018, "Contextual Augmentation: Data Augmentation by Words with
    Paradigmatic Relations"), with any masked language model and in one pass: all chosen words are masked at once. His
    model knew the label, this one does not, so that *happy* may become *sad*: use it with a small strength. Whole
    words are masked and only tokens that are whole words are taken; placeholders, links, emoji and negations stay.
    """

    deterministic = False

    def __init__(self, place: str, strength: float, device: torch.device) -> None:
        """Read a model.

        Args:
            place: a folder, or a name on the Hugging Face hub.
            strength: share of the words to replace, in (0, 1].
            device: where it runs.

        Raises:
            ModelFileError: the folder holds no masked language model.
            EnvironmentProblem: a name that is neither on this machine nor reachable.
        """
        from transformers import AutoModelForMaskedLM

        self.tokenizer, self.model = read_model(
            AutoModelForMaskedLM, place, "masked_lm", "masked language model", device
        )
        if self.tokenizer.mask_token is None:
            raise ModelFileError(f"`masked_lm={place}` has no mask token, so it is no masked language model")
        self.strength = strength
        self.device = device
        longest = getattr(self.model.config, "max_position_embeddings", 512)
        # RoBERTa counts positions from the one behind its padding.
        self._longest = int(longest) - int(self.model.config.pad_token_id or 0) - 1
        self._words = self._whole_words()

    def rewrite(self, texts: Sequence[str], chances: Sequence[random.Random]) -> list[str]:
        """Each text with some of its words replaced; as it is where none may be."""
        cut = [pieces_of(text) for text in texts]
        chosen = [self._chosen(pieces, chance) for pieces, chance in zip(cut, chances, strict=True)]
        able = [number for number, places in enumerate(chosen) if places]
        for start in range(0, len(able), _BATCH):
            self._fill([(cut[number], chosen[number], chances[number]) for number in able[start : start + _BATCH]])
        return [join_pieces(pieces) for pieces in cut]

    def _chosen(self, pieces: list[Piece], chance: random.Random) -> list[int]:
        words = word_places(pieces)
        if not words or self.tokenizer.mask_token in join_pieces(pieces):
            return []
        free = [place for place in words if not is_negation(pieces[place].text)]
        return sample(free, how_many(self.strength, len(words)), chance)

    @torch.inference_mode()
    def _fill(self, rows: Sequence[tuple[list[Piece], list[int], random.Random]]) -> None:
        masked = []
        for pieces, places, _ in rows:
            shown = [self.tokenizer.mask_token if k in places else piece.text for k, piece in enumerate(pieces)]
            masked.append("".join(shown))
        batch = self.tokenizer(masked, return_tensors="pt", padding=True, truncation=True, max_length=self._longest)
        logits = self.model(**batch.to(self.device)).logits.float().cpu()
        logits[..., ~self._words] = -torch.inf
        is_mask = batch["input_ids"].cpu() == self.tokenizer.mask_token_id
        for (pieces, places, chance), scores, where in zip(rows, logits, is_mask, strict=True):
            # Masks behind the longest length are gone: those words stay.
            for place, row in zip(places, scores[where], strict=False):
                if word := self._drawn(row, pieces[place].text, chance):
                    pieces[place] = Piece("word", in_case_of(word, pieces[place].text))

    def _drawn(self, scores: torch.Tensor, old: str, chance: random.Random) -> str:
        """One of the likeliest words by its probability, never the old one."""
        values, ids = scores.topk(min(_TOP, int(self._words.sum())))
        names = [self._plain(token) for token in self.tokenizer.convert_ids_to_tokens(ids.tolist())]
        kept = [k for k, name in enumerate(names) if name.casefold() != old.casefold()]
        if not kept:
            return ""
        shares = torch.softmax(values[kept].double(), dim=0).cumsum(dim=0)
        return names[kept[min(int((shares < chance.random()).sum()), len(kept) - 1)]]

    def _whole_words(self) -> torch.Tensor:
        """(V,) bool: which columns of the logits are whole words, negations and special tokens apart."""
        vocabulary: dict[str, int] = self.tokenizer.get_vocab()
        special = set(self.tokenizer.all_special_ids)
        marks_begin = any(token.startswith(_BEGIN) and len(token) > 1 for token in vocabulary)
        whole = torch.zeros(self.model.config.vocab_size, dtype=torch.bool)
        for token, number in vocabulary.items():
            begins = token.startswith(_BEGIN) if marks_begin else not token.startswith(_GOES_ON)
            plain = self._plain(token)
            usable = plain.isascii() and plain.isalpha() and len(plain) > 1 and not is_negation(plain)
            if begins and usable and number not in special and number < len(whole):
                whole[number] = True
        if not whole.any():
            raise ModelFileError("the masked language model's vocabulary holds no whole word")
        return whole

    @staticmethod
    def _plain(token: str) -> str:
        return token.lstrip("".join(_BEGIN))
