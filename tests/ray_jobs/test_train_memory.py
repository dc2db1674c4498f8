"""The memory lines of a dry run: no weights, no cluster."""

from pathlib import Path
from typing import Any

import pytest

from data.errors import InputError
from ray_jobs.recipe import Recipe, load_recipe
from ray_jobs.train_memory import memory_lines
from ray_jobs.train_parts import phases_to_run


def _recipe(*overrides: str) -> Recipe:
    return load_recipe("configs/tiny.yaml", list(overrides))


def _lines(recipe: Recipe) -> list[str]:
    train: Any = recipe.train.model_copy(update={"dtype": "bf16"})
    return memory_lines(recipe.model_copy(update={"train": train}), phases_to_run(recipe))


def test_a_small_model_fits_this_machine() -> None:
    first, second = _lines(_recipe())
    assert first.startswith("memory  about ")
    assert "fits the free memory" in second


@pytest.mark.slow
def test_sixty_four_gpus_are_planned_without_one() -> None:
    lines = _lines(
        _recipe(
            "lm.hidden_size=4096", "lm.num_layers=32", "lm.num_heads=32", "lm.intermediate_size=11008",
            "train.num_workers=64", "train.num_gpus=1", "train.zero_stage=1", "train.sequence_length=2048",
            "train.global_batch_rows=256",
        )
    )  # fmt: skip
    assert lines[1].startswith("        fits GPUs of ")
    assert any("for GPUs of 24 GB: set train." in line for line in lines)


def test_weights_that_are_not_here_are_not_guessed() -> None:
    (line,) = _lines(_recipe("lm.path=somebody/some-model"))
    assert line.startswith("memory  not known: somebody/some-model is a hub id")


def test_a_folder_without_a_model_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no causal language model"):
        _lines(_recipe(f"lm.path={tmp_path}"))
