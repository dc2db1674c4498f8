"""Scales of a recipe: what `scale=NAME` changes, and that it leaves no trace but the resolved fields."""

from pathlib import Path

import pytest
import yaml

from data.errors import InputError
from ray_jobs import prepare, train
from ray_jobs.recipe import load_recipe
from ray_jobs.scales import laid_upon

TINY = Path(__file__).resolve().parents[2] / "configs" / "tiny.yaml"
SMALLER = {
    "corpus": {"speech": {"train_utterances": 12}},
    "tokenizers": {"unit": {"kind": "residual_kmeans", "num_codebooks": 1, "codebook_size": 8}},
    "lm": {"hidden_size": 32},
    "vocoder": None,
}


@pytest.fixture
def path(tmp_path: Path) -> str:
    """configs/tiny.yaml with a scale."""
    tree = {**yaml.safe_load(TINY.read_text()), "scales": {"smaller": SMALLER}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tree))
    return str(tmp_path / "recipe.yaml")


def test_a_scale_is_laid_upon_the_recipe_and_overrides_upon_the_scale(path: str) -> None:
    plain, small = load_recipe(path, []), load_recipe(path, ["train.steps=9", "scale=smaller", "lm.hidden_size=48"])
    assert plain == load_recipe(str(TINY), [])
    assert (small.corpus.speech.train_utterances, small.corpus.speech.dev_utterances) == (12, 16)
    assert (small.train.steps, small.lm.hidden_size, small.lm.num_layers) == (9, 48, plain.lm.num_layers)
    assert small.vocoder is None


def test_another_kind_replaces_the_whole_section(path: str) -> None:
    unit = load_recipe(path, ["scale=smaller"]).tokenizers["unit"]
    assert (unit.kind, unit.codebook_size, unit.iterations) == ("residual_kmeans", 8, 20)


def test_runs_are_named_by_what_is_resolved(path: str, tmp_path: Path) -> None:
    (tmp_path / "written.yaml").write_text(yaml.safe_dump(laid_upon(yaml.safe_load(TINY.read_text()), SMALLER)))
    written, scaled = load_recipe(str(tmp_path / "written.yaml"), []), load_recipe(path, ["scale=smaller"])
    for job in (prepare.JOB, train.JOB):
        assert job.id(written) == job.id(scaled)
        assert job.id(written) != job.id(load_recipe(path, []))


def test_an_unknown_scale_is_refused_by_name(path: str) -> None:
    with pytest.raises(InputError, match="scale='tine' is no scale of this recipe; it has smaller"):
        load_recipe(path, ["scale=tine"])
    with pytest.raises(InputError, match="it has none"):
        load_recipe(str(TINY), ["scale=smaller"])


def test_a_mistake_in_a_scale_is_explained(path: str, tmp_path: Path) -> None:
    tree = {**yaml.safe_load(TINY.read_text()), "scales": {"wrong": {"train": {"stepps": 3}}, "none": 3}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(InputError, match=r"expected .name: .section"):
        load_recipe(path, [])
    tree["scales"].pop("none")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(InputError, match="did you mean 'steps'"):
        load_recipe(path, ["scale=wrong"])
