"""Recipes: loading, overrides, and errors that name the key and the remedy."""

from pathlib import Path

import pytest

from data.errors import InputError
from data.frozen import result_fields
from ray_jobs.recipe import load_recipe

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
DEMO = str(CONFIGS / "demo.yaml")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_loads(path):
    assert load_recipe(str(path), []).train.steps > 0


def test_overrides_reach_nested_keys_lists_and_kinds():
    recipe = load_recipe(DEMO, ["train.zero_stage=3", "train.phases.0.lr=0.1", "tokenizers.unit.codebook_size=50"])
    assert recipe.train.zero_stage == 3
    assert recipe.train.phases[0].lr == 0.1
    assert recipe.tokenizers["unit"].codebook_size == 50


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.zero_stag=1", "did you mean 'zero_stage'"),
        ("corpus.speech.voces=[a]", "did you mean 'voices'"),
        ("train.zero_stage=7", "less than or equal to 3"),
        ("train.loader_threads=100", "less than or equal to 32"),  # plans of 64 steps are kept
        ("train.steps", "dotted.key=value"),
        ("seed.deep=1", "'seed' is a value"),
        ("train.phases.cross_modal.lr=1", "'cross_modal' is no place in a list of 3: count them from 0"),
        ("train.phases.3={}", "'3' is no place"),
        ("text.kind=pretrained", "needs text.path"),
        ("train.steps=[", "not YAML"),
        ("train.phases.0.weights={lm: 0.4}", "sum to 0.4"),
        ("grammar.groups.asr=[sing]", "grammar.templates lacks"),
    ],
)
def test_mistakes_are_explained(override, message):
    with pytest.raises(InputError, match=message):
        load_recipe(DEMO, [override])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("grammar.formats.unit_lm.patern=x", "grammar.formats.unit_lm.patern: unknown key; did you mean 'pattern'"),
        ("grammar.formats.unit_lm.kind=unitlm", "grammar.formats.unit_lm.kind: 'unitlm' is unknown; did you mean 'un"),
        ("corpus.corpora.librispeech.kind=x", "corpus.corpora.librispeech.kind: 'x' is unknown; known kinds: "),
        ("tokenizers.unit.layer=x", r"\n  tokenizers.unit.layer: Input should be a valid integer"),
        ("grammar.formats.more={kind: anygpt, modalities: {unit: {text: text}}}", "unit.x: is required"),
        ("train.phases.0.lr=x", "train.phases.0.lr: Input should be"),
    ],
)
def test_a_mistake_is_named_by_the_key_that_an_override_would_have(override, message):
    with pytest.raises(InputError, match=message):
        load_recipe(str(CONFIGS / "slam.yaml"), [override])


def test_an_override_changes_the_place_that_it_names_and_not_what_shares_a_yaml_anchor_with_it():
    corpora = load_recipe(
        str(CONFIGS / "spiritlm_base.yaml"), ["corpus.corpora.mls.alignment.num_gpus=0"]
    ).corpus.corpora
    assert {name: corpora[name].alignment.num_gpus for name in ("mls", "librispeech", "commonvoice")} == {
        "mls": 0, "librispeech": 1, "commonvoice": 1,
    }  # fmt: skip
    other = "grammar.formats.text_to_music.modalities.music.x=<m>{music}</m>"
    formats = load_recipe(str(CONFIGS / "anygpt_speech_music.yaml"), [other]).grammar.formats
    assert formats["text_to_music"].modalities["music"].x == "<m>{music}</m>"
    assert formats["music_to_caption"].modalities["music"].x == "<somu>{music}<eomu>"


def test_a_missing_recipe_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_recipe(str(tmp_path / "none.yaml"), [])
    (tmp_path / "list.yaml").write_text("[1]")
    with pytest.raises(InputError, match="expected a mapping"):
        load_recipe(str(tmp_path / "list.yaml"), [])


def test_placement_does_not_enter_the_result():
    one = load_recipe(DEMO, [])
    other = load_recipe(DEMO, ["train.num_workers=7", "train.save_every=3", "train.micro_batch_rows=1"])
    assert result_fields(one.train) == result_fields(other.train)
    assert result_fields(one.train) != result_fields(load_recipe(DEMO, ["train.steps=3"]).train)


@pytest.mark.parametrize("compression", ["{kind: dedup}", "{kind: bpe, vocabulary_size: 500, dedup: true}"])
def test_a_vocoder_is_refused_units_that_do_not_say_how_long_they_last(compression):
    override = f"tokenizers.unit.compression={compression}"
    with pytest.raises(InputError, match=r"how long each unit lasts.*vocoder: null"):
        load_recipe(DEMO, [override, "vocoder={kind: unit_mel}"])
    assert load_recipe(DEMO, [override, "vocoder=null"]).tokenizers["unit"].compression is not None
    kept = load_recipe(DEMO, ["tokenizers.unit.compression={kind: unigram}", "vocoder={kind: unit_mel}"])
    assert kept.tokenizers["unit"].compression.vocabulary_size == 5000
