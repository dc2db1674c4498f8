"""Templates: rendering, reading back, and what may be generated."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from data.config import GrammarConfig
from data.errors import InputError
from data.grammar.template import TemplateGrammar, build_grammars
from data.text_tokenizer import build_byte_words_tokenizer
from data.vocabulary import build_vocabulary

ROOT = Path(__file__).resolve().parents[2]
CONFIG = GrammarConfig(**yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text())["grammar"])
SPACES = {
    "unit": SimpleNamespace(num_codebooks=1, codebook_size=200),
    "music": SimpleNamespace(num_codebooks=4, codebook_size=256),
}
VOICES = ["amy", "joe+f2"]
TOKENIZER = build_byte_words_tokenizer(["one", "two", "what", "comes", "after"])
VOCABULARY = build_vocabulary(TOKENIZER, SPACES, CONFIG, VOICES)
GRAMMARS = build_grammars(CONFIG, VOCABULARY, TOKENIZER)


@dataclass(frozen=True)
class Partial:
    """What inference has: any subset of a record's fields."""

    text: str | None = None
    speaker: str | None = None
    caption: str | None = None
    streams: dict[str, np.ndarray] = field(default_factory=dict)
    response: Any = None


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30).filter(lambda text: text.strip())


def codes(codebooks: int, size: int) -> st.SearchStrategy[np.ndarray]:
    frames = st.lists(st.tuples(*[st.integers(0, size - 1)] * codebooks), min_size=1, max_size=6)
    return frames.map(lambda rows: np.array(rows, dtype=np.int16).reshape(-1))


streams = st.fixed_dictionaries({"unit": codes(1, 200), "music": codes(4, 256)})
answers = st.builds(Partial, text=texts, streams=streams)
records = st.builds(
    Partial, text=texts, caption=texts, speaker=st.sampled_from(VOICES), streams=streams, response=answers
)
FULL = Partial(
    "one two",
    "amy",
    "slow piano",
    {"unit": np.array([5, 5, 7], dtype=np.int16), "music": np.arange(8, dtype=np.int16)},
    Partial("two", streams={"unit": np.array([9], dtype=np.int16)}),
)


@pytest.mark.parametrize("task", sorted(CONFIG.templates))
@settings(max_examples=40, deadline=None)
@given(record=records)
def test_every_template_reads_back_what_it_wrote(task: str, record: Partial) -> None:
    grammar = GRAMMARS[task]
    assert grammar.accepts(record)
    rendered = grammar.render(record)
    assert grammar.parse(rendered.ids) == rendered.segments
    assert grammar.measure(record) == len(rendered.ids) == len(rendered.loss_mask)
    ids, loss_mask = grammar.tokens(record)
    assert (ids == rendered.ids).all()
    assert (loss_mask == rendered.loss_mask).all()
    prompt = grammar.prompt(record)
    assert rendered.ids[: len(prompt)].tolist() == prompt.tolist()
    assert rendered.loss_mask.tolist() == [False] * len(prompt) + [True] * (len(rendered.ids) - len(prompt))


@pytest.mark.parametrize("task", sorted(CONFIG.templates))
@settings(max_examples=20, deadline=None)
@given(record=records)
def test_the_continuation_allows_exactly_its_own_targets(task: str, record: Partial) -> None:
    grammar = GRAMMARS[task]
    targets = grammar.render(record).ids[len(grammar.prompt(record)) :].tolist()
    for position, token in enumerate(targets):
        allowed_V = grammar.continuation.allowed(targets[:position])
        assert allowed_V[token]
        assert allowed_V.shape == (VOCABULARY.padded_size,)
    assert grammar.continuation.state_after(targets) == grammar.continuation.end
    assert not grammar.continuation.allowed(targets).any()


