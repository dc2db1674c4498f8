"""A tiny random CTC model, saved as its users save one."""

import json
from pathlib import Path

import torch

VOCABULARY = {"<pad>": 0, "|": 1, "A": 2, "B": 3, "C": 4, "'": 5}


def save_tiny_ctc(path: Path) -> None:
    """wav2vec 2.0 with letters a to c, 50 frames a second at 16 kHz."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    front = {"conv_dim": [16, 16], "conv_kernel": [10, 3], "conv_stride": [160, 2], "num_feat_extract_layers": 2}
    positions = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
    config = Wav2Vec2Config(vocab_size=len(VOCABULARY), pad_token_id=0, **shape, **front, **positions)
    Wav2Vec2ForCTC(config).save_pretrained(path)
    (path / "vocab.json").write_text(json.dumps(VOCABULARY))
    (path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True, "sampling_rate": 16000}))
