"""SPIRIT LM's and Slam's sequences."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.durations import deduplicate, expand
from data.errors import InputError
from data.grammar.expressive import MISSING_STYLES, split, spoken
from data.grammar.formats.pairs import SpiritLmPairs
from data.grammar.formats.slam import SlamPoisson
from data.grammar.formats.spiritlm import SpiritLmBase, SpiritLmExpressive
from data.grammar.interleave import alternating_spans, poisson_spans
from data.grammar.runs import expand_shown, word_bounds
from data.grammar.spelling import Part, Speller
from data.grammar.template import TextIds
from data.store import Record
from tests.data.format_records import TOKENIZER, build, check_contract, seeded, spelt, spoken_records, texts

BASE, BASE_VOCABULARY = build(SpiritLmBase(text_words=(1, 4), speech_words=(1, 3)))
EXPRESSIVE, EXPRESSIVE_VOCABULARY = build(SpiritLmExpressive())
MIXED, _ = build(SpiritLmExpressive(shows="interleaved", text_words=(1, 4), speech_words=(1, 3), end="[eos]"))
SLAM, SLAM_VOCABULARY = build(SlamPoisson(mean_span_words=2))
PAIRS, PAIRS_VOCABULARY = build(SpiritLmPairs())
GOLDEN = Record(
    "golden",
    text="hello",
    streams={
        "unit": np.array([78, 42, 81, 159, 316, 259], np.int16),
        "pitch": np.array([13, 13, 3], np.int16),
        "style": np.array([81], np.int16),
    },
)
SECOND = Record("two", text="one two", streams={"unit": np.array([5, 5, 7], np.int16)})

seeds = st.integers(0, 2**31)


@pytest.mark.parametrize("grammar", [BASE, MIXED, SLAM, PAIRS, EXPRESSIVE])
@settings(max_examples=25, deadline=None)
@given(record=spoken_records(), seed=seeds)
def test_every_sequence_reads_back(grammar: Any, record: Record, seed: int) -> None:
    check_contract(grammar, record, seed)


@pytest.mark.parametrize("grammar", [BASE, MIXED, SLAM, EXPRESSIVE])
@settings(max_examples=30, deadline=None)
@given(record=spoken_records(stored=False), seed=seeds)
def test_it_does_not_matter_whether_the_store_is_deduplicated(grammar: Any, record: Record, seed: int) -> None:
    codes, durations = deduplicate(record.streams["unit"])
    other = replace(record, streams={**record.streams, "unit": codes}, durations={"unit": durations})
    assert grammar.render(other, seeded(seed)).ids.tolist() == grammar.render(record, seeded(seed)).ids.tolist()


def test_the_order_of_time_by_hand() -> None:
    """Ties: style, pitch, unit. The release's own docstring shows another order than its rule yields."""
    rendered = EXPRESSIVE.render(GOLDEN)
    named = spelt(EXPRESSIVE_VOCABULARY, rendered.ids)
    assert named == ["[Speech]", "<style.0:81>", "<pitch.0:13>", "<unit.0:78>", "<unit.0:42>", "<unit.0:81>",
                     "<unit.0:159>", "<pitch.0:3>", "<unit.0:316>", "<unit.0:259>"]  # fmt: skip
    assert [(s.kind, s.content) for s in rendered.segments] == [
        ("style", (81,)), ("pitch", (13,)), ("unit", (78, 42, 81, 159)), ("pitch", (3,)), ("unit", (316, 259)),
    ]  # fmt: skip


def test_units_and_pitch_lose_their_runs_and_style_does_not() -> None:
    record = Record("r", streams={
        "unit": np.repeat([1, 2, 1], [30, 40, 5]).astype(np.int16),
        "pitch": np.repeat([4, 4, 5], [10, 10, 17]).astype(np.int16),
        "style": np.array([9, 9, 9], np.int16),
    })  # fmt: skip
    shown = split(EXPRESSIVE.render(record).segments, ["unit", "pitch", "style"])
    assert shown == {"unit": [1, 2, 1], "pitch": [4, 5], "style": [9, 9, 9]}