@pytest.mark.parametrize("task", sorted(CONFIG.templates))
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_whatever_the_continuation_allows_can_be_read(task: str, seed: int) -> None:
    grammar = GRAMMARS[task]
    rng = np.random.default_rng(seed)
    state, generated = 0, []
    for _ in range(40):
        if state == grammar.continuation.end:
            break
        generated.append(int(rng.choice(np.flatnonzero(grammar.continuation.masks_SV[state]))))
        state = int(grammar.continuation.advance(state, generated[-1]))
    grammar.parse(np.concatenate([grammar.prompt(FULL), generated]))


def test_the_segments_rebuild_the_record() -> None:
    segments = GRAMMARS["s2s"].render(FULL).segments
    assert [(piece.slot, piece.kind, piece.content) for piece in segments] == [
        ("unit", "unit", (5, 5, 7)),
        ("speaker", "voice", "amy"),
        ("text", "text", "one two"),
        ("response.text", "text", "two"),
        ("response.unit", "unit", (9,)),
    ]


def test_a_sequence_by_hand() -> None:
    unit = VOCABULARY.block("unit.0").start
    one, two = TOKENIZER.convert_tokens_to_ids(["Ġone", "Ġtwo"])
    marker = VOCABULARY.marker_id
    rendered = GRAMMARS["asr"].render(FULL)
    assert rendered.ids.tolist() == [
        marker("[asr]"), unit + 5, unit + 5, unit + 7, marker("[text]"), one, two, marker("[eos]"),
    ]  # fmt: skip
    assert rendered.loss_mask.tolist() == [False] * 4 + [True] * 4
    assert rendered.ids.dtype == np.int32


@pytest.mark.parametrize(
    ("task", "change"),
    [
        ("asr", {"text": None}),
        ("asr", {"text": "  "}),
        ("asr", {"streams": {}}),
        ("asr", {"streams": {"unit": np.zeros(0, np.int16)}}),
        ("tts", {"speaker": "stranger"}),
        ("tts", {"speaker": None}),
        ("music_to_caption", {"caption": None}),
        ("s2t", {"response": None}),
        ("s2s", {"response": Partial("two")}),
    ],
)
def test_a_record_that_lacks_a_slot_is_not_accepted(task: str, change: dict[str, Any]) -> None:
    record = replace(FULL, **change)
    assert not GRAMMARS[task].accepts(record)
    GRAMMARS[task].prompt(record) if change.get("speaker") != "stranger" else None
    with pytest.raises(InputError):
        GRAMMARS[task].render(record)


@pytest.mark.parametrize("task", sorted(CONFIG.templates))
def test_prompts_of_records_with_nothing_or_little_in_them(task: str) -> None:
    grammar = GRAMMARS[task]
    empty = grammar.prompt(Partial(text="", caption="", streams={"unit": np.zeros(0, np.int16)}))
    assert grammar.parse(empty) == []
    assert len(empty) >= 1
    short = grammar.prompt(Partial("a", "amy", "b", {"unit": np.array([1]), "music": np.array([1, 2, 3, 4])}))
    assert all(piece.end > piece.start for piece in grammar.parse(short))


def test_an_unknown_voice_in_a_prompt_is_an_input_error() -> None:
    with pytest.raises(InputError, match="amy"):
        GRAMMARS["tts"].prompt(Partial("one", "stranger"))


def test_a_sequence_cut_short_gives_what_it_holds() -> None:
    rendered = GRAMMARS["text_to_music"].render(FULL)
    cut = GRAMMARS["text_to_music"].parse(rendered.ids[:-3])
    assert cut[-1].content == (0, 1, 2, 3)
    assert GRAMMARS["text_to_music"].parse(rendered.ids[:-7])[-1].slot == "caption"


def test_another_tasks_sequence_is_refused() -> None:
    with pytest.raises(InputError, match=r"expected \[tts\]"):
        GRAMMARS["tts"].parse(GRAMMARS["asr"].render(FULL).ids)
    with pytest.raises(InputError, match="expected the end"):
        GRAMMARS["asr"].parse([*GRAMMARS["asr"].render(FULL).ids, 3])


