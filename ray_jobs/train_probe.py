"""A look at what a model in training says: a few held-out prompts continued greedily by worker 0.

The weights are copied into a model of its own, built as an export would build it, so any zero_stage and adapters do.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from data.mixture import draw_rng
from model.decode import Prompt, generate, step_model
from model.lm import merge_lora
from ray_jobs.train_parts import TrainParts, put_weights

Question = tuple[Prompt, np.ndarray]  # and the reference that should follow


class Probe:
    """The prompts of `tasks`, drawn once: the first held-out records, by id, whose sequence begins with the prompt."""

    def __init__(
        self, parts: TrainParts, tasks: list[str], new_model: Callable[[], Any], alive: Callable[[], None]
    ) -> None:
        self._new_model, self._alive = new_model, alive
        self._questions = {task: list(questions) for task in tasks if (questions := _questions(parts, task))}

    def run(self, engine: Any) -> dict[str, dict[str, float]]:
        """Task -> error_rate (edit distance over tokens of the reference) and finished (share that came to an end).

        All workers must call it; worker 0 has the numbers and takes longer, the others get none.
        """
        weights = dict(self._gathered(engine))
        found = {}
        if dist.get_rank() == 0:
            lm = self._new_model()
            self._alive()
            put_weights(lm, weights, "the engine")
            model = step_model(merge_lora(lm).eval(), torch.float32)
            found = {task: _score(model, questions, self._alive) for task, questions in self._questions.items()}
        return found

    def _gathered(self, engine: Any) -> Iterator[tuple[str, torch.Tensor]]:
        """Trained weights by name, float32, on the CPU of worker 0. All workers must call it."""
        from deepspeed.runtime.zero import GatheredParameters

        for name, parameter in engine.module.lm.named_parameters():
            if parameter.requires_grad:
                with GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id")):
                    self._alive()
                    if dist.get_rank() == 0:
                        yield name, parameter.detach().float().cpu().clone()


def _questions(parts: TrainParts, task: str) -> list[Question]:
    train, grammar = parts.recipe.train, parts.grammars[task]
    dev = [record for record in parts.store.split("dev") if grammar.accepts(record)]
    found: list[Question] = []
    for record in sorted(dev, key=lambda record: record.id):
        prompt = grammar.prompt(record)
        ids, _ = grammar.tokens(record, draw_rng(parts.recipe.seed, task, record.id, 0))
        if len(prompt) < len(ids) <= train.sequence_length and np.array_equal(ids[: len(prompt)], prompt):
            found.append((Prompt(prompt, grammar.continuation, train.probe_tokens), ids[len(prompt) :]))
        if len(found) == train.probe_utterances:
            break
    return found


def _score(model: Any, questions: list[Question], alive: Callable[[], None]) -> dict[str, float]:
    import jiwer

    answers = generate(model, [prompt for prompt, _ in questions], alive)
    spelled = [" ".join(map(str, ids)) for ids in (*(answer.ids for answer in answers), *(ids for _, ids in questions))]
    return {
        "error_rate": float(jiwer.wer(spelled[len(answers) :], spelled[: len(answers)])),
        "finished": sum(answer.finished for answer in answers) / len(answers),
    }
