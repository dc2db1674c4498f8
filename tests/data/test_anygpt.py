"""AnyGPT's sequences."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import InputError
from data.grammar.formats.anygpt import AnyGpt
from data.store import Record
from tests.data.format_records import TOKENIZER, build, check_contract, codes_of, seeded, spelt, texts

OWN = {"asr": ("hear",), "tts": ("say",), "music_caption": ("describe",), "text_to_music": ("play",)}
GRAMMAR, VOCABULARY = build(AnyGpt(instructions=OWN))
BUILT_IN, _ = build(AnyGpt(prefix="You are a model."))
SPEECH = Record("s", text="one", streams={"unit": np.array([7, 7], np.int16)})
MUSIC = Record("m", caption="two", kind="music", streams={"music": np.array([1, 2, 3, 4, 5, 6, 7, 8], np.int16)})

seeds = st.integers(0, 2**31)
speech = st.builds(Record, st.just("s"), text=texts, streams=st.fixed_dictionaries({"unit": codes_of(1000)}))
frames = st.lists(st.tuples(*[st.integers(0, 63)] * 4), min_size=1, max_size=8)
music = st.builds(
    Record,
    st.just("m"),
    caption=texts,
    streams=st.fixed_dictionaries({"music": frames.map(lambda rows: np.array(rows, np.int16).reshape(-1))}),
)


@pytest.mark.parametrize("grammar", [GRAMMAR, BUILT_IN])
@settings(max_examples=30, deadline=None)
@given(record=speech | music, seed=seeds)
def test_every_direction_rebuilds_the_record(grammar: Any, record: Record, seed: int) -> None:
    segments = check_contract(grammar, record, seed)
    shown = {segment.kind: segment.content for segment in segments}
    for stream, codes in record.streams.items():
        assert shown[stream] == tuple(codes.tolist())
    if record.text is not None:
        assert shown["text"] == record.text.strip()
    else:
        assert shown["caption"] == record.caption.strip()


def words(text: str) -> list[str]:
    return TOKENIZER.tokenize(text)


def test_music_is_frame_major_with_an_offset_for_each_layer() -> None:
    shown = {tuple(spelt(VOCABULARY, GRAMMAR.render(MUSIC, seeded(seed)).ids)) for seed in range(20)}
    codes = [f"<music.{k}:{code}>" for k, code in zip([0, 1, 2, 3] * 2, range(1, 9), strict=True)]
    human, model = ["[Human]", *words(":")], ["<eoh>", "[MMGPT]", *words(":")]
    assert shown == {
        (*human, *words("describe"), *words("."), "<somu>", *codes, "<eomu>", *model, *words("two"), "<eos>"),
        (
            *human,
            *words("play"),
            *words(". This is input:"),
            *words("two"),
            *model,
            "<somu>",
            *codes,
            "<eomu>",
            "<eos>",
        ),
    }
    first = VOCABULARY.codebooks("music")[0].start
    ids = GRAMMAR.render(MUSIC).ids
    assert ids[(ids >= first) & (ids < first + 4 * 64)].tolist() == [
        first + 64 * k + code for k, code in zip([0, 1, 2, 3] * 2, range(1, 9), strict=True)
    ]


def test_speech_by_hand() -> None:
    asr, vocabulary = build(AnyGpt(instructions=OWN, x_to_text_probability=1.0))
    assert spelt(vocabulary, asr.render(SPEECH).ids) == [
        "[Human]", *words(":"), *words("hear"), *words("."), "<sosp>", "<unit.0:7>", "<unit.0:7>", "<eosp>", "<eoh>",
        "[MMGPT]", *words(":"), *words("one"), "<eos>",
    ]  # fmt: skip


def test_a_ragged_tail_is_dropped_and_counted() -> None:
    ragged = Record("m", caption="two", streams={"music": np.arange(11, dtype=np.int16)})
    for seed in range(4):
        segments = check_contract(GRAMMAR, ragged, seed)
        assert next(s.content for s in segments if s.kind == "music") == tuple(range(8))
    assert GRAMMAR.dropped_codes(ragged) == 3
    assert GRAMMAR.dropped_codes(MUSIC) == 0
    assert GRAMMAR.dropped_codes(Record("m", text="two", streams=ragged.streams)) == 0  # without a caption, not shown
    assert not GRAMMAR.accepts(Record("m", caption="two", streams={"music": np.arange(3, dtype=np.int16)}))


def test_a_generated_ragged_tail_is_dropped() -> None:
    text_to_music, vocabulary = build(AnyGpt(instructions=OWN, x_to_text_probability=0.0))
    ids = text_to_music.render(MUSIC).ids
    cut = ids[: len(ids) - 4]  # one code of the second frame, <eomu> and <eos> are missing
    assert spelt(vocabulary, cut)[-1] == "<music.1:6>"
    assert text_to_music.parse(cut)[-1].content == (1, 2, 3, 4)


def test_the_mask_follows_the_parts_and_not_an_offset_of_a_tokenizer() -> None:
    """The released trainer counts tokens of the prompt anew and takes off two, right for one tokenizer alone."""
    answers, vocabulary = build(AnyGpt(instructions=OWN, loss="responses", x_to_text_probability=1.0))
    rendered = answers.render(Record("s", text="two <eos> [MMGPT]: one", streams=SPEECH.streams))
    trained = spelt(vocabulary, rendered.ids[rendered.loss_mask])
    assert trained == [*words("two <eos> [MMGPT]: one"), "<eos>"]


def test_the_captions_direction_has_a_probability() -> None:
    drawn = [GRAMMAR.render(MUSIC, seeded(seed)).segments[-1].kind for seed in range(200)]
    assert 70 < drawn.count("caption") < 130
    for chance, last in ((1.0, "caption"), (0.0, "music")):
        one, _ = build(AnyGpt(x_to_text_probability=chance))
        assert {one.render(MUSIC, seeded(seed)).segments[-1].kind for seed in range(9)} == {last}


def test_what_may_follow() -> None:
    text_to_music, vocabulary = build(AnyGpt(instructions=OWN, x_to_text_probability=0.0))
    prompt = text_to_music.prompt(Record("q", caption="two"))
    ids = text_to_music.render(MUSIC).ids
    assert text_to_music.continuation.state_after(ids[len(prompt) :]) == text_to_music.continuation.end
    assert not text_to_music.continuation.allowed(ids[len(prompt) : len(prompt) + 2])[vocabulary.marker_id("<eomu>")]


def test_a_record_without_its_text_is_not_shown() -> None:
    assert not GRAMMAR.accepts(Record("m", text="one", streams=MUSIC.streams))
    with pytest.raises(InputError, match="caption"):
        GRAMMAR.render(Record("m", text="one", streams=MUSIC.streams))


def test_an_unknown_set_of_instructions_is_refused() -> None:
    speech = AnyGpt().modalities["unit"]
    named = {"modalities": {"unit": speech.model_copy(update={"to_text": "lipreading"})}}
    with pytest.raises(InputError, match="'lipreading' is unknown: choose from"):
        build(AnyGpt(**named))
    build(AnyGpt(**named, instructions={"lipreading": ("watch",)}))


def test_a_vocabulary_without_any_of_its_streams_is_refused() -> None:
    with pytest.raises(InputError, match="name one of them"):
        build(
            AnyGpt(modalities={"image": AnyGpt().modalities["music"].model_copy(update={"x": "<soim>{image}<eoim>"})})
        )
