"""Tiny encoders of every supported architecture with random weights, saved to disk by the real classes."""

import json
from pathlib import Path

import torch

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": (16, 16, 16),
    "conv_kernel": (10, 8, 4),
    "conv_stride": (5, 8, 8),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 8,
    "mask_time_prob": 0.0,
}
# What each stands for: hubert-base, mhubert-147, hubert-large, wavlm-base, wavlm-large, wav2vec2-base, -large, data2vec
VARIANTS = {
    "hubert": {},
    "hubert_batch_norm": {"conv_pos_batch_norm": True, "feat_extract_norm": "layer", "do_stable_layer_norm": True},
    "hubert_large": {"feat_extract_norm": "layer", "do_stable_layer_norm": True},
    "wavlm": {},
    "wavlm_large": {"feat_extract_norm": "layer", "do_stable_layer_norm": True},
    "wav2vec2": {},
    "wav2vec2_large": {"feat_extract_norm": "layer", "do_stable_layer_norm": True},
    "data2vec": {"num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 5},
}


def save_encoder(folder: Path, variant: str = "hubert", do_normalize: bool = True, seed: int = 0) -> str:
    """A folder with config.json, model.safetensors and preprocessor_config.json. Weights are far from zero."""
    from transformers import (
        Data2VecAudioConfig,
        Data2VecAudioModel,
        HubertConfig,
        HubertModel,
        Wav2Vec2Config,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2Model,
        WavLMConfig,
        WavLMModel,
    )

    classes = {
        "hubert": (HubertConfig, HubertModel),
        "wavlm": (WavLMConfig, WavLMModel),
        "wav2vec2": (Wav2Vec2Config, Wav2Vec2Model),
        "data2vec": (Data2VecAudioConfig, Data2VecAudioModel),
    }
    config_class, model_class = classes[variant.split("_")[0]]
    torch.manual_seed(seed)
    model = model_class(config_class(**{**SHAPE, **VARIANTS[variant]}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:  # biases and norms begin at 0 and 1, which would hide a wrong padding
                parameter.add_(0.3 * torch.randn_like(parameter))
            elif "rel_attn_embed" in name:
                parameter.mul_(20)
        for name, buffer in model.named_buffers():
            if "running_mean" in name:
                buffer.normal_()
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=do_normalize).save_pretrained(folder)
    return str(folder)


def edit_json(path: Path, **values: object) -> None:
    """Change some keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
