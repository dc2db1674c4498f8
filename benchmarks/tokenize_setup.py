"""What the tokenization benchmark runs on: sizes, a HuBERT-shaped encoder with random weights, recipes."""

from dataclasses import dataclass
from typing import Any

import yaml

from data import storage


@dataclass(frozen=True)
class Sizes:
    """How much of everything. `encoder_s` is the time that all legs with the encoder may take together."""

    workload_s: float
    encoder_s: float
    rounds: int
    shard_utterances: int
    memory_s: tuple[float, float]
    memory_shard_utterances: int
    points: int
    encoder: dict[str, Any]
    codebook_size: int = 500


# HubertConfig's own defaults are the shape of HuBERT base, with group norm in the front end.
FULL = Sizes(360.0, 1050.0, 2, 2, (3600.0, 36000.0), 64, 20_000, {"feat_extract_norm": "group"})
QUICK = Sizes(
    40.0,
    120.0,
    1,
    1,
    (30.0, 60.0),
    1,
    2_000,
    {
        "feat_extract_norm": "group",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "conv_dim": [16] * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 2,
    },
    codebook_size=50,
)


def make_encoder(folder: str, sizes: Sizes, seed: int = 1) -> dict[str, Any]:
    """Write an encoder and centroids, both random; returns the configuration of an ssl_units tokenizer on its top."""
    import torch
    from safetensors.torch import save
    from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

    torch.manual_seed(seed)
    config = HubertConfig(**sizes.encoder)
    HubertModel(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    centroids_KD = torch.randn(sizes.codebook_size, config.hidden_size)
    kmeans_path = storage.join(folder, "kmeans", "centroids.safetensors")
    storage.write_bytes(kmeans_path, save({"centroids": centroids_KD}))
    return {
        "kind": "ssl_units",
        "path": storage.absolute(folder),
        "layer": config.num_hidden_layers,
        "codebook_size": sizes.codebook_size,
        "kmeans_path": storage.absolute(kmeans_path),
    }


def builtin_units() -> dict[str, Any]:
    """The configuration of a small tokenizer of the built-in kind."""
    return {"kind": "kmeans_units", "codebook_size": 100, "iterations": 5, "max_frames": 5000}


def write_recipe(path: str, runs_dir: str, manifest: str, tokenizer: dict[str, Any], shard_utterances: int) -> str:
    """A recipe that tokenizes `manifest` into one stream; returns its path."""
    recipe = {
        "name": "benchmark",
        "runs_dir": storage.absolute(runs_dir),
        "corpus": {"kind": "manifest", "manifest": manifest},
        "tokenizers": {"unit": tokenizer},
        "tokenize": {"shard_utterances": shard_utterances, "num_workers": 1},
        "grammar": {"templates": {"unit_lm": "[lm] | {unit} [eos]"}, "groups": {"lm": ["unit_lm"]}},
        "train": {"phases": [{"name": "only", "steps_fraction": 1.0, "weights": {"lm": 1.0}}]},
    }
    storage.write_text(path, yaml.safe_dump(recipe))
    return path
