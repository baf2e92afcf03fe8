"""Pretrained encoders of speech: Whisper's encoder half, and those of the wav2vec 2.0 kind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from samo.encoders import pretrained
from samo.encoders.hub import NO_CODE, offline, quiet, reading, source_of
from samo.errors import ModelFileError
from samo.files import parse_json, write_json
from samo_audio.extractors import FACTS

__all__ = ["from_assets", "is_whisper", "load_pretrained", "save_sizes"]

WHISPER = "whisper"
# All take a waveform and say how many states they make of it.
WAVEFORM = ("wav2vec2", "hubert", "wavlm", "data2vec-audio", "unispeech", "unispeech-sat")
_EXTRACTORS = {WHISPER: "WhisperFeatureExtractor"} | dict.fromkeys(WAVEFORM, "Wav2Vec2FeatureExtractor")
_FACTS_NAME = "preprocessor_config.json"


def load_pretrained(place: str) -> tuple[Any, dict[str, Any]]:
    """Read a pretrained encoder of speech and what is known of its feature extractor.

    Returns:
        See :func:`samo.encoders.pretrained.load_pretrained`; and :data:`samo_audio.extractors.FACTS` by name.

    Raises:
        ModelFileError, EnvironmentProblem: as there; also a model of something else than speech.
    """
    return pretrained.load_pretrained(place, refuse_others, _half), read_facts(place)


def from_assets(folder: Path) -> tuple[Any, dict[str, Any]]:
    """What :func:`save_sizes` described, the weights undefined until they are loaded.

    Raises:
        ModelFileError: no description there, or a damaged one.
    """
    network = pretrained.from_assets(folder, _half)
    try:
        facts = parse_json((folder / _FACTS_NAME).read_bytes())
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{folder / _FACTS_NAME} does not describe a feature extractor: {error}") from error
    return network, _checked(str(folder), network.config.model_type, facts)


def save_sizes(place: str, folder: Path) -> None:
    """Write what :func:`from_assets` reads.

    Raises:
        ModelFileError, EnvironmentProblem: see :func:`load_pretrained`.
    """
    pretrained.save_config(pretrained.read_config(place, refuse_others), folder)
    write_json(folder / _FACTS_NAME, read_facts(place))


def read_facts(place: str) -> dict[str, Any]:
    """What decides the features of an encoder, by the names of its ``preprocessor_config.json``.

    Raises:
        ModelFileError, EnvironmentProblem: it cannot be read, or is of another kind.
    """
    from transformers import AutoFeatureExtractor

    family = pretrained.read_config(place, refuse_others).model_type
    with quiet(), reading(place, "feature extractor"):
        found = AutoFeatureExtractor.from_pretrained(
            source_of(place), local_files_only=offline(place), **NO_CODE
        ).to_dict()
    return _checked(place, family, {name: found[name] for name in FACTS if name in found})


def is_whisper(config: Any) -> bool:
    """Whether a configuration is one of Whisper."""
    return bool(config.model_type == WHISPER)


def refuse_others(place: str, config: Any) -> None:
    """Only encoders of speech are taken; what of them would draw at random outside SAMO's own generators is off.

    Raises:
        ModelFileError: the configuration is of something else.
    """
    if config.model_type not in _EXTRACTORS:
        raise ModelFileError(
            f"`encoder={place}`: '{config.model_type}' is no encoder of speech that SAMO knows",
            hint=f"valid: {', '.join(_EXTRACTORS)}",
        )
    # Masks of their own come from numpy's global generator; without them the vector that fills them is not needed.
    for name in ("mask_time_prob", "mask_feature_prob", "layerdrop", "encoder_layerdrop"):
        if hasattr(config, name):
            setattr(config, name, 0.0)
    config.apply_spec_augment = False
    # Behind an adapter states stand for more time than their lengths say.
    if getattr(config, "add_adapter", False):
        config.add_adapter = False


def _checked(place: str, family: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    kind = facts.get("feature_extractor_type")
    if kind != _EXTRACTORS.get(family):
        raise ModelFileError(f"`encoder={place}`: '{kind}' is not the feature extractor of '{family}'")
    return dict(facts)


def _half(config: Any) -> pretrained.Half | None:
    """Of Whisper the encoder, with or without the decoder's weights beside its own."""
    if not is_whisper(config):
        return None
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    return WhisperEncoder, {r"^(?:model\.)?encoder\.": ""}
