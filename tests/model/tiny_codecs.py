"""Tiny random codecs of the real classes, with codebooks that differ (their own initialisation is all zeros)."""

from typing import Any

import torch

SMALL_DAC = {
    "encoder_hidden_size": 8,
    "downsampling_ratios": [2, 4, 5, 8],
    "decoder_hidden_size": 32,
    "codebook_dim": 4,
}


def encodec(**changes: Any) -> Any:
    """EnCodec at 24 kHz: causal, 4 codebooks of 64 codes at 75 Hz, unless `changes` says otherwise."""
    from transformers import EncodecConfig, EncodecModel

    shape = {"num_filters": 4, "hidden_size": 16, "codebook_size": 64, "target_bandwidths": [0.45, 0.9, 1.8]}
    return _settled(EncodecModel(EncodecConfig(**{**shape, **changes})))


def encodec_music() -> Any:
    """The shape of EnCodec at 32 kHz: 4 x 2048 codes at 50 Hz, convolutions that look both ways."""
    return encodec(
        sampling_rate=32000,
        upsampling_ratios=[8, 5, 4, 4],
        codebook_size=2048,
        target_bandwidths=[2.2],
        use_causal_conv=False,
        use_conv_shortcut=False,
    )


def mimi() -> Any:
    """4 codebooks of 64 codes at 12.5 Hz, the first semantic; two layers that see 8 frames each."""
    from transformers import MimiConfig, MimiModel

    config = MimiConfig(
        num_filters=4,
        hidden_size=32,
        codebook_size=64,
        codebook_dim=16,
        vector_quantization_hidden_dimension=16,
        num_quantizers=4,
        upsample_groups=32,
        num_hidden_layers=2,
        intermediate_size=32,
        num_attention_heads=2,
        num_key_value_heads=2,
        sliding_window=8,
    )
    return _settled(MimiModel(config))


def dac() -> Any:
    """5 codebooks of 64 codes at 50 Hz."""
    from transformers import DacConfig, DacModel

    return _settled(DacModel(DacConfig(n_codebooks=5, codebook_size=64, **SMALL_DAC)))


def xcodec() -> Any:
    """4 codebooks of 64 codes at 50 Hz over DAC and HuBERT features."""
    from transformers import XcodecConfig, XcodecModel

    acoustic = {"model_type": "dac", "hidden_size": 32, **SMALL_DAC, "downsampling_ratios": [8, 5, 4, 2]}
    acoustic |= {"encoder_hidden_size": 2, "upsampling_ratios": [8, 5, 4, 2]}
    semantic = {
        "model_type": "hubert",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "conv_dim": [8] * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 2,
    }
    config = XcodecConfig(
        codebook_size=64,
        target_bandwidths=[0.3, 0.6, 1.2],
        acoustic_model_config=acoustic,
        semantic_model_config=semantic,
    )
    return _settled(XcodecModel(config))


def _settled(model: Any) -> Any:
    """Codebooks that lie where the latents of noise do, so that every codebook's codes vary."""
    generator = torch.Generator().manual_seed(0)
    mean, scale = _latents_of_noise(model, generator)
    for name, values in model.named_buffers():
        if name.endswith((".embed", ".embed_sum")):
            first = ".layers.0." in name or ".quantizers.0." in name
            drawn = torch.randn(values.shape, generator=generator) * scale
            values.data.copy_(drawn + mean if first else drawn / 2)
    return model.eval()


@torch.no_grad()
def _latents_of_noise(model: Any, generator: torch.Generator) -> tuple[torch.Tensor | float, float]:
    if model.config.model_type != "encodec":
        return 0.0, 0.1
    latents_1CT = model.eval().encoder(torch.randn(1, 1, 16000, generator=generator) * 0.3)
    return latents_1CT.mean((0, 2)), float(latents_1CT.std(2).mean())
