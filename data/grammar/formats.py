"""The published formats by kind. A new one is a file, a configuration class and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol

from data.errors import InputError
from data.grammar.base import Grammar
from data.grammar.spelling import Speller
from data.grammar.template import TextIds
from data.sequence_formats import FormatConfig
from data.vocabulary import Vocabulary

KINDS: dict[str, str] = {
    "unit_lm": "data.grammar.lm:PatternGrammar",
    "text_lm": "data.grammar.lm:PatternGrammar",
    "speechgpt_cross_modal": "data.grammar.speechgpt:CrossModal",
    "speechgpt_chain_of_modality": "data.grammar.speechgpt:ChainOfModality",
    "spiritlm_base": "data.grammar.spiritlm:SpiritLm",
    "spiritlm_pairs": "data.grammar.pairs:Pairs",
    "slam_poisson": "data.grammar.spiritlm:SpiritLm",
    "spiritlm_expressive": "data.grammar.spiritlm:SpiritLm",
    "anygpt": "data.grammar.anygpt:AnyGptGrammar",
    "anygpt_chat": "data.grammar.anygpt_chat:AnyGptChatGrammar",
    "tts_icl": "data.grammar.tts_icl:TtsIclGrammar",
    "chunked": "data.grammar.chunked:ChunkedGrammar",
    "preference": "data.grammar.preference:PreferenceGrammar",
}


class HasRate(Protocol):
    """What formats that cut by time need to know of a stream (data.store.StreamInfo has it)."""

    @property
    def frame_rate_hz(self) -> float: ...


def build_format(
    task: str, config: FormatConfig, vocabulary: Vocabulary, text: TextIds, streams: Mapping[str, HasRate]
) -> Grammar:
    """The grammar of a task. Raises InputError where the vocabulary lacks what it needs, or two rates differ."""
    known = {name: info.frame_rate_hz for name, info in streams.items()}
    for name, rate in config.frame_rates_hz.items():
        if known.get(name, rate) != rate:
            raise InputError(
                f"grammar.formats.{task}.frame_rates_hz.{name} is {rate:g}, the store's stream has {known[name]:g}: "
                "leave it out"
            )
    module, name = KINDS[config.kind].split(":")
    made: Any = getattr(import_module(module), name)
    grammar: Grammar = made(config, Speller(task, vocabulary, text), known | config.frame_rates_hz)
    return grammar
