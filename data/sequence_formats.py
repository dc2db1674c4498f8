"""Configuration of the published sequence formats: `grammar.formats: {task: {kind: …}}` of a recipe.

Markers, chat roles and fixed words are data: the defaults spell them as the publication does, a recipe may change
them. A *pattern* (data/grammar/pattern.py) is a line with `[markers]`, `<markers>`, `{slots}`, fixed words and one `|`
before what is generated.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from data.frozen import Frozen

MARKER = re.compile(r"\[[^\[\]\s{}]+\]|<[^<>\s{}]+>")
SLOT = re.compile(r"\{([^{}]+)\}")
TEXT_SLOTS = ("text", "caption", "instruction")
LINKS = ("response", "rejected")  # records that a record leads to

Words = tuple[int, int]
Loss = Literal["all", "responses"]


class SequenceFormat(Frozen):
    """What all formats share. `PATTERNS` names the fields in which markers are spelt."""

    PATTERNS: ClassVar[tuple[str, ...]] = ()

    spelling: dict[str, str] = Field(
        {}, description="stream -> how `python -m data.grammar show` spells its codes, e.g. unit: '[Hu{}]'"
    )
    frame_rates_hz: dict[str, float] = Field(
        {}, description="stream -> codes per second, for formats that cut by time; default: what the store says"
    )

    def patterns(self) -> list[str]:
        """Everything in which the format spells markers and slots."""
        return [text for name in self.PATTERNS for text in _strings(getattr(self, name))]

    def markers(self) -> set[str]:
        """The markers, with brackets."""
        return {marker for text in self.patterns() for marker in MARKER.findall(text)}

    def streams(self) -> set[str]:
        """The streams that the format can show."""
        fields = (slot.rpartition(".")[2] for text in self.patterns() for slot in SLOT.findall(text))
        return {field for field in fields if field not in (*TEXT_SLOTS, "x")}


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Frozen):
        yield from _strings([getattr(value, name) for name in type(value).model_fields])
    elif isinstance(value, Mapping):
        yield from _strings(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


class UnitLm(SequenceFormat):
    """A language model of speech units (GSLM, TWIST, Slam)."""

    PATTERNS: ClassVar = ("pattern",)
    kind: Literal["unit_lm"] = "unit_lm"
    pattern: str = "[lm] | {unit} [eos]"
    deduplicate: bool = Field(False, description="show runs of equal units as one; a store may have done so already")


class TextLm(SequenceFormat):
    """A language model of text."""

    PATTERNS: ClassVar = ("pattern",)
    kind: Literal["text_lm"] = "text_lm"
    pattern: str = "[lm] | {text} [eos]"
    deduplicate: bool = False


class Interleaving(SequenceFormat):
    """Text and speech in one sequence, each span led by its modality's marker."""

    PATTERNS: ClassVar = ("text_marker", "speech_marker", "end")
    shows: Literal["auto", "interleaved", "speech", "text"] = Field(
        "auto", description="auto: interleaved where a record has words with times, else its speech, else its text"
    )
    text_marker: str = "[Text]"
    speech_marker: str = "[Speech]"
    end: str | None = Field(
        None, description="marker after the last span; the publications have none, serving wants it"
    )
    generates: Literal["any", "speech", "text"] = Field(
        "any", description="modality of what follows a prompt; the other one's ids are banned"
    )
    unit: str = Field("unit", description="stream of speech units")
    deduplicate: bool = Field(True, description="show runs of equal units as one")

    def streams(self) -> set[str]:
        """The unit stream."""
        return {self.unit}


class SpiritLmBase(Interleaving):
    """SPIRIT LM (Nguyen et al. 2024): interleaved at word boundaries, spans drawn anew at every visit."""

    kind: Literal["spiritlm_base"] = "spiritlm_base"
    text_words: Words = Field((10, 30), description="words of a text span, at least and at most")
    speech_words: Words = Field((5, 15), description="words of a speech span, at least and at most")
    spelling: dict[str, str] = Field({"unit": "[Hu{}]"}, description="as SequenceFormat.spelling")


