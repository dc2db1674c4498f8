"""Records, a vocabulary and hypothesis strategies that the tests of all published formats share."""

from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from data.config import GrammarConfig
from data.durations import deduplicate
from data.grammar.base import Grammar
from data.grammar.formats import FormatConfig
from data.grammar.template import build_grammars
from data.store import Record
from data.text_tokenizer import build_byte_words_tokenizer
from data.vocabulary import Vocabulary, build_vocabulary

SPACES = {
    "unit": SimpleNamespace(num_codebooks=1, codebook_size=1000, frame_rate_hz=25.0),
    "pitch": SimpleNamespace(num_codebooks=1, codebook_size=64, frame_rate_hz=12.5),
    "style": SimpleNamespace(num_codebooks=1, codebook_size=100, frame_rate_hz=1.0),
    "music": SimpleNamespace(num_codebooks=4, codebook_size=64, frame_rate_hz=50.0),
}
TOKENIZER = build_byte_words_tokenizer(["one", "two", "three", "hello"])

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(lambda text: text.strip())


def build(config: FormatConfig, **others: FormatConfig) -> tuple[Grammar, Vocabulary]:
    """The grammar of one format under the name "task", and the vocabulary of it (and `others`)."""
    grammar = GrammarConfig(formats={"task": config, **others}, groups={})
    vocabulary = build_vocabulary(TOKENIZER, SPACES, grammar, [])
    return build_grammars(grammar, vocabulary, TOKENIZER, SPACES)["task"], vocabulary


def codes_of(size: int, min_size: int = 1, max_size: int = 60) -> st.SearchStrategy[np.ndarray]:
    """Codes with runs of equal ones."""
    runs = st.lists(st.tuples(st.integers(0, size - 1), st.integers(1, 5)), min_size=min_size, max_size=max_size)
    return runs.map(lambda pairs: np.repeat([c for c, _ in pairs], [n for _, n in pairs]).astype(np.int16))


@st.composite
def spoken_records(draw: Any, max_words: int = 25, stored: bool | None = None, shortest_s: float = 0.0) -> Record:
    """Records with text, units, pitch, style and words with times; whole or deduplicated in the store."""
    spoken = draw(
        st.lists(st.sampled_from(["one", "two", "three", "don't", "élan", "x"]), min_size=1, max_size=max_words)
    )
    lengths_s = draw(st.lists(st.floats(shortest_s, 0.5), min_size=len(spoken), max_size=len(spoken)))
    ends = np.cumsum(lengths_s)
    words = tuple(
        (word, float(end - length), float(end)) for word, end, length in zip(spoken, ends, lengths_s, strict=True)
    )
    frames = max(1, round(float(ends[-1]) * 25))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    streams = {
        "unit": np.repeat(rng.integers(0, 1000, frames), rng.integers(1, 4, frames))[:frames].astype(np.int16),
        "pitch": rng.integers(0, 3, max(1, frames // 2)).astype(np.int16),
        "style": rng.integers(0, 100, max(1, frames // 25)).astype(np.int16),
    }
    durations = {}
    if draw(st.booleans()) if stored is None else stored:
        streams["unit"], durations["unit"] = deduplicate(streams["unit"])
    text = " ".join(spoken) + draw(st.sampled_from(["", " extra", "."]))
    return Record("r", text=text, words=words, streams=streams, durations=durations)


def seeded(seed: int) -> np.random.Generator:
    """A fresh generator: the same draws for the same seed."""
    return np.random.default_rng(seed)


def check_contract(grammar: Grammar, record: Any, seed: int) -> list[Any]:
    """What holds of every grammar, record and seed; gives the segments."""
    assert grammar.accepts(record)
    rendered = grammar.render(record, seeded(seed))
    assert grammar.parse(rendered.ids) == rendered.segments
    assert grammar.measure(record, seeded(seed)) == len(rendered.ids) == len(rendered.loss_mask)
    ids, mask = grammar.tokens(record, seeded(seed))
    assert ids.tolist() == rendered.ids.tolist()
    assert mask.tolist() == rendered.loss_mask.tolist()
    assert ids.dtype == np.int32
    assert not mask[0]
    starts = [segment.start for segment in rendered.segments]
    assert starts == sorted(starts)
    assert all(0 <= s.start < s.end <= len(ids) for s in rendered.segments)
    for cut in range(0, len(ids), 7):
        grammar.parse(ids[:cut])  # whatever was written so far can be read
    return rendered.segments


def spelt(vocabulary: Vocabulary, ids: Any) -> list[str]:
    """Markers and codes by name, texts by their words."""
    size = vocabulary.block("text").stop
    return [TOKENIZER.convert_ids_to_tokens(int(i)) if i < size else vocabulary.token_name(int(i)) for i in ids]
