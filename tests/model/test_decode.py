"""Decoding: the same tokens as Hugging Face's forward pass, whatever company a request is in."""

import numpy as np
import pytest
import torch

from data.errors import InputError
from data.grammar.continuation import Continuation, Step
from data.vocabulary import Block
from model.decode import Prompt, Sampling, generate, step_model
from model.llama_steps import HuggingFaceSteps, LlamaSteps

VOCABULARY = 128
TEXT, UNIT = Block("text", 0, 40), Block("unit.0", 40, 60)
START, EOS = Block("[text]", 100, 1), Block("[eos]", 101, 1)
ASR = Continuation(
    (Step(None, (START,), False), Step("text", (TEXT,), True), Step(None, (EOS,), False)), padded_size=VOCABULARY
)
TTS = Continuation((Step("unit", (UNIT,), True), Step(None, (EOS,), False)), padded_size=VOCABULARY)


@pytest.fixture(scope="module")
def lm():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        max_position_embeddings=128,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def model(lm):
    return step_model(lm)


def prompts(count: int, seed: int, **sampling: float) -> list[Prompt]:
    rng = np.random.default_rng(seed)
    return [
        Prompt(
            rng.integers(0, VOCABULARY, rng.integers(1, 40), dtype=np.int32),
            (ASR, TTS)[index % 2],
            int(rng.integers(1, 30)),
            Sampling(**sampling, seed=index),
        )
        for index in range(count)
    ]


def test_tokens_do_not_depend_on_company(model) -> None:
    asked = prompts(17, seed=1)
    alone = [generate(model, [prompt])[0] for prompt in asked]
    for size in (2, 5, 17):
        together = [got for start in range(0, 17, size) for got in generate(model, asked[start : start + size])]
        assert [got.ids.tolist() for got in together] == [got.ids.tolist() for got in alone]
        assert [got.finished for got in together] == [got.finished for got in alone]


def test_a_sampled_request_draws_the_same_whatever_its_company(model) -> None:
    asked = prompts(8, seed=2, temperature=1.0, top_p=0.9, top_k=20)
    alone = [generate(model, [prompt])[0].ids.tolist() for prompt in asked]
    assert [got.ids.tolist() for got in generate(model, asked)] == alone
    again = [generate(model, [prompt])[0].ids.tolist() for prompt in prompts(8, seed=2, temperature=1.0)]
    assert again != alone


def test_sampling_from_almost_no_mass_is_greedy(model) -> None:
    greedy = [got.ids.tolist() for got in generate(model, prompts(6, seed=3))]
    nucleus = [got.ids.tolist() for got in generate(model, prompts(6, seed=3, temperature=1.0, top_p=0.0))]
    first = [got.ids.tolist() for got in generate(model, prompts(6, seed=3, temperature=2.0, top_k=1))]
    assert nucleus == greedy
    assert first == greedy


def test_every_generated_id_is_legal(model) -> None:
    asked = prompts(20, seed=4, temperature=3.0)
    for prompt, got in zip(asked, generate(model, asked), strict=True):
        state = prompt.continuation.state_after(got.ids)
        assert got.finished == (state == prompt.continuation.end)
        assert len(got.ids) <= prompt.max_new_tokens


def test_logits_are_those_of_hugging_face(lm) -> None:
    ours, theirs = LlamaSteps(lm, torch.float32), HuggingFaceSteps(lm, torch.float32)
    ids_BP, padding_B = torch.randint(0, VOCABULARY, (3, 9)), torch.tensor([0, 4, 8])
    for first, second in [(ours.prefill(ids_BP, padding_B, 20), theirs.prefill(ids_BP, padding_B, 20))]:
        torch.testing.assert_close(first, second, atol=2e-5, rtol=1e-5)
    for token in (5, 77):
        ids_B = torch.full((3,), token)
        torch.testing.assert_close(ours.step(ids_B), theirs.step(ids_B), atol=2e-5, rtol=1e-5)
    rows = torch.tensor([2, 0])
    ours.keep(rows)
    theirs.keep(rows)
    ids_B = torch.tensor([1, 2])
    torch.testing.assert_close(ours.step(ids_B), theirs.step(ids_B), atol=2e-5, rtol=1e-5)


def test_a_prompt_beyond_the_positions_is_refused(model) -> None:
    with pytest.raises(InputError, match="128 positions"):
        generate(model, [Prompt(np.zeros(128, dtype=np.int32), ASR, 5)])


def test_generation_ends_at_the_last_position(model) -> None:
    (got,) = generate(model, [Prompt(np.zeros(125, dtype=np.int32), TTS, 50)])
    assert len(got.ids) <= 3


def test_no_prompts_give_no_answers(model) -> None:
    assert generate(model, []) == []
