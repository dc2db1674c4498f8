"""More descriptions of tasks as a job: asked for once, kept in a run folder, used by trainings."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from data import storage
from data.config import GrammarConfig
from data.grammar.instructions import built_in
from ray_jobs import draw_instructions, export, train, tune
from ray_jobs.draw_instructions import with_drawn
from ray_jobs.recipe import Recipe, load_recipe
from ray_jobs.train_parts import load_parts
from tests.data.openai_endpoint import serving
from tests.ray_jobs.tiny_store import recipe_overrides, write_inputs

OWN = ("In words of our own",)


def recipe_file(folder: Path) -> str:
    """The tiny recipe with published formats beside its templates."""
    tree = yaml.safe_load(Path("configs/tiny.yaml").read_text())
    tree["grammar"]["formats"] = {
        "cross": {"kind": "speechgpt_cross_modal", "asr_probability": 1.0, "joins": False},
        "own": {"kind": "anygpt", "instructions": {"asr": list(OWN)}},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return str(path)


def drawing(folder: Path, url: str, *overrides: str) -> Recipe:
    """That recipe, drawing three descriptions."""
    draw = f"grammar.draw={{endpoint: {url}, model: m, asr: 2, music_caption: 1}}"
    return load_recipe(recipe_file(folder), [*recipe_overrides(folder), draw, *overrides])


def test_a_training_asks_in_words_that_the_endpoint_gave_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with serving("Put my voice on paper\nSay in letters what I said", "What tune is it") as (handler, url):
        recipe = drawing(tmp_path, url)
        arguments = [recipe_file(tmp_path), *recipe_overrides(tmp_path)]
        arguments.append(f"grammar.draw={{endpoint: {url}, model: m, asr: 2, music_caption: 1}}")
        assert draw_instructions.main(arguments) == 0
        folder = capsys.readouterr().out.strip().splitlines()[-1]
        assert draw_instructions.main(arguments) == 0  # what is there is not asked for again
        assert len(handler.asked) == 2
        assert {asked["model"] for asked in handler.asked} == {"m"}
        assert {asked["authorization"] for asked in handler.asked} == {"Bearer secret"}
    sets = storage.read_json(folder)
    assert sets["asr"] == [*built_in()["asr"], "Put my voice on paper", "Say in letters what I said"]
    assert set(sets) == {"asr", "music_caption"}
    for job in (train.JOB, tune.JOB, export.JOB):
        assert draw_instructions.JOB in job.upstream(recipe)
        assert draw_instructions.JOB not in job.upstream(recipe.model_copy(update={"grammar": without(recipe)}))
    inputs = write_inputs(recipe) | {"draw_instructions": draw_instructions.JOB.folder(recipe).path}
    parts = load_parts(recipe, inputs)
    record = next(record for record in parts.records if parts.grammars["cross"].accepts(record))
    visits = (np.random.default_rng(seed) for seed in range(600))
    asked = {parts.grammars["cross"].render(record, rng).segments[0].content for rng in visits}
    assert set(sets["asr"][-2:]) < asked <= set(sets["asr"])
    assert with_drawn(recipe.grammar, inputs).formats["own"].instructions["asr"] == OWN


def without(recipe: Recipe) -> GrammarConfig:
    """The recipe's grammar, drawing nothing."""
    return recipe.grammar.model_copy(update={"draw": None})


def test_an_endpoint_that_fails_exits_2_and_a_recipe_that_draws_nothing_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(500) as (_, url):
        arguments = [recipe_file(tmp_path), *recipe_overrides(tmp_path), f"grammar.draw={{endpoint: {url}, tts: 1}}"]
        assert draw_instructions.main(arguments) == 2
    assert "give the base URL and model of an OpenAI-compatible endpoint" in caplog.text
    assert draw_instructions.main([recipe_file(tmp_path), *recipe_overrides(tmp_path)]) == 2
    assert "set grammar.draw" in caplog.text
