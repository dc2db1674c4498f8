"""Configuration of the data room: corpora, tokenization, sequences, mixtures."""

from itertools import pairwise
from math import inf
from typing import Annotated, Literal

from pydantic import Field, model_validator

from data.corpus.config import BroughtCorpusConfig, SeveralCorpora
from data.frozen import Frozen, placement
from data.grammar.formats import FormatConfig


class BuiltinSpeech(Frozen):
    """Speech made on this machine by espeak-ng: sentences of a template and strings of digits."""

    train_utterances: int = Field(4800, ge=1, description="utterances of the train split")
    dev_utterances: int = Field(100, ge=1, description="utterances of the dev split (seen voices)")
    test_utterances: int = Field(200, ge=1, description="utterances of the test split per condition")
    tts_utterances: int = Field(120, ge=1, description="how many seen-voice test utterances TTS is judged on")
    digit_fraction: float = Field(0.4, ge=0, le=1, description="share of digit strings; the rest are sentences")
    voices: tuple[str, ...] = Field(description="voices of train, dev and test")
    new_voices: tuple[str, ...] = Field(description="voices of the trained accent, in the test split only")
    new_accent_voices: tuple[str, ...] = Field(description="voices of another accent, in the test split only")


class BuiltinQuestions(Frozen):
    """Spoken questions with computable answers, for chain of modality."""

    train_questions: int = Field(1500, ge=0, description="question and answer pairs of the train split")
    dev_questions: int = Field(20, ge=0, description="question and answer pairs of the dev split")
    test_questions: int = Field(60, ge=0, description="question and answer pairs of the test split")


class BuiltinMusic(Frozen):
    """Synthetic music clips of at most 3 s with captions."""

    train_clips: int = Field(600, ge=0, description="clips of the train split")
    dev_clips: int = Field(32, ge=0, description="clips of the dev split, with combinations of its own")
    test_clips: int = Field(64, ge=0, description="clips of the test split, with held-out attribute combinations")
    duration_s: float = Field(2.4, gt=0, le=3.0, description="length of a clip in seconds")


class BuiltinCorpus(Frozen):
    """A corpus made on the machine: no download, the same bytes for the same seed."""

    kind: Literal["builtin"]
    sample_rate: int = Field(16000, ge=8000, description="sample rate of the written audio in Hz")
    speech: BuiltinSpeech
    questions: BuiltinQuestions = BuiltinQuestions()
    music: BuiltinMusic = BuiltinMusic()
    phones: bool = Field(
        False, description="write phones [[ipa, start_s, end_s], …] into the manifest, for PNMI of the units"
    )
    shard_utterances: int = Field(400, ge=1, description="utterances made by one espeak-ng process")
    num_workers: int = placement(2, "processes that synthesise at the same time", ge=1)


CorpusConfig = Annotated[BuiltinCorpus | BroughtCorpusConfig | SeveralCorpora, Field(discriminator="kind")]


class TextConfig(Frozen):
    """The text side of the vocabulary."""

    kind: Literal["byte_words", "pretrained"] = Field(
        "byte_words",
        description="byte_words: 256 bytes plus the corpus' words as single tokens; pretrained: a Hugging Face one",
    )
    path: str | None = Field(None, description="folder or hub id of the pretrained tokenizer")
    max_words: int = Field(512, ge=0, description="at most this many of the most frequent training words get a token")

    @model_validator(mode="after")
    def _pretrained_lies_somewhere(self) -> "TextConfig":
        if self.kind == "pretrained" and self.path is None:
            raise ValueError("text.kind pretrained needs text.path: a folder or a hub id")
        return self


class TokenizeConfig(Frozen):
    """tokenize_speech: manifest -> token store."""

    shard_utterances: int = Field(512, ge=1, description="utterances of one Parquet shard")
    max_duration_s: float = Field(600.0, gt=0, description="a longer recording is quarantined")
    batch_seconds: float = Field(
        60.0, gt=0, description="padded audio of one encoder batch, in seconds; a longer utterance is a batch alone"
    )
    max_bad_fraction: float = placement(0.05, "above this share of quarantined rows the job exits 3", ge=0, le=1)
    num_workers: int = placement(2, "actors that decode and encode", ge=1)
    num_cpus: float = placement(1.0, "CPUs of one actor: so many threads decode, beside the encoder's one", ge=0)
    num_gpus: float = placement(0.0, "GPUs of one actor", ge=0)
    stall_s: float = placement(1800.0, "without progress for so long the job fails and says where", gt=0)


class DrawConfig(Frozen):
    """How many more descriptions of each task are asked of an OpenAI-compatible endpoint (`draw_instructions`)."""

    endpoint: str = Field(description="base URL, e.g. http://127.0.0.1:8000/v1; OPENAI_API_KEY is its key")
    model: str = Field("default", description="the endpoint's model")
    asr: int = Field(0, ge=0)
    tts: int = Field(0, ge=0)
    music_caption: int = Field(0, ge=0)
    text_to_music: int = Field(0, ge=0)

    @property
    def counts(self) -> dict[str, int]:
        """Set -> how many, where any."""
        counts = {name: getattr(self, name) for name in ("asr", "tts", "music_caption", "text_to_music")}
        return {name: count for name, count in counts.items() if count}