@settings(max_examples=25, deadline=None)
@given(record=spoken_records())
def test_durations_rebuild_every_stream_from_its_segments(record: Record) -> None:
    shown = split(EXPRESSIVE.render(record).segments, ["unit", "pitch", "style"])
    for stream, deduplicated in (("unit", True), ("pitch", True), ("style", False)):
        stored = record.durations.get(stream)
        whole = record.streams[stream] if stored is None else expand(record.streams[stream], stored)
        assert expand_shown(shown[stream], record, stream, deduplicated).tolist() == whole.tolist()


def test_codes_of_another_record_are_not_expanded() -> None:
    with pytest.raises(ValueError, match="not what stream 'unit'"):
        expand_shown([1, 2], SECOND, "unit")


def test_every_unit_has_the_pitch_and_style_last_seen() -> None:
    assert spoken(EXPRESSIVE.render(GOLDEN).segments) == ([78, 42, 81, 159, 316, 259], [13] * 4 + [3] * 2, [81] * 6)
    late = Record("r", streams={**GOLDEN.streams, "unit": np.array([1, 2], np.int16)})
    cut = EXPRESSIVE.render(late).segments[2:]  # a model may begin with units
    units, pitches, styles = spoken([*cut, *EXPRESSIVE.render(GOLDEN).segments])
    assert units[:2] == [1, 2]
    assert pitches[:2] == [3, 3] or pitches[:2] == [13, 13]
    assert styles == [81] * len(units)
    only = [s for s in EXPRESSIVE.render(GOLDEN).segments if s.kind == "unit"]
    assert spoken(only)[2] == [MISSING_STYLES[0]] * 6
    assert spoken([]) == ([], [], [])


def test_a_record_of_one_modality_gets_one_marker() -> None:
    assert spelt(BASE_VOCABULARY, BASE.render(Record("t", text="one two")).ids) == ["[Text]", "Ġone", "Ġtwo"]
    speech = BASE.render(SECOND.__class__("s", streams=SECOND.streams))
    assert spelt(BASE_VOCABULARY, speech.ids) == ["[Speech]", "<unit.0:5>", "<unit.0:7>"]
    assert speech.loss_mask.tolist() == [False, True, True]


@settings(max_examples=60, deadline=None)
@given(words=st.integers(1, 200), seed=seeds)
def test_spans_alternate_and_have_the_published_lengths(words: int, seed: int) -> None:
    spans = alternating_spans(words, (10, 30), (5, 15), seeded(seed))
    assert [span.start for span in spans] + [words] == [0] + [span.stop for span in spans]
    assert all(left.is_speech != right.is_speech for left, right in itertools.pairwise(spans))
    for span in spans[:-1]:
        low, high = (5, 15) if span.is_speech else (10, 30)
        assert low <= span.stop - span.start <= high


def test_spans_begin_with_either_modality_and_are_drawn_anew() -> None:
    drawn = {tuple(alternating_spans(40, (10, 30), (5, 15), seeded(seed))) for seed in range(60)}
    assert {spans[0].is_speech for spans in drawn} == {True, False}
    assert len(drawn) > 50


@settings(max_examples=60, deadline=None)
@given(words=st.integers(1, 300), seed=seeds)
def test_poisson_spans_cover_their_share_and_every_word_once(words: int, seed: int) -> None:
    spans = poisson_spans(words, 10, 0.3, seeded(seed))
    assert [span.start for span in spans] + [words] == [0] + [span.stop for span in spans]
    assert all(left.is_speech != right.is_speech for left, right in itertools.pairwise(spans))
    assert sum(span.stop - span.start for span in spans if span.is_speech) >= 0.3 * words


def test_poisson_spans_are_ten_words_long_on_average() -> None:
    rng = seeded(0)
    lengths = [s.stop - s.start for _ in range(200) for s in poisson_spans(1000, 10, 0.1, rng) if s.is_speech]
    assert 9 < np.mean(lengths) < 11


def test_no_share_and_all_of_it() -> None:
    assert [span.is_speech for span in poisson_spans(20, 10, 0.0, seeded(1))] == [False]
    full = poisson_spans(30, 3, 1.0, seeded(1))  # spans never touch: the words between them stay text
    assert sum(span.stop - span.start for span in full if span.is_speech) >= 15


