"""Texts translated there and back."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch

from samo_text.rewriting.pretrained import read_model

__all__ = ["BackTranslation"]

_BATCH = 16
# A translation that goes on for much longer than its source repeats itself.
_LONGEST_FACTOR, _LONGEST_EXTRA = 2, 16
_LONGEST = 512


class BackTranslation:
    """Translates into another language and back.

    After Sennrich, Haddow & Birch (2016, "Improving Neural Machine Translation Models with Monolingual Data"), used to
    paraphrase as by Yu et al. (2018, QANet). Greedy, so that one text gives one other. The models take plain text
    (Marian and its like: a pair of languages each); those that want a language named first are not served. A
    text too long for the models stays as it is.
    """

    deterministic = True

    def __init__(self, there: str, back: str, device: torch.device) -> None:
        """Read two sequence-to-sequence models.

        Args:
            there: from the texts' language to another: a folder, or a name on the Hugging Face hub.
            back: the way back.
            device: where they run.

        Raises:
            ModelFileError: a folder without such a model.
            EnvironmentProblem: a name that is neither on this machine nor reachable.
        """
        from transformers import AutoModelForSeq2SeqLM

        self._ways = [
            read_model(AutoModelForSeq2SeqLM, place, "back_translation_models", "translation model", device)
            for place in (there, back)
        ]
        self.device = device

    def rewrite(self, texts: Sequence[str], chances: Sequence[random.Random]) -> list[str]:
        """Each text there and back; as it is where that went wrong."""
        translated = list(texts)
        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        for start in range(0, len(order), _BATCH):
            places = order[start : start + _BATCH]
            found = [texts[number] for number in places]
            for tokenizer, model in self._ways:
                found = self._translated(found, tokenizer, model)
            for number, text in zip(places, found, strict=True):
                if text.strip():
                    translated[number] = text
        return translated

    @torch.inference_mode()
    def _translated(self, texts: Sequence[str], tokenizer: Any, model: Any) -> list[str]:
        """One translation for each text; empty for an empty one, or one too long for the model."""
        longest = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None) or _LONGEST)
        ids = tokenizer(list(texts))["input_ids"]
        usable = [number for number, row in enumerate(ids) if texts[number].strip() and len(row) <= longest]
        translated = [""] * len(texts)
        if not usable:
            return translated
        batch = tokenizer([texts[number] for number in usable], return_tensors="pt", padding=True).to(self.device)
        width = batch["input_ids"].shape[1]
        made = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            do_sample=False,
            num_beams=1,
            max_new_tokens=min(longest - 1, _LONGEST_FACTOR * width + _LONGEST_EXTRA),
        )
        for number, text in zip(usable, tokenizer.batch_decode(made, skip_special_tokens=True), strict=True):
            translated[number] = " ".join(text.split())
        return translated
