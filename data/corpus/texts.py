"""Texts of the built-in corpus over a closed vocabulary: ten-slot sentences, digit strings, vocabulary lists."""

import random
from collections.abc import Callable

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SLOTS: tuple[tuple[str, ...], ...] = (
    ("the", "our", "this"),
    ("young", "happy", "clever", "lazy"),
    ("doctor", "farmer", "teacher", "sailor", "painter"),
    ("quickly", "slowly", "often"),
    ("found", "bought", "carried", "wanted", "dropped"),
    DIGITS[2:],
    ("green", "yellow", "purple", "orange"),
    ("boxes", "apples", "windows", "baskets", "bottles"),
    ("near", "behind", "under"),
    ("london", "berlin", "boston", "canada"),
)

_PATIENCE = 2000  # draws in a row that bring nothing new


def sentence(rng: random.Random) -> str:
    """Ten words, one of each slot: "the young doctor quickly found seven green boxes near london"."""
    return " ".join(rng.choice(slot) for slot in SLOTS)


def digit_string(rng: random.Random) -> str:
    """Four to seven digits, free of any grammar: "four four nine zero"."""
    return " ".join(rng.choice(DIGITS) for _ in range(rng.randint(4, 7)))


class SplitTexts:
    """Keeps the texts of the splits pairwise disjoint. Ask for the test split first, then dev, then train."""

    def __init__(self) -> None:
        self._split_of: dict[str, str] = {}

    def free(self, text: str, split: str) -> bool:
        """Whether `text` may stand in `split`: new, or used in that split before."""
        return self._split_of.get(text, split) == split

    def claim(self, text: str, split: str) -> None:
        """Keep `text` for `split`."""
        self._split_of[text] = split

    def draw(self, split: str, count: int, make: Callable[[], str]) -> list[str]:
        """`count` texts of `split` from `make`; distinct ones outside train, where repeats are natural.

        Raises ValueError when `make` has not that many.
        """
        texts: list[str] = []
        misses = 0
        while len(texts) < count:
            text = make()
            if self.free(text, split) and (split == "train" or text not in self._split_of):
                self.claim(text, split)
                texts.append(text)
                misses = 0
            elif (misses := misses + 1) >= _PATIENCE:
                raise ValueError(f"{split}: no new text after {len(texts)} of {count}: ask for fewer utterances")
        return texts