@settings(max_examples=25, deadline=None)
@given(record=spoken_records(stored=False, shortest_s=0.1), seed=seeds)
def test_interleaving_loses_no_frame_and_no_word(record: Record, seed: int) -> None:
    """The words shown as text and the frames shown as speech are together the record."""
    plain, _ = build(SpiritLmBase(text_words=(1, 4), speech_words=(1, 3), deduplicate=False))
    units = record.streams["unit"].tolist()
    bounds = word_bounds(record.words, len(units), 25.0)
    words = record.text.split() if len(record.text.split()) == len(record.words) else [w for w, _, _ in record.words]
    word = 0
    for segment in plain.render(record, seeded(seed)).segments:
        if segment.kind == "text":
            assert segment.content.split() == words[word : word + len(segment.content.split())]
            word += len(segment.content.split())
        else:
            end = bounds[word] + len(segment.content)
            assert list(segment.content) == units[bounds[word] : end]
            word = bounds.index(end)
    assert word == len(words)


def test_a_span_by_hand_is_cut_at_its_words() -> None:
    record = Record(
        "r",
        text="One two, three.",
        words=(("one", 0.0, 0.1), ("two", 0.2, 0.3), ("three", 0.4, 0.6)),
        streams={"unit": np.arange(15, dtype=np.int16)},
    )
    grammar, vocabulary = build(SpiritLmBase(text_words=(1, 1), speech_words=(1, 1)))
    shown = {tuple(spelt(vocabulary, grammar.render(record, seeded(seed)).ids)) for seed in range(8)}
    first, last = (
        ("[Speech]", *(f"<unit.0:{i}>" for i in range(5))),
        ("[Speech]", *(f"<unit.0:{i}>" for i in range(10, 15))),
    )
    assert len(shown) == 2
    speech_first = next(names for names in shown if names[0] == "[Speech]")
    assert speech_first[: len(first)] == first
    assert speech_first[-len(last) :] == last
    assert "Ġtwo" in speech_first
    assert "," in speech_first  # the text's own spelling, not the aligner's


def test_words_of_no_frame_are_shown_as_text() -> None:
    record = Record(
        "r",
        text="one two",
        words=(("one", 0.0, 0.0), ("two", 0.0, 0.4)),
        streams={"unit": np.arange(10, dtype=np.int16)},
    )
    grammar, _ = build(SpiritLmBase(text_words=(1, 1), speech_words=(1, 1)))
    for seed in range(6):
        shown = [segment.content for segment in grammar.render(record, seeded(seed)).segments]
        assert "one" in shown


def test_pairs_by_hand_in_both_directions() -> None:
    shown = {tuple(spelt(PAIRS_VOCABULARY, PAIRS.render(SECOND, seeded(seed)).ids)) for seed in range(20)}
    assert shown == {
        ("[Speech]", "<unit.0:5>", "<unit.0:7>", "[ASR]", "Ġone", "Ġtwo"),
        ("[Text]", "Ġone", "Ġtwo", "[TTS]", "<unit.0:5>", "<unit.0:7>"),
    }


def test_pairs_of_one_direction_alone() -> None:
    asr, vocabulary = build(
        SpiritLmPairs(asr_probability=1.0, asr="[Speech] {unit} | [ASR] {text} [eos]", loss="responses")
    )
    assert {tuple(asr.render(SECOND, seeded(seed)).ids.tolist()) for seed in range(9)} == {
        tuple(asr.render(SECOND).ids)
    }
    assert asr.render(SECOND).loss_mask.tolist() == [False] * 3 + [True] * 4
    assert spelt(vocabulary, asr.prompt(Record("q", streams=SECOND.streams))) == [
        "[Speech]",
        "<unit.0:5>",
        "<unit.0:7>",
    ]
    assert asr.continuation.only_choice(0) == vocabulary.marker_id("[ASR]")