class SpiritLmExpressive(SpiritLmBase):
    """SPIRIT LM Expressive: units, pitch and style of a speech span sorted by time."""

    kind: Literal["spiritlm_expressive"] = "spiritlm_expressive"  # type: ignore[assignment]
    shows: Literal["auto", "interleaved", "speech", "text"] = Field(
        "speech", description="speech: the whole record as speech; auto, interleaved and text as in spiritlm_base"
    )
    pitch: str = Field("pitch", description="stream of pitch codes, shown deduplicated")
    style: str = Field("style", description="stream of style codes, shown as they are")
    spelling: dict[str, str] = Field(
        {"unit": "[Hu{}]", "pitch": "[Pi{}]", "style": "[St{}]"}, description="as SequenceFormat.spelling"
    )

    def streams(self) -> set[str]:
        """Units, pitch and style."""
        return {self.unit, self.pitch, self.style}


class SlamPoisson(Interleaving):
    """Slam's interleaving (Maimon et al. 2025): spans of Poisson length become speech, overlapping draws rejected."""

    kind: Literal["slam_poisson"] = "slam_poisson"
    text_marker: str = "<text>"
    speech_marker: str = "<speech>"
    mean_span_words: float = Field(10.0, gt=0, description="lambda of the Poisson distribution")
    speech_fraction: float = Field(0.3, ge=0, le=1, description="share of the words that become speech, at least")
    spelling: dict[str, str] = Field({"unit": "<Un{}>"}, description="as SequenceFormat.spelling")


class SpiritLmPairs(SequenceFormat):
    """SPIRIT LM's pairs: the second modality's marker says which task it is."""

    PATTERNS: ClassVar = ("asr", "tts")
    kind: Literal["spiritlm_pairs"] = "spiritlm_pairs"
    asr: str = "[Speech] {unit} | [ASR] {text}"
    tts: str = "[Text] {text} | [TTS] {unit}"
    asr_probability: float = Field(0.5, ge=0, le=1, description="chance of asr; 1 or 0 makes a task of one direction")
    loss: Loss = "all"
    deduplicate: bool = True
    spelling: dict[str, str] = Field({"unit": "[Hu{}]"}, description="as SequenceFormat.spelling")


class Instructed(SequenceFormat):
    """Formats whose first words are drawn from a set of instructions."""

    instructions: dict[str, tuple[str, ...]] = Field(
        {}, description="asr, tts, music_caption or text_to_music -> descriptions in place of the built-in ones"
    )
    prefix: str = Field("", description="a system prompt before the first turn; never trained on")
    loss: Loss = Field("all", description="all: everything but the prefix (the papers); responses: what is answered")
    deduplicate: bool = True


class SpeechGptCrossModal(Instructed):
    """SpeechGPT's cross-modal instructions (Zhang et al. 2023): recognise or speak, pairs joined to many turns."""

    PATTERNS: ClassVar = ("asr", "tts")
    kind: Literal["speechgpt_cross_modal"] = "speechgpt_cross_modal"
    asr: str = "[Human]: {instruction}. This is input: <sosp>{unit}<eosp><eoh>. [SpeechGPT]: | {text}<eos>."
    tts: str = "[Human]: {instruction}. This is input: {text}<eoh>. [SpeechGPT]: | <sosp>{unit}<eosp><eos>."
    asr_probability: float = Field(0.5, ge=0, le=1, description="chance of asr at each turn")
    joins: bool = Field(True, description="whether training joins pairs to many turns, up to the length of a row")
    spelling: dict[str, str] = Field({"unit": "<{}>"}, description="as SequenceFormat.spelling")


_HEARD = "[Human]: This is a spoken instruction: <sosp>{unit}<eosp>."


