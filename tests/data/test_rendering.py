"""Batches written at once are those of documents rendered one by one, whatever tasks they mix."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.config import GrammarConfig
from data.errors import InputError
from data.grammar.crop import CropCurriculum
from data.grammar.layout import layout_of
from data.grammar.template import build_grammars
from data.mixture import draw_rng
from data.packing import PackedDocument, pack_batch
from data.planning import PlannedDocument
from data.rendering import Renderer
from data.sources import Sources
from data.store import Record, StreamInfo
from data.text_tokenizer import build_byte_words_tokenizer
from data.vocabulary import build_vocabulary

STREAMS = {"unit": StreamInfo(25.0, 1, 50, "u"), "music": StreamInfo(50.0, 4, 64, "m")}
CONFIG = GrammarConfig(
    templates={
        "tts": "[tts] {speaker} {text} | [speech] {unit} [eos]",
        "music": "[caption] {caption} | {music} [eos]",
        "answer": "[chain] {unit} | [ta] {response.text} [eos]",
    },
    formats={
        "units": {"kind": "unit_lm"},
        "runs": {"kind": "unit_lm", "deduplicate": True},
        "texts": {"kind": "text_lm"},
        "pairs": {"kind": "spiritlm_pairs"},
    },
    groups={},
)
TOKENIZER = build_byte_words_tokenizer(["one", "two", "three"])
VOCABULARY = build_vocabulary(TOKENIZER, STREAMS, CONFIG, ["amy"])
GRAMMARS = build_grammars(CONFIG, VOCABULARY, TOKENIZER, STREAMS)
WEIGHTS = {"units": 0.5, "music": 0.0}
SEED, LENGTH = 3, 96
WITHOUT_CROPS = CropCurriculum(0.0, 0.0, SEED, STREAMS)


def renderer(records: list[Record]) -> Renderer:
    tasks = [task for task, grammar in GRAMMARS.items() if any(map(grammar.accepts, records))]
    return Renderer(Sources(records, GRAMMARS, tasks, WITHOUT_CROPS, SEED), WEIGHTS)


def alone(records: list[Record], document: PlannedDocument) -> PackedDocument:
    grammar, record = GRAMMARS[document.source], records[document.record]
    rng = draw_rng(SEED, document.source, record.id, document.visit)
    return PackedDocument(*grammar.tokens(record, rng), WEIGHTS.get(document.source, 1.0), document.source)


@st.composite
def recorded(draw: st.DrawFn) -> list[Record]:
    texts = st.none() | st.sampled_from(["one", "two three", "élan x", " "])
    codes = st.lists(st.integers(0, 49), min_size=1, max_size=20).map(lambda values: np.array(values, np.int16))
    music = st.integers(1, 4).map(lambda frames: np.arange(4 * frames, dtype=np.int16))
    answer = Record("a", "three")
    return [
        Record(
            f"u{number}",
            text=draw(texts),
            caption=draw(texts),
            speaker=draw(st.sampled_from([None, "amy", "bob"])),
            streams={k: v for k, v in {"unit": draw(st.none() | codes), "music": draw(music)}.items() if v is not None},
            response=draw(st.sampled_from([None, answer])),
        )
        for number in range(draw(st.integers(1, 5)))
    ]


@settings(max_examples=80, deadline=None)
@given(
    records=recorded(), choices=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.booleans()), max_size=25)
)
def test_a_batch_is_the_same_bit_by_bit(records, choices):
    if not any(grammar.accepts(record) for grammar in GRAMMARS.values() for record in records):
        return
    rows: list[list[PlannedDocument]] = [[]]
    room = LENGTH
    for task, index, ends in choices:
        source, number = sorted(GRAMMARS)[task % len(GRAMMARS)], index % len(records)
        if not GRAMMARS[source].accepts(records[number]):
            continue
        rng = draw_rng(SEED, source, records[number].id, 1)
        document = PlannedDocument(source, number, 1, GRAMMARS[source].measure(records[number], rng))
        if ends or document.num_tokens > room:
            rows, room = [*rows, []], LENGTH
        rows[-1].append(document)
        room -= document.num_tokens
    ours = renderer(records).batch(rows, len(rows) + 1, LENGTH)
    documents = [[alone(records, document) for document in row] for row in rows]
    theirs = pack_batch(documents, len(rows) + 1, LENGTH, VOCABULARY.pad_id)
    for name in ("ids_BT", "labels_BT", "position_ids_BT", "weights_BT"):
        assert getattr(ours, name).dtype == getattr(theirs, name).dtype
        assert (getattr(ours, name) == getattr(theirs, name)).all()
    assert ours.sources == theirs.sources


def test_tasks_that_show_what_is_stored_have_a_layout_and_no_others():
    assert {name for name, grammar in GRAMMARS.items() if layout_of(grammar)} == {"tts", "music", "units", "texts"}


def test_codes_that_do_not_fit_the_vocabulary_are_named():
    records = [Record("u", streams={"unit": np.array([1, 50], np.int16)})]
    with pytest.raises(InputError, match="from 1 to 50 do not fit"):
        renderer(records).batch([[PlannedDocument("units", 0, 0, 4)]], 1, LENGTH)


def test_a_document_that_is_not_as_long_as_was_planned_is_refused():
    records = [Record("u", streams={"unit": np.array([1, 5], np.int16)})]
    with pytest.raises(InputError, match="has 4 tokens, 5 were planned"):
        renderer(records).batch([[PlannedDocument("units", 0, 0, 5)]], 1, LENGTH)
