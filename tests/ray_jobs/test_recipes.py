"""The published recipes: what they plan, without corpora, weights or a network, and their chains at scale=tiny."""

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from data import storage
from model.checkpoint_files import complete_checkpoints
from model.decode import Prompt, generate, step_model
from model.export import ModelFolder, load_model_folder, read_info
from ray_jobs import export, fit_judges, fit_tokenizer, prepare, run_eval, tokenize_speech, train, train_vocoder, tune
from ray_jobs.deploy import main as deploy
from ray_jobs.job import main
from ray_jobs.recipe import load_recipe
from ray_jobs.train_parts import load_parts
from tests.ray_jobs.recipe_stand_ins import brought_overrides, corpus_overrides

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
NAMES = ("speechgpt", "spiritlm_base", "spiritlm_expressive", "anygpt_speech_music", "slam")
JOBS = [module.JOB for module in (prepare, fit_tokenizer, tokenize_speech, train_vocoder, fit_judges, tune, train)]
# What of a recipe a scale may not touch: how sequences look and how training goes.
KEPT = ("grammar", "vocoder")
KEPT_OF_TRAINING = ("phases", "optimizer", "weight_decay", "beta1", "beta2", "clip_grad_norm", "zero_stage")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks the network is refused."""

    def refuse(*arguments: Any) -> None:
        raise AssertionError(f"a dry run asks the network: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def path_of(name: str) -> str:
    return str(CONFIGS / f"{name}.yaml")


def corpora_of(name: str) -> list[str]:
    return list(yaml.safe_load(Path(path_of(name)).read_text())["corpus"]["corpora"])


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", NAMES)
def test_every_job_of_the_tiny_recipe_plans(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [path_of(name), "scale=tiny", f"runs_dir={tmp_path}/runs", "--dry-run"]
    for job in JOBS:
        assert main(job, arguments) == 0, job.name
    assert run_eval.main(arguments) == 0
    assert deploy(arguments) == 0
    assert capsys.readouterr().out.count("4 speakers, 16000 Hz") == len(JOBS) + 2
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", NAMES)
def test_the_whole_recipe_plans_over_tiny_corpora(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = corpus_overrides(corpora_of(name), tmp_path)
    if name == "anygpt_speech_music":
        (tmp_path / "weights").mkdir()
        overrides.append(f"tokenizers.unit.path={tmp_path}/weights")
    for job in (prepare.JOB, train.JOB):
        assert main(job, [path_of(name), *overrides, f"runs_dir={tmp_path}/runs", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    recipe = load_recipe(path_of(name), [])
    assert f"weights lm.path: {recipe.lm.path}  (fetched from the hub" in shown
    assert f"phase   {recipe.train.phases[-1].name}: " in shown
    for corpus in corpora_of(name):
        assert f"/{corpus}" in shown


@pytest.mark.parametrize("name", NAMES)
def test_without_its_corpora_a_recipe_plans_what_it_can_and_names_them(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    gone = [
        f"corpus.corpora.{corpus}.{'manifest' if 'manifest' in entry else 'path'}={tmp_path}/none"
        for corpus, entry in yaml.safe_load(Path(path_of(name)).read_text())["corpus"]["corpora"].items()
    ]
    assert main(train.JOB, [path_of(name), *gone, f"runs_dir={tmp_path}", "--dry-run"]) == 2
    assert "workers " in capsys.readouterr().out
    for corpus in corpora_of(name):
        assert f"corpus.corpora.{corpus}: " in caplog.text


@pytest.mark.parametrize("name", NAMES)
def test_a_scale_changes_sizes_alone(name: str) -> None:
    whole, tiny = load_recipe(path_of(name), []), load_recipe(path_of(name), ["scale=tiny"])
    assert all(getattr(whole, field) == getattr(tiny, field) for field in KEPT)
    assert all(getattr(whole.train, field) == getattr(tiny.train, field) for field in KEPT_OF_TRAINING)
    assert list(whole.tokenizers) == list(tiny.tokenizers)


# From here on: the chain itself.


def answers(folder: ModelFolder, records: list[Any]) -> dict[str, list[str]]:
    """What the model answers under each task to the first record that it takes: the slots that it filled."""
    found = {}
    model = step_model(folder.lm)
    for task, grammar in folder.grammars.items():
        record = next((record for record in records if grammar.accepts(record)), None)
        assert record is not None, f"no record for {task}"
        prompt = grammar.prompt(record)
        (generated,) = generate(model, [Prompt(prompt, grammar.continuation, 48)])
        assert len(generated.ids)
        segments = grammar.parse(np.concatenate([prompt, generated.ids]))
        found[task] = [segment.slot for segment in segments if segment.end > len(prompt)]
    return found


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_runs_from_audio_to_a_model_that_others_load(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    pytest.importorskip("espeakng_loader")
    overrides = ["scale=tiny", f"runs_dir={tmp_path}"]
    if name == "slam":  # one of them with weights that are brought
        overrides += brought_overrides(tmp_path / "brought")
    assert main(train.JOB, [path_of(name), *overrides]) == 0
    run = capsys.readouterr().out.splitlines()[-1]
    last = complete_checkpoints(f"{run}/checkpoints")[-1]
    assert main(export.JOB, [path_of(name), *overrides, f"checkpoint={last}"]) == 0
    exported = capsys.readouterr().out.splitlines()[-1]
    weights = [Path(folder, "model.safetensors").read_bytes() for folder in (exported, f"{run}/model")]
    assert weights[0] == weights[1]

    recipe = load_recipe(path_of(name), overrides)
    rows = list(storage.read_jsonl(f"{run}/metrics.jsonl"))
    assert [row["step"] for row in rows] == list(range(1, recipe.train.steps + 1))
    assert {row["phase"] for row in rows} == {phase.name for phase in recipe.train.phases}

    info = read_info(exported)
    assert {task: form["kind"] for task, form in info["formats"].items()} == {
        task: form.kind for task, form in recipe.grammar.formats.items()
    }
    folder = load_model_folder(exported)
    blocks = {block.name: block.size for block in folder.vocabulary.blocks}
    for stream, config in recipe.tokenizers.items():
        assert blocks[f"{stream}.0"] == config.codebook_size
    tokenizer = AutoTokenizer.from_pretrained(exported)
    assert len(tokenizer) == folder.vocabulary.size
    assert AutoModelForCausalLM.from_pretrained(exported).config.vocab_size >= len(tokenizer)

    inputs = {job.name: job.folder(recipe).path for job in train.upstream(recipe)}
    found = answers(folder, load_parts(recipe, inputs).records)
    assert set(found) == set(recipe.grammar.formats)
    assert all(found.values())
