"""Written pairs and dialogues -> spoken records, with the built-in voices and tokenizers fitted on what they say."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from data.config import GrammarConfig
from data.corpus.espeak_speaker import EspeakSpeaker
from data.corpus.music import sample_attributes, synthesize_music
from data.corpus.spoken_dialogues import Dialogue, Sound, Speaker, Turn, build_dialogues, build_quadruples
from data.grammar.formats.anygpt_chat import AnyGptChat, Party
from data.grammar.formats.speechgpt import SpeechGptChain
from data.grammar.template import build_grammars
from data.store import StreamInfo, TokenStore, write_shard
from data.text_tokenizer import build_byte_words_tokenizer
from data.vocabulary import build_vocabulary
from model.audio_tokenizers.kmeans_units import KMeansUnitTokenizer
from model.audio_tokenizers.residual_kmeans import ResidualKMeansTokenizer
from model.config import KMeansUnits, ResidualKMeans

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason="espeak-ng is not installed"
)
STREAMS = {"unit": StreamInfo(25.0, 1, 16, "k"), "music": StreamInfo(25.0, 2, 8, "r")}
PARTIES = (
    Party(name="ann", marker="[Ann]", end="<eoh>"),
    Party(name="bob", marker="[Bob]", end="<eoh>"),
    Party(name="model", marker="[Model]", end="<eom>", answers=True),
)
GRAMMAR = GrammarConfig(
    formats={"chain": SpeechGptChain(weights={"s2s": 1.0}), "chat": AnyGptChat(parties=PARTIES)}, groups={}
)


@pytest.fixture(scope="module")
def speaker() -> EspeakSpeaker:
    """The built-in voice, and units fitted on some of its sentences."""

    class Kept:
        """Hands the waves on."""

        sample_rate = 16000

        def __init__(self) -> None:
            self.waves: list[np.ndarray] = []

        def encode(self, waves: Sequence[np.ndarray]) -> list[np.ndarray]:
            self.waves += waves
            return [np.zeros((1, 1), np.int16) for _ in waves]

    kept = Kept()
    EspeakSpeaker({"unit": kept})([("one two three four", "en-US"), ("what is your name", "en-US+f2")])
    config = KMeansUnits(kind="kmeans_units", codebook_size=16, iterations=5)
    features = np.concatenate([KMeansUnitTokenizer.features_of(config, wave) for wave in kept.waves])
    return EspeakSpeaker({"unit": KMeansUnitTokenizer.fit(config, features, seed=1)})


def play(captions: Sequence[str]) -> list[Sound]:
    """Music of the built-in composer, as codes fitted on itself."""
    draws = [np.random.default_rng(index) for index, _ in enumerate(captions)]
    waves = [synthesize_music(sample_attributes(rng), rng, 1.0, 16000) for rng in draws]
    config = ResidualKMeans(kind="residual_kmeans", num_codebooks=2, codebook_size=8, iterations=3)
    features = np.concatenate([ResidualKMeansTokenizer.features_of(config, wave) for wave in waves])
    tokenizer = ResidualKMeansTokenizer.fit(config, features, seed=1)
    return [Sound({"music": codes.reshape(-1)}, 1.0) for codes in tokenizer.encode(waves)]


def grammars() -> dict:
    tokenizer = build_byte_words_tokenizer(["one"])
    return build_grammars(GRAMMAR, build_vocabulary(tokenizer, STREAMS, GRAMMAR, []), tokenizer, STREAMS)


def test_pairs_become_spoken_quadruples_that_survive_store_and_grammar(speaker: EspeakSpeaker, tmp_path: Path) -> None:
    pairs = [("what is two plus two", "it is four"), ("who are you", "a " * 35), ("say one", "one")]
    built = build_quadruples(pairs, speaker, ["en-US", "en-US+f2"], "en-US", seed=4)
    assert [row["reason"] for row in built.dropped] == ["too_long"]
    write_shard(str(tmp_path / "0.parquet"), built.records, {"unit": STREAMS["unit"]})
    chain = grammars()["chain"]
    shown = [record for record in TokenStore.open(str(tmp_path)).records if chain.accepts(record)]
    assert [(record.text, record.response.text) for record in shown] == [pairs[0], pairs[2]]
    for record in shown:
        rendered = chain.render(record)
        assert chain.parse(rendered.ids) == rendered.segments
        question, text, answer, spoken = rendered.segments
        assert (text.content, answer.content) == (record.text, record.response.text)
        assert 3 < len(set(question.content)) <= 16
        assert len(spoken.content) > 3
    again = build_quadruples(pairs, speaker, ["en-US", "en-US+f2"], "en-US", seed=4)
    assert [r.streams["unit"].tolist() for r in again.records] == [r.streams["unit"].tolist() for r in built.records]


def test_three_parties_speak_write_and_play(speaker: EspeakSpeaker, tmp_path: Path) -> None:
    turns = [
        Turn("ann", "play something slow", spoken=True),
        Turn("bob", "but not too sad", spoken=False),
        Turn("model", "here it is", caption="slow piano"),
        Turn("ann", "thank you both", spoken=True),
        Turn("model", "you are welcome", spoken=True),
    ]
    voices = {"ann": ("en-US+f2",), "bob": ("en-US",), "model": ("en-US",)}
    parties = tuple(Speaker(p.name, voices[p.name], p.answers) for p in PARTIES)
    built = build_dialogues([Dialogue(turns)], parties, speaker, play)
    assert not built.dropped
    write_shard(str(tmp_path / "0.parquet"), built.records, STREAMS)
    chat = grammars()["chat"]
    (first,) = [record for record in TokenStore.open(str(tmp_path)).records if chat.accepts(record)]
    rendered = chat.render(first)
    assert chat.parse(rendered.ids) == rendered.segments
    shown = {segment.slot: segment.content for segment in rendered.segments}
    assert len(shown["response.response.music"]) == 50
    assert shown["response.text"] == "but not too sad"
    assert shown["response.response.response.text"] == "thank you both"  # what the model heard, written down first
    assert len(shown["unit"]) > 10
    assert shown["response.response.response.response.unit"] == tuple(built.records[4].streams["unit"].tolist())
