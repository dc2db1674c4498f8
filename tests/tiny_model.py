"""A tiny model folder with random weights, made by the parts that make a real one."""

from pathlib import Path

import numpy as np

from data.config import GrammarConfig
from data.store import StreamInfo
from data.text_tokenizer import build_byte_words_tokenizer
from data.vocabulary import build_vocabulary
from model.config import AudioTokenizerConfig, KMeansUnits, LanguageModelConfig, ResidualKMeans

TEMPLATES = {
    "asr": "[asr] {unit} | [text] {text} [eos]",
    "tts": "[tts] {speaker} {text} | [speech] {unit} [eos]",
    "unit_lm": "[lm] | {unit} [eos]",
    "text_to_music": "[music] {caption} | {music} [eos]",
    "music_to_caption": "[caption] {music} | {caption} [eos]",
    "s2s": "[chain] [s2s] {unit} {speaker} | [tq] {text} [ta] {response.text} [ua] {response.unit} [eos]",
    "s2t": "[chain] [s2t] {unit} | [tq] {text} [ta] {response.text} [eos]",
    "t2s": "[chain] [t2s] {text} {speaker} | [ta] {response.text} [ua] {response.unit} [eos]",
    "t2t": "[chain] [t2t] {text} | [ta] {response.text} [eos]",
}


def make_tiny_model_folder(root: Path) -> str:
    """A model folder of 30 k parameters: two streams, two voices, a vocoder."""
    import torch

    from model.audio_tokenizers.base import fit_audio_tokenizer
    from model.export import export_model
    from model.lm import build_language_model
    from model.vocoders.unit_mel import UnitMelNetwork, UnitMelShape, UnitMelVocoder

    rng = np.random.default_rng(0)
    text_tokenizer = build_byte_words_tokenizer(["three", "four", "five"])
    streams, folders = {}, {}
    configs: dict[str, tuple[AudioTokenizerConfig, int]] = {
        "unit": (KMeansUnits(kind="kmeans_units", codebook_size=8, iterations=2), 39),
        "music": (ResidualKMeans(kind="residual_kmeans", num_codebooks=2, codebook_size=8, iterations=2), 80),
    }
    for name, (config, width) in configs.items():
        tokenizer = fit_audio_tokenizer(config, rng.normal(size=(64, width)).astype(np.float32), seed=1)
        folders[name] = str(root / "tokenizers" / name)
        tokenizer.save(folders[name])
        streams[name] = StreamInfo(25.0, tokenizer.num_codebooks, 8, "test")
    shape = UnitMelShape("unit", 25.0, 8, 16000, ("ann", "bob"), channels=8, griffin_lim_iterations=2)
    torch.manual_seed(4)
    UnitMelVocoder(UnitMelNetwork(shape).eval(), shape).save(str(root / "vocoder"))
    grammar = GrammarConfig(templates=TEMPLATES, groups={"all": tuple(TEMPLATES)})
    vocabulary = build_vocabulary(text_tokenizer, streams, grammar, ["ann", "bob"])
    lm = build_language_model(
        LanguageModelConfig(hidden_size=32, num_layers=2, num_heads=2, intermediate_size=48, max_positions=512),
        vocabulary,
        seed=3,
    )
    folder = root / "tiny"
    export_model(
        str(folder),
        lm,
        text_tokenizer,
        vocabulary,
        grammar,
        ["ann", "bob"],
        streams,
        folders,
        {"unit": str(root / "vocoder")},
    )
    return str(folder)
