"""The vocabulary's arithmetic."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.config import GrammarConfig
from data.errors import InputError
from data.vocabulary import Block, Vocabulary, build_vocabulary


@dataclass(frozen=True)
class Space:
    num_codebooks: int
    codebook_size: int


STREAMS = {"unit": Space(1, 200), "music": Space(4, 256)}
GRAMMAR = GrammarConfig(
    templates={"asr": "[asr] {unit} | [text] {text} [eos]", "music": "[music] {caption} | {music} [eos]"}, groups={}
)
VOCABULARY = build_vocabulary(range(300), STREAMS, GRAMMAR, ["zoe", "amy"])


def test_blocks_follow_one_another() -> None:
    assert [(block.name, block.start, block.size) for block in VOCABULARY.blocks[:4]] == [
        ("text", 0, 300),
        ("marker", 300, 7),
        ("music.0", 307, 256),
        ("music.1", 563, 256),
    ]
    assert VOCABULARY.markers == ("[pad]", "[eos]", "[asr]", "[music]", "[text]", "[voice:amy]", "[voice:zoe]")
    assert VOCABULARY.voices == ("amy", "zoe")
    assert VOCABULARY.size == 300 + 7 + 4 * 256 + 200
    assert VOCABULARY.padded_size % 64 == 0
    assert 0 <= VOCABULARY.padded_size - VOCABULARY.size < 64


def test_the_order_of_the_recipes_keys_does_not_matter() -> None:
    turned = GrammarConfig(templates=dict(reversed(GRAMMAR.templates.items())), groups={})
    assert build_vocabulary(range(300), dict(reversed(STREAMS.items())), turned, ["amy", "zoe"]) == VOCABULARY


@given(st.lists(st.tuples(*[st.integers(0, 255)] * 4), max_size=9))
def test_codes_survive_the_round_trip(frames: list[tuple[int, ...]]) -> None:
    codes_TK = np.array(frames, dtype=np.int16).reshape(-1, 4)
    ids = VOCABULARY.encode_stream("music", codes_TK)
    assert VOCABULARY.decode_stream("music", ids).tolist() == codes_TK.reshape(-1).tolist()
    for position, token in enumerate(ids):
        assert token in VOCABULARY.codebooks("music")[position % 4]


def test_a_ragged_last_frame_is_dropped() -> None:
    ids = VOCABULARY.encode_stream("music", [1, 2, 3, 4, 5, 6, 7, 8])
    assert VOCABULARY.decode_stream("music", ids[:6]).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("codes", [[200], [-1], [0, 255]])
def test_a_code_outside_its_codebook_is_an_input_error(codes: list[int]) -> None:
    with pytest.raises(InputError, match="codebooks of"):
        VOCABULARY.encode_stream("unit", codes)


def test_ids_of_another_block_are_not_decoded() -> None:
    with pytest.raises(InputError, match="not frames"):
        VOCABULARY.decode_stream("unit", [3])


def test_the_json_form_rebuilds_it() -> None:
    value = json.loads(json.dumps({"format_version": 1, **VOCABULARY.to_json()}))
    assert Vocabulary.from_json(value) == VOCABULARY


def test_ids_have_names() -> None:
    names = VOCABULARY.added_tokens()
    assert len(names) == len(set(names)) == VOCABULARY.size - 300
    assert names[:3] == ["[pad]", "[eos]", "[asr]"]
    assert names[7] == "<music.0:0>"
    assert names[-1] == "<unit.0:199>"
    with pytest.raises(InputError):
        VOCABULARY.token_name(4)
    assert VOCABULARY.block_of(VOCABULARY.size) is None


def test_unknown_names_say_what_is_known() -> None:
    with pytest.raises(InputError, match=r"\[asr\]"):
        VOCABULARY.marker_id("[nope]")
    with pytest.raises(InputError, match="unit"):
        VOCABULARY.codebooks("pitch")


def test_blocks_with_gaps_are_refused() -> None:
    with pytest.raises(InputError, match="gaps"):
        Vocabulary((Block("text", 0, 3), Block("marker", 4, 1)), ("[pad]",))


NAMES = st.sampled_from(["[asr]", "[tts]", "<sosp>", "[voice:amy]", "[voice:bob]", "[voice:zoe]"])
SPACES = st.dictionaries(st.sampled_from(["unit", "pitch", "image"]), st.builds(Space, st.just(2), st.just(70)))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sets(NAMES), SPACES), max_size=4))
def test_what_is_appended_changes_the_meaning_of_no_id(steps: list[tuple[set[str], dict[str, Space]]]) -> None:
    grammar = GrammarConfig(templates={"lm": "[lm] | {text} [eos]"}, groups={})
    vocabulary = build_vocabulary(range(300), {"music": Space(4, 16)}, grammar, ["amy"])
    for markers, streams in steps:
        wider = vocabulary.extended(markers, streams)
        assert wider.added_tokens()[: vocabulary.size - 300] == vocabulary.added_tokens()
        assert set(wider.added_tokens()) >= markers
        assert set(wider.streams) == {*vocabulary.streams, *streams}
        assert wider.extended(markers, streams) == wider
        assert Vocabulary.from_json(json.loads(json.dumps(wider.to_json()))) == wider
        vocabulary = wider
    for token in range(300, vocabulary.size):
        block = vocabulary.block_of(token)
        assert block is not None
        assert (block in vocabulary.marker_blocks) == (vocabulary.token_name(token) in vocabulary.markers)
    for marker in vocabulary.markers:
        token = vocabulary.marker_id(marker)
        assert vocabulary.token_name(token) == marker
        assert any(token in block for block in vocabulary.voice_blocks) == marker.startswith("[voice:")


def test_a_stream_with_other_codebooks_cannot_be_appended() -> None:
    with pytest.raises(InputError, match=r"has codebooks of \[100\] codes, .* has \[200\]"):
        VOCABULARY.extended([], {"unit": Space(1, 100)})


def test_markers_that_the_text_tokenizer_spells_are_refused() -> None:
    class Tokenizer:
        def __len__(self) -> int:
            return 2

        def get_vocab(self) -> dict[str, int]:
            return {"a": 0, "[asr]": 1}

    refused = pytest.raises(InputError, match=r"\['\[asr\]'\] are tokens of the text tokenizer already")
    with refused:
        build_vocabulary(Tokenizer(), STREAMS, GRAMMAR, [])
    lm = GrammarConfig(templates={"lm": "[lm] | {text} [eos]"}, groups={})
    base = build_vocabulary(Tokenizer(), {}, lm, [])
    with refused:  # also where it would be appended
        build_vocabulary(Tokenizer(), STREAMS, GRAMMAR, [], base)
    assert build_vocabulary(range(300), STREAMS, GRAMMAR, ["zoe", "amy"], VOCABULARY) == VOCABULARY
