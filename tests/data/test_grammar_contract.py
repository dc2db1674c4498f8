"""What holds of every published format, found by its kind: whatever a record holds, and however odd it is."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.config import GrammarConfig
from data.durations import deduplicate
from data.errors import InputError
from data.grammar.base import Grammar
from data.grammar.formats import KINDS
from data.grammar.sequence_format import SequenceFormat
from data.grammar.template import build_grammars
from data.store import Record
from data.vocabulary import build_vocabulary
from tests.data.format_records import SPACES, TOKENIZER, check_contract, seeded

STREAMS = {**SPACES, "semantic": SimpleNamespace(num_codebooks=1, codebook_size=1000, frame_rate_hz=50.0)}
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "spiritlm_base": [{"end": "[eos]", "text_words": (1, 2), "speech_words": (1, 1)}],
    "spiritlm_expressive": [{"shows": "auto", "text_words": (1, 1), "speech_words": (1, 3), "deduplicate": False}],
    "slam_poisson": [{"end": "[eos]", "mean_span_words": 0.5, "speech_fraction": 1.0}],
    "speechgpt_chain_of_modality": [{"loss": "responses", "prefix": ""}],
    "anygpt": [{"prefix": "You hear and play.", "loss": "responses"}],
    "anygpt_chat": [{"loss": "all", "deduplicate": True}],
    "chunked": [{"text_tokens": 1, "audio_tokens": 1}, {"audio": "response.music", "audio_tokens": 4}],
    "tts_icl": [
        {"pairs": "response"},
        {"unit": "music", "pattern": "[t] {text} {music} [x] {response.text} | {response.music} [e]"},
    ],
}
CASES = [(kind, fields) for kind in KINDS for fields in [{}, *VARIANTS.get(kind, [])]]

# Also what is hardly a text: blanks of all kinds, signs that combine, text that looks like a format.
odd = st.sampled_from(
    ["", " ", "\t\n", "\u200b", "a\u0301", "\ufeff", "\x00", "[Human]: <sosp>", "; ", ". ", "🎶‍🗣️", "ﬁ\u00a0x"]
)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10) | odd
EXTRA = ({}, {}, {}, {"party": "human"}, {"party": "anygpt"}, {"party": "x"}, {"turn": 1})
SIZES = {"unit": 1000, "pitch": 64, "style": 100, "music": 64, "semantic": 1000}
PARTS = ("text", "caption", "words", "response", "rejected", *SIZES)


@st.composite
def anything(draw: Any, depth: int = 2) -> Record:
    """A record that lacks some of its parts, or none; codes of any number, of several codebooks often ragged."""
    lacking = draw(st.just(frozenset()) | st.sets(st.sampled_from(PARTS), max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    streams = {
        name: rng.integers(0, rng.choice([2, size]), rng.choice([0, 1, 1, 2, 4, 7, 8, 40])).astype(np.int16)
        for name, size in SIZES.items()
        if name not in lacking
    }
    durations = {}
    if "unit" in streams and rng.random() < 0.5:
        streams["unit"], durations["unit"] = deduplicate(streams["unit"])
    spoken = draw(st.lists(texts, max_size=4))
    ends = np.cumsum(rng.random(len(spoken)) * rng.choice([0.0, 0.2, 1.0]))
    links = [link for link in ("response", "rejected") if depth and link not in lacking]
    return Record(
        "r",
        text=None if "text" in lacking else draw(texts | st.just(" ".join(spoken) or "x")),
        caption=None if "caption" in lacking else draw(texts),
        words=None if "words" in lacking else tuple(zip(spoken, [0.0, *ends.tolist()], ends.tolist(), strict=False)),
        extra=EXTRA[int(rng.integers(len(EXTRA)))],
        streams=streams,
        durations=durations,
        **{link: draw(anything(depth - 1 if link == "response" else 0)) for link in links},
    )


def built(kind: str, fields: dict[str, Any]) -> Grammar:
    config: SequenceFormat = KINDS[kind](**fields)
    grammar = GrammarConfig(formats={"task": config}, groups={})
    vocabulary = build_vocabulary(TOKENIZER, STREAMS, grammar, [])
    return build_grammars(grammar, vocabulary, TOKENIZER, STREAMS)["task"]


@pytest.mark.parametrize(("kind", "fields"), CASES, ids=[f"{kind} {fields}"[:60] for kind, fields in CASES])
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_record_is_shown_and_read_back_or_lacks_something(kind: str, fields: dict[str, Any], data: Any) -> None:
    grammar = _built.setdefault(f"{kind} {fields}", built(kind, fields))
    record, seed = data.draw(anything()), data.draw(st.integers(0, 2**32))
    grammar.prompt(record)  # at inference anything may be missing
    if grammar.accepts(record):
        check_contract(grammar, record, seed)
    else:
        with pytest.raises(InputError, match="lacks"):
            grammar.render(record, seeded(seed))


@pytest.mark.parametrize(("kind", "fields"), CASES, ids=[f"{kind} {fields}"[:60] for kind, fields in CASES])
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(record=anything(), seed=st.integers(0, 2**32))
def test_whatever_may_follow_a_prompt_is_read(kind: str, fields: dict[str, Any], record: Record, seed: int) -> None:
    """At any step; by a model that draws markers and ends as often as codes."""
    grammar = _built.setdefault(f"{kind} {fields}", built(kind, fields))
    rng, state = seeded(seed), 0
    written = grammar.prompt(record).tolist()
    shown = len(grammar.parse(written))
    for _ in range(25):
        if state == grammar.continuation.end:
            break
        start, stop = rng.choice(grammar.continuation.ranges(state))
        written.append(int(rng.integers(start, stop)))
        state = int(grammar.continuation.advance(state, written[-1]))
        segments = grammar.parse(written)
        assert len(segments) >= shown
        assert all(segment.end <= len(written) for segment in segments)


_built: dict[str, Grammar] = {}
