"""Spoken questions with computable answers, over the closed vocabulary of the built-in corpus."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from data.corpus.texts import DIGITS, SLOTS, SplitTexts

# Words worth repeating: digits, doers, colours, things.
ITEMS = (*DIGITS, *SLOTS[2], *SLOTS[6], *SLOTS[7])


@dataclass(frozen=True)
class Question:
    """A question, its answer, and its kind (repeat, twice_two, twice_one, after, before)."""

    text: str
    answer: str
    kind: str


def _repeat(rng: random.Random) -> Question:
    items = " ".join(rng.choice(ITEMS) for _ in range(rng.randint(3, 4)))
    return Question(f"repeat {items}", items, "repeat")


def _twice_two(rng: random.Random) -> Question:
    items = " ".join(rng.choice(ITEMS) for _ in range(2))
    return Question(f"say {items} twice", f"{items} {items}", "twice_two")


def _twice_one() -> list[Question]:
    return [Question(f"say {item} twice", f"{item} {item}", "twice_one") for item in ITEMS]


def _counting(kind: str, step: int) -> list[Question]:
    """Runs of one to three digits that count up, and the digit after (step 1) or before (step -1) them."""
    questions = []
    for length in (1, 2, 3):
        for start in range(11 - length):
            wanted = start + length if step > 0 else start - 1
            if 0 <= wanted <= 9:
                run = " ".join(DIGITS[start : start + length])
                questions.append(Question(f"what comes {kind} {run}", DIGITS[wanted], kind))
    return questions


# Some kinds have so few texts that each split owns a fixed part of them. Seven questions in ten have answers of
# three or more words.
_TWICE_TWO_SHARE = 0.12  # _repeat takes what is left
_FEW: tuple[tuple[tuple[Question, ...], float], ...] = (
    (tuple(_twice_one()), 0.08),
    (tuple(_counting("after", 1)), 0.1),
    (tuple(_counting("before", -1)), 0.1),
)
_PARTS = {"test": (0.0, 0.2), "dev": (0.2, 0.3), "train": (0.3, 1.0)}


def draw_questions(split: str, count: int, rng: random.Random, texts: SplitTexts) -> list[Question]:
    """`count` questions of `split`, kinds by their shares: texts and long answers are no other split's.

    Raises ValueError when the vocabulary has not that many.
    """
    drawn = [
        rng.choice(_part_of(questions, split)) for questions, share in _FEW for _ in range(int(share * count + 1e-9))
    ]
    twice = int(_TWICE_TWO_SHARE * count + 1e-9)
    drawn += [_draw(_twice_two, split, rng, texts) for _ in range(twice)]
    drawn += [_draw(_repeat, split, rng, texts) for _ in range(count - len(drawn))]
    rng.shuffle(drawn)
    return drawn


def _part_of(questions: tuple[Question, ...], split: str) -> list[Question]:
    order = list(questions)
    random.Random(questions[0].kind).shuffle(order)
    low, high = _PARTS[split]
    return order[int(low * len(order)) : int(high * len(order))]


def _draw(make: Callable[[random.Random], Question], split: str, rng: random.Random, texts: SplitTexts) -> Question:
    for _ in range(1000):
        question = make(rng)
        # The answer is an utterance of its own: it, too, must be new to the other splits.
        if texts.free(question.text, split) and texts.free(question.answer, split):
            texts.claim(question.text, split)
            texts.claim(question.answer, split)
            return question
    raise ValueError(f"{split}: no new question of this kind is left: ask for fewer")
