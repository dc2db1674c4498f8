"""Published formats behind the endpoint: how their answers end, and what is read out of them."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from data.config import GrammarConfig
from data.errors import InputError
from data.grammar.formats.chunked import Chunked
from data.grammar.formats.pairs import SpiritLmPairs
from data.grammar.formats.slam import SlamPoisson
from data.grammar.formats.spiritlm import SpiritLmBase
from data.store import StreamInfo
from data.text_tokenizer import build_byte_words_tokenizer
from data.vocabulary import build_vocabulary
from model.config import LanguageModelConfig
from model.export import export_model
from model.lm import build_language_model
from serve.engine import Engine
from serve.messages import Request

STREAMS = {"unit": StreamInfo(25.0, 1, 20, "u")}
GRAMMAR = GrammarConfig(
    formats={
        "endless": SpiritLmBase(generates="speech"),
        "ending": SpiritLmBase(end="[eos]", text_marker="[T]"),
        "slam": SlamPoisson(generates="speech", end="[eos]"),
        "pairs": SpiritLmPairs(asr_probability=1),
        "chunked": Chunked(prompt="<|user|> {caption} <|assistant|>", text_tokens=2, audio_tokens=3),
    },
    groups={},
)


class Codes:
    """A vocoder whose wave is the codes."""

    sample_rate = 16000

    def synthesize(self, codes: Mapping[str, np.ndarray], voice: Any) -> np.ndarray:
        return codes["unit"][:, 0].astype(np.float32)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    tokenizer = build_byte_words_tokenizer(["one", "two"])
    vocabulary = build_vocabulary(tokenizer, STREAMS, GRAMMAR, [])
    shape = LanguageModelConfig(hidden_size=16, num_layers=1, num_heads=2, intermediate_size=16, max_positions=256)
    folder = str(tmp_path_factory.mktemp("formats") / "model")
    export_model(
        folder, build_language_model(shape, vocabulary, 2), tokenizer, vocabulary, GRAMMAR, [], STREAMS, {}, {}
    )
    made = Engine(folder, max_new_tokens=40)
    made._folder.__dict__["vocoders"] = {"unit": Codes()}
    return made


def test_a_task_that_cannot_end_is_named_and_runs_to_the_limit(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    grammars = engine._folder.grammars
    assert {task: grammar.continuation.can_end for task, grammar in grammars.items()} == {
        "endless": False, "ending": True, "slam": True, "pairs": False, "chunked": True,
    }  # fmt: skip
    with caplog.at_level(logging.WARNING):
        Engine(engine._folder.path, max_new_tokens=7)
    warned = [record.getMessage() for record in caplog.records if "no end marker" in record.getMessage()]
    assert len(warned) == 2
    assert "'endless'" in warned[0]
    assert "grammar.formats.endless.end: '[eos]'" in warned[0]
    assert "'pairs'" in warned[1]
    assert "[eos] at the end of its patterns" in warned[1]
    (reply,) = engine.run("endless", [{"text": "one", "max_new_tokens": 9}])
    assert (reply.generated_tokens, reply.finished) == (9, False)
    assert len(reply.wave) == 9  # what there is of it is spoken


@pytest.mark.parametrize("task", ["ending", "slam"])
def test_with_an_end_marker_answers_stop(engine: Engine, task: str) -> None:
    requests = [Request(task, text="one", temperature=3.0, seed=seed) for seed in range(30)]
    replies = engine.generate(requests)
    assert any(reply.finished and reply.generated_tokens < 40 for reply in replies)


@pytest.mark.parametrize("task", ["ending", "chunked"])
def test_all_spans_and_chunks_of_an_answer_are_read_and_heard(engine: Engine, task: str) -> None:
    given = {"caption" if task == "chunked" else "text": "one"}
    assert given.keys() <= set(engine.tasks[task].inputs)
    several = 0
    for seed in range(12):
        (reply,) = engine.run(task, [{"text": "one", "temperature": 2.0, "seed": seed}])
        spoken = [code for segment in reply.segments if segment.kind == "unit" for code in segment.content]
        assert [] if reply.wave is None else reply.wave.tolist() == spoken
        texts = [segment.content for segment in reply.segments if segment.kind == "text"]
        assert reply.text.replace(" ", "") == "".join(texts).replace(" ", "")
        several += len(reply.segments) > 1
    assert several


def test_without_a_vocoder_written_answers_are_given_and_spoken_ones_refused(engine: Engine) -> None:
    mute = Engine(engine._folder.path, max_new_tokens=12)
    requests = [Request("ending", text="one", temperature=3.0, seed=seed) for seed in range(40)]
    kinds = {}
    for heard, reply in zip(engine.generate(requests), mute.generate(requests), strict=True):
        assert not isinstance(heard, InputError)
        kinds[type(reply).__name__] = reply
        if isinstance(reply, InputError):
            assert "has no vocoder for stream 'unit'" in str(reply)
            continue
        assert reply.wave is None
        assert {segment.kind for segment in reply.segments} == {"text"}
    assert set(kinds) == {"InputError", "Reply"}
