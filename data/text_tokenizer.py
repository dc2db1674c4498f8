"""The built-in text tokenizer: 256 bytes, plus the corpus' words as single tokens.

A byte-level BPE (Sennrich et al. 2016; bytes as in GPT-2) without merges: with `ignore_merges` a whole word that is
in the vocabulary is one token, and anything else falls back to its bytes, so any transcript can be written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from data import storage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def frequent_words(texts: Iterable[str], max_words: int) -> list[str]:
    """The at most `max_words` most frequent whitespace-separated words of `texts`; ties in alphabetical order."""
    counts = Counter(word for text in texts for word in text.split())
    return sorted(counts, key=lambda word: (-counts[word], word))[:max_words]


def build_byte_words_tokenizer(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer in which every one of `words` is one token when it follows a space (or begins the text).

    `decode(encode(text)) == text` for every text without whitespace at its ends. A word that the pre-tokenizer
    splits (`don't`, `3rd`) gets a token for each of its pieces.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)
    vocabulary = {byte: index for index, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for word in words:
        for piece, _span in pre_tokenizer.pre_tokenize_str(word.strip()):
            vocabulary.setdefault(piece, len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizer
    # The space that add_prefix_space put before the first word is taken off again.
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)


def load_text_tokenizer(folder: str) -> Any:
    """The text tokenizer of a folder, local or a URL, by transformers' own loader."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(storage.local_folder(folder)))


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Ids of `text` without its outer whitespace. No special token is added, and none is read out of the text:
    a transcript that says "[eos]" stays text, also in a saved tokenizer that has the markers as added tokens."""
    ids = tokenizer(text.strip(), add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [int(token) for token in ids]


def decode_text(tokenizer: Any, ids: Iterable[int]) -> str:
    """The text of `ids`, without outer whitespace. Bytes that are not UTF-8 become U+FFFD."""
    text = tokenizer.decode(
        [int(token) for token in ids], skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return str(text).strip()
