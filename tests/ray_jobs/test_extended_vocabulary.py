"""Training goes on from a model folder with more streams, markers and voices than it has."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from data import storage
from data.errors import InputError
from model.checkpoint_files import complete_checkpoints
from model.export import export_model, load_model_folder
from model.lm import build_language_model
from ray_jobs.recipe import Recipe, load_recipe
from ray_jobs.train_export import export_checkpoint
from ray_jobs.train_loop import TrainLoop
from ray_jobs.train_parts import TrainParts, first_model, load_parts, load_parts_of
from tests.model.process_group import run_group
from tests.ray_jobs.tiny_store import recipe_overrides, tiny_recipe, write_inputs

SPEECH_TASKS = ("asr", "unit_lm")


def speech_recipe(runs_dir: Path) -> Recipe:
    """The tiny recipe, with tasks of speech and without voices alone."""
    tree = yaml.safe_load(Path("configs/tiny.yaml").read_text())
    tree["grammar"] = {
        "templates": {task: tree["grammar"]["templates"][task] for task in SPEECH_TASKS},
        "groups": {"asr": ["asr"], "lm": ["unit_lm"]},
    }
    tree["train"]["phases"] = [{"name": "only", "steps_fraction": 1, "weights": {"asr": 0.5, "lm": 0.5}}]
    path = runs_dir / "speech.yaml"
    path.write_text(yaml.safe_dump(tree))
    return load_recipe(str(path), recipe_overrides(runs_dir))


def speech_parts(recipe: Recipe, inputs: dict[str, str]) -> TrainParts:
    """Its parts, from a store that has no music."""
    parts = load_parts(recipe, inputs)
    unit = {"unit": parts.store.streams["unit"]}
    vocabulary = parts.vocabulary.from_json(
        {"blocks": [b for b in parts.vocabulary.to_json()["blocks"] if not b["name"].startswith(("music", "unit"))],
         "markers": parts.vocabulary.markers}
    ).extended([], unit)  # fmt: skip
    parts.store.streams = unit
    return replace(parts, vocabulary=vocabulary)


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], str]:
    """runs_dir, inputs with speech and music, and the folder of a model that knows speech alone."""
    runs_dir = tmp_path_factory.mktemp("runs")
    inputs = write_inputs(tiny_recipe(runs_dir))
    parts = speech_parts(speech_recipe(runs_dir), inputs)
    lm = build_language_model(parts.recipe.lm, parts.vocabulary, 3)
    folder = str(runs_dir / "speech")
    tokenizers = {"unit": storage.join(inputs["fit_tokenizer"], "unit")}
    export_model(
        folder,
        lm,
        parts.text_tokenizer,
        parts.vocabulary,
        parts.recipe.grammar,
        [],
        parts.store.streams,
        tokenizers,
        {},
    )
    return runs_dir, inputs, folder


def test_the_recipe_s_streams_markers_and_voices_are_appended(speech: tuple[Path, dict[str, str], str]) -> None:
    runs_dir, inputs, folder = speech
    before = load_model_folder(folder)
    assert before.vocabulary.streams == ("unit",)
    parts = load_parts(tiny_recipe(runs_dir, f"model={folder}"), inputs)
    old, new = before.vocabulary, parts.vocabulary
    assert new.blocks[: len(old.blocks)] == old.blocks
    assert new.streams == ("unit", "music")
    assert (old.voices, new.voices) == ((), ("v0", "v1", "v2"))
    lm = first_model(parts, parts.phases[0], folder, folder)
    known = old.size
    weights = [model.get_input_embeddings().weight.detach() for model in (before.lm, lm)]
    assert torch.equal(weights[0][:known], weights[1][:known])
    for task, grammar in parts.grammars.items():
        record = next(record for record in parts.records if grammar.accepts(record))
        rendered = grammar.render(record)
        assert grammar.parse(rendered.ids) == rendered.segments
        if task in SPEECH_TASKS:  # what the model has learnt it still reads
            assert before.grammars[task].render(record).ids.tolist() == rendered.ids.tolist()
        ids_1T = torch.as_tensor(rendered.ids.astype("int64"))[None]
        assert torch.isfinite(lm(input_ids=ids_1T, labels=ids_1T).loss)


def test_a_recipe_with_less_than_the_model_keeps_its_vocabulary(speech: tuple[Path, dict[str, str], str]) -> None:
    runs_dir, inputs, folder = speech
    wide = load_parts(tiny_recipe(runs_dir, f"model={folder}"), inputs)
    lm = first_model(wide, wide.phases[0], folder, folder)
    both = str(runs_dir / "both")
    export_model(both, lm, wide.text_tokenizer, wide.vocabulary, wide.recipe.grammar, [], wide.store.streams, {}, {})
    narrow = load_parts(speech_recipe(runs_dir).model_copy(update={"model": both}), inputs)
    assert narrow.vocabulary == wide.vocabulary


def test_a_folder_of_ours_is_no_lm_path_and_other_codebooks_are_refused(
    speech: tuple[Path, dict[str, str], str], caplog: pytest.LogCaptureFixture
) -> None:
    runs_dir, inputs, folder = speech
    with pytest.raises(InputError, match=f"model={folder}"):
        load_parts(tiny_recipe(runs_dir, f"lm.path={folder}"), inputs)
    info = storage.read_json(storage.join(folder, "antiphon.json"))
    other = str(runs_dir / "other")
    storage.copy_folder(folder, other)
    info["streams"]["unit"]["tokenizer_id"] = "another"
    storage.write_json(storage.join(other, "antiphon.json"), info)
    load_parts(tiny_recipe(runs_dir, f"model={other}"), inputs)
    assert "knows the codes of another" in caplog.text
    info["blocks"][-1]["size"] += 1
    storage.write_json(storage.join(other, "antiphon.json"), info)
    with pytest.raises(InputError, match="'unit' has codebooks of"):
        load_parts(tiny_recipe(runs_dir, f"model={other}"), inputs)


def _train(runs_dir: str, inputs: dict[str, str], folder: str, base: str) -> None:
    def report(checkpoint: str, metrics: dict[str, Any]) -> None: ...

    TrainLoop(load_parts(tiny_recipe(Path(runs_dir), f"model={base}"), inputs), folder, report).run()


@pytest.mark.slow
def test_all_phases_train_on_the_wider_model_and_its_checkpoint_is_exported(
    speech: tuple[Path, dict[str, str], str], tmp_path: Path
) -> None:
    runs_dir, inputs, folder = speech
    run_group(1, _train, str(runs_dir), inputs, str(tmp_path / "train"), folder)
    found = complete_checkpoints(str(tmp_path / "train" / "checkpoints"))
    recipe = tiny_recipe(runs_dir).without_arguments()  # what `export` sees: the manifest knows the rest
    parts = load_parts_of(found[-1], recipe, inputs)
    export_checkpoint(parts, found[-1], str(tmp_path / "model"))
    made = load_model_folder(str(tmp_path / "model"))
    assert made.vocabulary.blocks[:3] == load_model_folder(folder).vocabulary.blocks
    assert {"asr", "text_to_music", "s2s"} <= set(made.grammars)