def test_what_may_follow_is_banned_by_modality() -> None:
    text, unit = BASE_VOCABULARY.block("text"), BASE_VOCABULARY.block("unit.0")
    anything = BASE.continuation
    assert anything.allowed([])[text.start]
    assert anything.allowed([])[unit.start]
    after = anything.allowed([BASE_VOCABULARY.marker_id("[Speech]")])
    assert not after[text.start : text.stop].any()
    assert after[unit.start : unit.stop].all()
    for generates, allowed, banned in (("text", "text", "unit.0"), ("speech", "unit.0", "text")):
        grammar, vocabulary = build(SpiritLmBase(generates=generates, end="[eos]"))
        mask = grammar.continuation.allowed([vocabulary.block(allowed).start])
        assert mask[vocabulary.block(allowed).start]
        assert mask[vocabulary.eos_id]
        assert not mask[vocabulary.block(banned).start : vocabulary.block(banned).stop].any()
        assert (
            grammar.continuation.state_after([vocabulary.block(allowed).start, vocabulary.eos_id])
            == grammar.continuation.end
        )


def test_a_prompt_ends_with_the_marker_of_what_is_generated() -> None:
    grammar, vocabulary = build(SpiritLmBase(generates="text"))
    prompt = grammar.prompt(Record("q", streams=SECOND.streams))
    assert spelt(vocabulary, prompt) == ["[Speech]", "<unit.0:5>", "<unit.0:7>", "[Text]"]
    assert spelt(vocabulary, grammar.prompt(Record("q", text="one"))) == ["[Text]", "Ġone"]


def test_a_record_that_lacks_what_is_shown() -> None:
    assert not EXPRESSIVE.accepts(SECOND)
    with pytest.raises(InputError, match="style"):
        EXPRESSIVE.render(SECOND)
    assert not PAIRS.accepts(Record("r", text="one"))
    with pytest.raises(InputError, match="text and units"):
        PAIRS.render(Record("r", text="one"))


def test_anothers_sequence_is_refused() -> None:
    with pytest.raises(InputError, match=r"expected \[Text\] or \[Speech\]"):
        BASE.parse([3])


def test_rates_must_be_known_and_agree_with_the_store() -> None:
    with pytest.raises(InputError, match="the store's stream has 25"):
        build(SpiritLmBase(frame_rates_hz={"unit": 50.0}))


@settings(max_examples=60, deadline=None)
@given(words=st.lists(texts.map(lambda text: text.split()[0]), min_size=1, max_size=6))
def test_words_one_by_one_are_the_text_of_them_all(words: list[str]) -> None:
    speller = Speller("t", BASE_VOCABULARY, TextIds(TOKENIZER, BASE_VOCABULARY.block("text")))
    apart, together = Part("text", "text", tuple(words)), Part("text", "text", " ".join(words))
    assert speller.ids(apart).tolist() == speller.ids(together).tolist()
    assert speller.length(apart) == speller.length(together)


def test_a_tokenizer_that_joins_words_otherwise_is_given_whole_spans() -> None:
    """Without a space before the first word, words one by one would run together."""

    class Plain:
        def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
            return {"input_ids": list(text.encode())}

    speller = Speller("t", BASE_VOCABULARY, TextIds(Plain(), BASE_VOCABULARY.block("text")))
    assert speller.ids(Part("text", "text", ("one", "two"))).tolist() == list(b"one two")


def test_codes_of_several_units_are_cut_by_all_their_frames() -> None:
    """What byte pair encoding stores: one duration for each unit, the first of a code positive."""
    words = (("one", 0.0, 0.2), ("two", 0.2, 0.4))
    stored = {"unit": np.array([2, -3, 5], np.int16)}  # code 600 is two units of 5 frames together, code 7 one of 5
    record = Record("r", text="one two", words=words, streams={"unit": np.array([600, 7], np.int16)}, durations=stored)
    one_each = build(SpiritLmBase(text_words=(1, 1), speech_words=(1, 1), shows="interleaved"))[0]
    shown = {tuple((s.kind, s.content) for s in check_contract(one_each, record, seed)) for seed in range(8)}
    assert shown == {(("text", "one"), ("unit", (7,))), (("unit", (600,)), ("text", "two"))}
    assert expand_shown((600, 7), record, "unit").tolist() == [600] * 5 + [7] * 5