class SpeechGptChain(Instructed):
    """SpeechGPT's chain of modality: [tq] the question's text, [ta] the answer's text, [ua] the answer's units.

    The released samples lack the leading [tq], their text-to-text form lacks <eoh>, and their trainers never add
    [tq], [ta], [ua] and <eoa> to the vocabulary: here all of them are there.
    """

    PATTERNS: ClassVar = ("forms",)
    kind: Literal["speechgpt_chain_of_modality"] = "speechgpt_chain_of_modality"
    forms: dict[str, str] = Field(
        {
            "s2s": f"{_HEARD} Write down what was said, then an answer, then speak the answer.<eoh>. "
            "[SpeechGPT]: | [tq] {text}; [ta] {response.text}; [ua] <sosp>{response.unit}<eosp><eoa>.",
            "s2t": f"{_HEARD} Write down what was said, then an answer.<eoh>. "
            "[SpeechGPT]: | [tq] {text}; [ta] {response.text}<eoa>.",
            "t2s": "[Human]: {text} Write down an answer, then speak it.<eoh>. "
            "[SpeechGPT]: | [ta] {response.text}; [ua] <sosp>{response.unit}<eosp><eoa>.",
            "t2t": "[Human]: {text}<eoh>. [SpeechGPT]: | [ta] {response.text}<eoa>.",
        },
        description="form -> pattern",
    )
    weights: dict[str, float] = Field(
        {}, description="form -> how often it is drawn; default all alike, a form left out is never drawn"
    )
    prefix: str = "You are SpeechGPT, an assistant that listens, reads, writes and speaks."
    spelling: dict[str, str] = Field({"unit": "<{}>"}, description="as SequenceFormat.spelling")


class Modality(Frozen):
    """What AnyGPT knows of one kind of audio."""

    text: Literal["text", "caption"] = Field(description="the record's field that puts it into words")
    x: str = Field(description="pattern of its codes")
    to_text: str = Field(description="instruction set of X -> text")
    from_text: str = Field(description="instruction set of text -> X")


class AnyGpt(Instructed):
    """AnyGPT (Zhan et al. 2024): X -> text and text -> X. The first modality that a record has is shown."""

    PATTERNS: ClassVar = ("x_to_text", "text_to_x", "modalities")
    kind: Literal["anygpt"] = "anygpt"
    x_to_text: str = "[Human]: {instruction}. {x}<eoh> [MMGPT]: | {text}<eos>"  # instructions carry no full stop
    text_to_x: str = "[Human]: {instruction}. This is input: {text}<eoh> [MMGPT]: | {x}<eos>"
    x_to_text_probability: float = Field(0.5, ge=0, le=1, description="chance of X -> text")
    modalities: dict[str, Modality] = Field(
        {
            "semantic": Modality(text="text", x="<sosp>{semantic}<eosp>", to_text="asr", from_text="tts"),
            "unit": Modality(text="text", x="<sosp>{unit}<eosp>", to_text="asr", from_text="tts"),
            "music": Modality(
                text="caption", x="<somu>{music}<eomu>", to_text="music_caption", from_text="text_to_music"
            ),
        },
        description="stream -> how it is shown; those that the vocabulary lacks are left out",
    )
    deduplicate: bool = False
    spelling: dict[str, str] = Field(
        {"semantic": "<🗣️{}>", "unit": "<🗣️{}>", "music": "<🎶{}>"}, description="as SequenceFormat.spelling"
    )


class Party(Frozen):
    """One side of a dialogue."""

    name: str = Field(description="what a turn's `party` says")
    marker: str = Field(description="leads its turns")
    end: str = Field(description="ends its turns")
    answers: bool = Field(False, description="whether its turns are what the model learns to say")


