"""The byte-level text tokenizer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.text_tokenizer import (
    build_byte_words_tokenizer,
    decode_text,
    encode_text,
    frequent_words,
    load_text_tokenizer,
)

TOKENIZER = build_byte_words_tokenizer(["the", "cat", "seven", "don't"])


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60).map(str.strip))
def test_any_stripped_text_survives_the_round_trip(text: str) -> None:
    ids = encode_text(TOKENIZER, text)
    assert decode_text(TOKENIZER, ids) == text
    assert all(0 <= token < len(TOKENIZER) for token in ids)


def test_corpus_words_are_single_tokens() -> None:
    assert len(encode_text(TOKENIZER, "the cat the seven")) == 4
    assert len(encode_text(TOKENIZER, "don't")) == 2
    assert len(encode_text(TOKENIZER, "dog")) == 4


def test_the_empty_text_has_no_tokens() -> None:
    assert encode_text(TOKENIZER, "  ") == []
    assert decode_text(TOKENIZER, []) == ""


def test_a_saved_tokenizer_loads_with_auto_tokenizer(tmp_path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded = load_text_tokenizer(str(tmp_path))
    text = "the cat said: naïve “seven”  🎈"
    assert encode_text(loaded, text) == encode_text(TOKENIZER, text)
    assert decode_text(loaded, encode_text(loaded, text)) == text
    assert loaded.decode(loaded.encode(text)) == text


@pytest.mark.parametrize("text", ["say [eos] now", "[asr] seven", "the[eos]cat"])
def test_markers_written_in_a_transcript_stay_text(text: str, tmp_path) -> None:
    from transformers import AddedToken, AutoTokenizer

    extended = build_byte_words_tokenizer(["the", "cat", "seven", "don't"])
    extended.add_tokens([AddedToken(marker, special=True, normalized=False) for marker in ("[asr]", "[eos]")])
    extended.save_pretrained(tmp_path)
    extended = AutoTokenizer.from_pretrained(tmp_path)
    assert encode_text(extended, text) == encode_text(TOKENIZER, text)


def test_frequent_words_break_ties_by_the_alphabet() -> None:
    assert frequent_words(["b a c", "c b a", "c d"], 3) == ["c", "a", "b"]
