"""Tiny stand-ins for what the published recipes bring: corpora in their layouts, weights of the real classes."""

import json
from collections.abc import Callable
from pathlib import Path

from tokenizers.pre_tokenizers import ByteLevel

from tests.data.test_adapters_published import commonvoice, gigaspeech, librilight, librispeech, mls, sound
from tests.model.tiny_ssl import save_encoder


def _manifest(folder: Path) -> Path:
    sound(folder / "a.wav")
    (folder / "manifest.jsonl").write_text(json.dumps({"audio_filepath": "a.wav", "text": "hello"}) + "\n")
    return folder / "manifest.jsonl"


def _dataset(folder: Path) -> Path:
    from datasets import Audio, Dataset

    sound(folder.parent / "story.wav")
    rows = Dataset.from_dict({"audio": [str(folder.parent / "story.wav")], "text": ["once"]})
    rows.cast_column("audio", Audio(decode=False)).save_to_disk(str(folder))
    return folder


# name in the recipes -> its maker, and what the stand-in has otherwise than the corpus
CORPORA: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "librispeech": (librispeech, ("parts=[]",)),
    "librilight": (librilight, ("parts=[]",)),
    "mls": (mls, ("languages=[polish]",)),
    "commonvoice": (commonvoice, ("languages=[pl]",)),
    "gigaspeech": (gigaspeech, ()),
    "stinystories": (_dataset, ()),
    "quadruples": (_manifest, ()),
    "music": (_manifest, ()),
    "anyinstruct": (_manifest, ()),
}


def corpus_overrides(names: list[str], folder: Path) -> list[str]:
    """Make stand-ins of the corpora called `names` and say where they lie, as arguments of a job."""
    overrides = []
    for name in names:
        make, others = CORPORA[name]
        (folder / name).mkdir(parents=True)
        path = make(folder / name)
        key = "manifest" if path.is_file() else "path"
        overrides += [f"corpus.corpora.{name}.{field}" for field in (f"{key}={path}", *others)]
    return overrides


def brought_overrides(folder: Path) -> list[str]:
    """A HuBERT and a Qwen2 with its tokenizer, tiny and random, in place of a recipe's, as arguments of a job."""
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

    letters = {letter: place for place, letter in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Qwen2Tokenizer(vocab={**letters, "<|endoftext|>": len(letters)}, merges=[])
    tokenizer.save_pretrained(str(folder / "lm"))
    shape = Qwen2Config(vocab_size=len(tokenizer) + 8, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                        num_key_value_heads=1, intermediate_size=64, tie_word_embeddings=True)  # fmt: skip
    Qwen2ForCausalLM(shape).save_pretrained(folder / "lm")
    encoder = save_encoder(folder / "encoder")
    return [
        f"tokenizers.unit={{kind: ssl_units, path: {encoder}, layer: 2, codebook_size: 500, iterations: 2, "
        "compression: {kind: dedup}}",
        f"lm={{path: {folder}/lm, rope_theta: 10000, new_rows: random}}",
        f"text={{kind: pretrained, path: {folder}/lm}}",
    ]