class AnyGptChat(SequenceFormat):
    """AnyGPT's dialogues: a record, its response, that one's response …; turns are written, spoken or carry music.

    An answer to a spoken turn first writes down what was said.
    """

    PATTERNS: ClassVar = ("parties", "transcript_marker", "answer_marker", "modalities")
    kind: Literal["anygpt_chat"] = "anygpt_chat"
    parties: tuple[Party, ...] = (
        Party(name="human", marker="[Human]", end="<eoh>"),
        Party(name="anygpt", marker="[AnyGPT]", end="<eom>", answers=True),
    )
    transcript_marker: str = "<-Ins->"
    answer_marker: str = "<-Res->"
    modalities: dict[str, str] = Field(
        {"semantic": "<sosp>{semantic}<eosp>", "unit": "<sosp>{unit}<eosp>", "music": "<somu>{music}<eomu>"},
        description="stream -> pattern of its codes; the first that a turn has is shown",
    )
    spoken: tuple[str, ...] = Field(
        ("semantic", "unit"), description="streams that speak a turn's text: an answer writes it down first"
    )
    loss: Loss = "responses"
    deduplicate: bool = False
    spelling: dict[str, str] = Field(
        {"semantic": "<🗣️{}>", "unit": "<🗣️{}>", "music": "<🎶{}>"}, description="as SequenceFormat.spelling"
    )

    @field_validator("parties")
    @classmethod
    def _two_at_least(cls, parties: tuple[Party, ...]) -> tuple[Party, ...]:
        names = [party.name for party in parties]
        markers = [party.marker for party in parties]
        if len(parties) < 2 or len(set(names)) < len(names) or len(set(markers)) < len(markers):
            raise ValueError(
                f"parties {names} with markers {markers}: give at least two, with names and markers of their own"
            )
        if not any(party.answers for party in parties):
            raise ValueError(f"none of the parties {names} has answers: true: say which one the model speaks for")
        return parties


class TtsIcl(SequenceFormat):
    """Zero-shot voices by in-context learning: a prompt's text and units, a text, and its units in the same voice."""

    PATTERNS: ClassVar = ("pattern",)
    kind: Literal["tts_icl"] = "tts_icl"
    pattern: str = "[tts] {text} [speech] {unit} [text] {response.text} | [speech] {response.unit} [eos]"
    pairs: Literal["words", "response"] = Field(
        "words",
        description="words: a record with word times is cut in two at a drawn word; response: the record is the "
        "prompt, its response the target",
    )
    prompt_s: float = Field(3.0, gt=0, description="words: the prompt is at most so long, but one word at least")
    unit: str = Field("unit", description="stream whose frames word times are cut at")
    deduplicate: bool = False


class Chunked(SequenceFormat):
    """n text tokens, then m audio tokens, over and over, so that speech starts before the text ends (GLM-4-Voice)."""

    PATTERNS: ClassVar = ("prompt", "end")
    kind: Literal["chunked"] = "chunked"
    prompt: str = Field("<|assistant|>", description="pattern of what comes before, e.g. <|user|> {unit} <|assistant|>")
    text: str = Field("text", description="slot of the text, e.g. response.text")
    audio: str = Field("unit", description="slot of the audio, e.g. response.unit")
    text_tokens: int = Field(13, ge=1)
    audio_tokens: int = Field(26, ge=1)
    end: str = "[eos]"
    deduplicate: bool = False
    spelling: dict[str, str] = Field({"unit": "<|audio_{}|>"}, description="as SequenceFormat.spelling")

    def streams(self) -> set[str]:
        """The audio's stream, and those of the prompt."""
        return super().streams() | {self.audio.rpartition(".")[2]}


class Preference(SequenceFormat):
    """A prompt with a chosen and a rejected answer: `response` and `rejected` of a record."""

    PATTERNS: ClassVar = ("prompt", "answer", "separator")
    kind: Literal["preference"] = "preference"
    prompt: str = "[Text] {text} [Speech]"
    answer: str = Field("{unit} [eos]", description="pattern of an answer; slots are those of the answering record")
    separator: str = Field("[rejected]", description="marker between the chosen and the rejected answer")
    deduplicate: bool = False
    spelling: dict[str, str] = Field({"unit": "<Un{}>"}, description="as SequenceFormat.spelling")


FormatConfig = Annotated[
    UnitLm
    | TextLm
    | SpeechGptCrossModal
    | SpeechGptChain
    | SpiritLmBase
    | SpiritLmPairs
    | SlamPoisson
    | SpiritLmExpressive
    | AnyGpt
    | AnyGptChat
    | TtsIcl
    | Chunked
    | Preference,
    Field(discriminator="kind"),
]