def test_music_cycles_through_its_codebooks_and_ends_between_frames() -> None:
    continuation = GRAMMARS["text_to_music"].continuation
    blocks = VOCABULARY.codebooks("music")
    state = 0
    for position in range(8):
        if position:
            assert (VOCABULARY.eos_id in {start for start, _ in continuation.ranges(state)}) == (position == 4)
        state = int(continuation.advance(state, blocks[position % 4].start))
    assert continuation.slot(state) == "music"
    assert sorted(continuation.ranges(state)) == sorted(
        [(blocks[0].start, blocks[0].stop), (VOCABULARY.eos_id, VOCABULARY.eos_id + 1)]
    )
    with pytest.raises(ValueError, match="may not come"):
        continuation.advance(state, blocks[1].start)


def test_markers_need_no_model() -> None:
    continuation = GRAMMARS["asr"].continuation
    assert continuation.only_choice(0) == VOCABULARY.marker_id("[text]")
    assert continuation.only_choice(1) is None


def test_many_sequences_advance_at_once() -> None:
    continuation = GRAMMARS["asr"].continuation
    states_B = continuation.advance(np.zeros(3, dtype=int), np.full(3, VOCABULARY.marker_id("[text]")))
    states_B = continuation.advance(states_B, np.array([1, 2, 3]))
    after_B = continuation.advance(states_B, np.array([1, VOCABULARY.eos_id, 0]))
    assert (after_B == continuation.end).tolist() == [False, True, False]


def test_a_slot_that_takes_words_may_not_be_empty_when_generated() -> None:
    continuation = GRAMMARS["asr"].continuation
    assert not continuation.allowed([VOCABULARY.marker_id("[text]")])[VOCABULARY.eos_id]


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("[asr] {units} | {text} [eos]", "slot {units} is unknown: choose from"),
        ("[asr] {unit} {text} [eos]", "has 0 bars"),
        ("[asr] | {unit} | {text} [eos]", "has 2 bars"),
        ("[asr {unit} | {text} [eos]", "balance brackets"),
        ("[asr]{unit} | {text} [eos]", "separate items by spaces"),
        ("[asr] {text} {caption} | [eos]", "cannot be told apart"),
        ("[asr] {unit} | {response.unit} [eos]", "cannot be told apart"),
        ("[asr] {unit} | {text}", "must end with a marker"),
        ("[asr] {unit} |", "must end with a marker"),
        ("[pad] {unit} | {text} [eos]", "reserved"),
        ("[nowhere] {unit} | {text} [eos]", "no marker"),
    ],
)
def test_a_bad_template_is_named_with_its_remedy(template: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        TemplateGrammar("asr", template, VOCABULARY, TOKENIZER)
    assert words in str(caught.value)
    assert "grammar.templates.asr" in str(caught.value)


def test_only_grammars_of_words_and_speech_may_be_cropped() -> None:
    assert {task for task, grammar in GRAMMARS.items() if grammar.croppable} >= {"asr", "tts", "unit_lm", "text_lm"}
    assert not any(GRAMMARS[task].croppable for task in ("s2s", "s2t", "t2s", "t2t", "text_to_music"))


def test_voices_of_appended_blocks_are_voices_like_the_others() -> None:
    template = GrammarConfig(templates={"who": "[who] {unit} | {speaker} {text} [eos]"}, groups={})
    first = build_vocabulary(TOKENIZER, SPACES, template, ["amy"])
    wider = first.extended(["[more]", "[voice:zoe]"], {"image": SPACES["unit"]})
    grammar = build_grammars(template, wider, TOKENIZER)["who"]
    for voice in ("amy", "zoe"):
        record = Partial("red", voice, None, {"unit": np.array([1, 2], np.int16)})
        rendered = grammar.render(record)
        assert grammar.parse(rendered.ids) == rendered.segments
        assert [segment.content for segment in rendered.segments if segment.kind == "voice"] == [voice]
        target = rendered.ids[rendered.loss_mask]
        assert grammar.continuation.state_after(target.tolist()) == grammar.continuation.end
    legal = np.flatnonzero(grammar.continuation.allowed([]))
    assert legal.tolist() == [wider.marker_id("[voice:amy]"), wider.marker_id("[voice:zoe]")]
