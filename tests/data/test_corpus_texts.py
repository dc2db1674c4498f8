import random

import pytest

from data.config import BuiltinCorpus, BuiltinMusic, BuiltinQuestions, BuiltinSpeech
from data.corpus.builtin import Spoken, plan_speech
from data.corpus.questions import draw_questions
from data.corpus.texts import SplitTexts, digit_string, sentence

VOICES = ("en-US", "en-US+f2", "en-US+m3")


def config(**speech: object) -> BuiltinCorpus:
    values = {"train_utterances": 400, "dev_utterances": 30, "test_utterances": 50, "tts_utterances": 20, **speech}
    return BuiltinCorpus(
        kind="builtin",
        speech=BuiltinSpeech(voices=VOICES, new_voices=("en-US+f1",), new_accent_voices=("en-GB-scotland",), **values),
        questions=BuiltinQuestions(train_questions=300, dev_questions=20, test_questions=60),
        music=BuiltinMusic(),
    )


@pytest.fixture(scope="module")
def planned() -> list[Spoken]:
    return plan_speech(config(), seed=3)


def part(planned: list[Spoken], split: str, name: str) -> list[Spoken]:
    return [spoken for spoken in planned if spoken.split == split and spoken.extra["part"] == name]


def test_the_vocabulary_is_closed_and_small(planned: list[Spoken]) -> None:
    assert 50 <= len({word for spoken in planned for word in spoken.text.split()}) <= 60


def test_sentences_have_ten_words_and_digit_strings_four_to_seven() -> None:
    rng = random.Random(0)
    assert {len(sentence(rng).split()) for _ in range(50)} == {10}
    assert {len(digit_string(rng).split()) for _ in range(200)} == {4, 5, 6, 7}


def test_texts_of_the_splits_are_disjoint_but_for_short_answers(planned: list[Spoken]) -> None:
    texts = {
        split: {
            spoken.text
            for spoken in planned
            if spoken.split == split and (spoken.extra["part"] != "answers" or len(spoken.text.split()) > 2)
        }
        for split in ("train", "dev", "test")
    }
    assert not texts["train"] & texts["test"]
    assert not texts["train"] & texts["dev"]
    assert not texts["dev"] & texts["test"]


def test_half_of_the_test_answers_have_three_or_more_words(planned: list[Spoken]) -> None:
    answers = part(planned, "test", "answers")
    assert sum(len(answer.text.split()) >= 3 for answer in answers) >= len(answers) / 2


def test_every_question_has_its_answer_in_its_voice_and_split(planned: list[Spoken]) -> None:
    by_id = {spoken.id: spoken for spoken in planned}
    questions = [spoken for spoken in planned if spoken.extra["part"] == "questions"]
    assert len(questions) == 380
    for question in questions:
        answer = by_id[question.extra["response"]]
        assert (answer.voice, answer.split, answer.extra["part"]) == (question.voice, question.split, "answers")
        assert question.split != "test" or question.voice in VOICES


def test_answers_follow_from_questions() -> None:
    texts = SplitTexts()
    answers = {question.text: question.answer for question in draw_questions("train", 400, random.Random(1), texts)}
    for text, answer in answers.items():
        words = text.split()
        if words[0] == "repeat":
            assert answer == " ".join(words[1:])
        elif words[0] == "say":
            assert answer == " ".join(words[1:-1] * 2)
    assert answers.get("what comes after three four", "five") == "five"
    kinds = {question.kind for question in draw_questions("train", 50, random.Random(1), SplitTexts())}
    assert kinds == {"repeat", "twice_two", "twice_one", "after", "before"}


@pytest.mark.parametrize("condition", ["seen", "new_voice", "new_accent"])
def test_every_condition_keeps_the_mix_of_sentences_and_digits(planned: list[Spoken], condition: str) -> None:
    spoken = [item for item in planned if item.extra.get("condition") == condition]
    assert len(spoken) == 50
    assert sum(item.extra["part"] == "digits" for item in spoken) == 20
    assert len({item.text for item in spoken}) == 50


def test_tts_is_judged_on_seen_voices_in_the_same_mix(planned: list[Spoken]) -> None:
    marked = [item for item in planned if item.extra.get("tts_test")]
    assert len(marked) == 20
    assert sum(item.extra["part"] == "digits" for item in marked) == 8
    assert all(item.extra["condition"] == "seen" for item in marked)


def test_held_out_voices_are_heard_in_the_test_split_alone(planned: list[Spoken]) -> None:
    assert {item.voice for item in planned if item.split != "test"} == set(VOICES)


def test_ids_are_unique_and_the_seed_decides_everything(planned: list[Spoken]) -> None:
    assert len({item.id for item in planned}) == len(planned)
    assert plan_speech(config(), seed=3) == planned
    assert plan_speech(config(), seed=4) != planned


def test_asking_for_more_texts_than_there_are_is_an_error() -> None:
    with pytest.raises(ValueError, match="after 2 of 3"):
        SplitTexts().draw("test", 3, iter(["a", "b", *["a"] * 5000]).__next__)
    texts = SplitTexts()
    assert texts.draw("test", 1, lambda: "a") == ["a"]
    assert texts.draw("train", 2, iter(["a", "b", "b"]).__next__) == ["b", "b"]
