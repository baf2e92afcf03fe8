"""Reading the models that rewrite texts."""

from __future__ import annotations

from typing import Any

import torch

from samo.encoders.hub import NO_CODE, offline, quiet, reading, source_of
from samo.errors import ModelFileError, first_few

__all__ = ["read_model"]


def read_model(kind: Any, place: str, setting: str, what: str, device: torch.device) -> tuple[Any, Any]:
    """A tokenizer and a model, ready to be asked.

    Args:
        kind: the ``transformers.AutoModelFor...`` that reads it.
        place: a folder, or a name on the Hugging Face hub.
        setting: what named the place.
        what: what the model should be, for messages.
        device: where it runs.

    Raises:
        ModelFileError: a folder without such a model, or one whose weights lack some of it.
        EnvironmentProblem: a name that is neither on this machine nor reachable.
    """
    from transformers import AutoTokenizer

    with quiet(), reading(place, what, setting):
        here = offline(place)
        tokenizer = AutoTokenizer.from_pretrained(source_of(place), local_files_only=here, **NO_CODE)
        model, found = kind.from_pretrained(
            source_of(place), local_files_only=here, output_loading_info=True, **NO_CODE
        )
    if missing := sorted(found["missing_keys"]):
        # transformers would fill them with random numbers, and the model write nonsense.
        raise ModelFileError(f"`{setting}={place}` is no {what}; its weights lack {first_few(missing, 2)}")
    return tokenizer, model.to(device).eval()