class GrammarConfig(Frozen):
    """How records become sequences. See data/grammar/template.py for the language of templates."""

    templates: dict[str, str] = Field(
        {},
        description="task -> template, e.g. asr: '[asr] {unit} | {text}': slots are fields of the record, words in "
        "brackets are markers, what follows | is trained on",
    )
    formats: dict[str, FormatConfig] = Field(
        {},
        description="task -> a published format, e.g. speech: {kind: spiritlm_base}; `python -m data.grammar list`",
        json_schema_extra={"absent_when_default": True},
    )
    draw: DrawConfig | None = Field(
        None,
        description="descriptions of tasks drawn beside the built-in ones, for formats that name none of their own",
        json_schema_extra={"absent_when_default": True},
    )
    groups: dict[str, tuple[str, ...]] = Field(
        description="mixture group -> its tasks, e.g. music: [text_to_music, music_to_caption]; a mixture weighs groups"
    )

    @property
    def tasks(self) -> tuple[str, ...]:
        """All tasks: those of templates, then those of formats."""
        return (*self.templates, *self.formats)

    @model_validator(mode="after")
    def _groups_name_tasks(self) -> "GrammarConfig":
        twice = sorted(set(self.templates) & set(self.formats))
        if twice:
            raise ValueError(f"grammar.templates and grammar.formats both have {twice}: give each task one of the two")
        for group, tasks in self.groups.items():
            missing = [task for task in tasks if task not in self.tasks]
            if missing:
                raise ValueError(
                    f"grammar.groups.{group} names {missing}, which grammar.templates lacks, and grammar.formats too: "
                    f"add them there, or choose from {sorted(self.tasks)}"
                )
        return self


class WeightPoint(Frozen):
    """The weights of a mixture at one step of its phase."""

    step: int = Field(ge=1, description="steps of the phase before it")
    weights: dict[str, float] = Field(description="mixture group -> share; they sum to 1")


class PhaseMixture(Frozen):
    """What a training phase shows, and how much of each."""

    name: str
    weights: dict[str, float] = Field(description="mixture group -> share of the tokens (see unit); they sum to 1")
    unit: Literal["tokens", "samples"] = Field(
        "tokens", description="what the weights are shares of; samples are records, exact in every thousand"
    )
    picks: Literal["largest_deficit", "earliest_deadline"] = Field(
        "earliest_deadline",
        description="how shares of tokens are kept: earliest_deadline to one document either way, largest_deficit "
        "(simpler and older) to one ahead and less than two behind",
    )
    temperature: float = Field(
        1.0,
        ge=0.01,
        allow_inf_nan=False,
        description="a group's weight w counts as w^(1/temperature): above 1 evens the weights out (with sizes as "
        "weights, the rule of T5 and mT5)",
    )
    weight_schedule: tuple[WeightPoint, ...] = Field(
        (),
        description="later weights: straight lines from `weights` at step 0 through these points, then the last one's",
    )
    max_epochs: dict[str, float] = Field(
        {}, description="task -> how often its records are shown at most; its share then goes to the other tasks"
    )
    loss_weights: dict[str, float] = Field({}, description="task -> weight of its target tokens (default 1)")
    crop_probability: float = Field(
        0.0,
        ge=0,
        le=1,
        description="chance that a speech-text record is cut to a span of words at its first visits",
    )
    crop_end_fraction: float = Field(
        0.5, ge=0, le=1, description="share of the phase's steps after which cropping ends"
    )

    @model_validator(mode="after")
    def _weights_sum_to_one(self) -> "PhaseMixture":
        for weights in (self.weights, *(point.weights for point in self.weight_schedule)):
            total = sum(weights.values())
            if not abs(total - 1) <= 1e-6 or any(weight < 0 for weight in weights.values()):  # nor NaN
                raise ValueError(
                    f"weights of phase {self.name!r} sum to {total:g}: give non-negative weights that sum to 1"
                )
        return self

    @model_validator(mode="after")
    def _schedule_ascends(self) -> "PhaseMixture":
        steps = [point.step for point in self.weight_schedule]
        if any(later <= earlier for earlier, later in pairwise(steps)):
            raise ValueError(f"weight_schedule of phase {self.name!r} has steps {steps}: give them in ascending order")
        if self.unit == "samples" and self.picks != "earliest_deadline":
            raise ValueError(f"phase {self.name!r}: picks is for shares of tokens: leave it out with unit: samples")
        bad = {task: epochs for task, epochs in self.max_epochs.items() if not 0 < epochs < inf}
        if bad:
            raise ValueError(
                f"max_epochs of phase {self.name!r} has {bad}: give numbers above 0; for no cap, leave the task out"
            )
        bad = {task: weight for task, weight in self.loss_weights.items() if not 0 <= weight < inf}
        if bad:
            raise ValueError(f"loss_weights of phase {self.name!r} has {bad}: give numbers from 0 on")
        return self
