"""Encoders of speech with random weights and their feature extractors, so small that a test takes no time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModel,
    Data2VecAudioConfig,
    HubertConfig,
    PretrainedConfig,
    UniSpeechConfig,
    UniSpeechSatConfig,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
)

HIDDEN, LAYERS = 16, 3
SR = 16_000

# Two convolutions that make a state of every 40 samples; the second norm of each kind is the larger models'.
_CONVOLUTIONS: dict[str, Any] = {
    "conv_dim": (8, 8),
    "conv_kernel": (20, 4),
    "conv_stride": (10, 4),
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}
_SIZES = {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": 24}
_STABLE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}

FAMILIES: dict[str, tuple[type[PretrainedConfig], dict[str, Any]]] = {
    "whisper": (WhisperConfig, {}),
    "wav2vec2": (Wav2Vec2Config, {}),
    "wav2vec2-large": (Wav2Vec2Config, _STABLE),
    "hubert": (HubertConfig, {}),
    "wavlm": (WavLMConfig, _STABLE),
    "data2vec-audio": (Data2VecAudioConfig, {"conv_pos_kernel_size": 3, "num_conv_pos_embeddings": 5}),
    "unispeech": (UniSpeechConfig, {}),
    "unispeech-sat": (UniSpeechSatConfig, {}),
}
# Those whose extractor gives a mask.
MASKED = ("wav2vec2-large", "wavlm", "data2vec-audio")


def configuration(family: str) -> PretrainedConfig:
    kind, own = FAMILIES[family]
    if family == "whisper":
        return WhisperConfig(
            d_model=HIDDEN,
            encoder_layers=LAYERS,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=24,
            decoder_ffn_dim=24,
            num_mel_bins=20,
            max_source_positions=100,
            vocab_size=50,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=3,
        )
    return kind(**{**_SIZES, **_CONVOLUTIONS, **own})


def extractor(family: str) -> Any:
    if family == "whisper":
        return WhisperFeatureExtractor(feature_size=20, sampling_rate=SR, n_fft=400, hop_length=160, chunk_length=2)
    return Wav2Vec2FeatureExtractor(
        sampling_rate=SR, do_normalize=family != "wavlm", return_attention_mask=family in MASKED
    )


def encoder(folder: Path, family: str = "whisper", seed: int = 0) -> Path:
    """Write an encoder of a family with random weights and its feature extractor."""
    torch.manual_seed(seed)
    network = AutoModel.from_config(configuration(family))
    # Fresh weights (0.02) hardly change what goes through them.
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1 and "embed" not in name:
                parameter.mul_(5.0)
    network.save_pretrained(folder)
    extractor(family).save_pretrained(folder)
    return folder
