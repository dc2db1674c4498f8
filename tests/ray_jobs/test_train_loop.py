"""The training loop on plain gloo processes: phases, resume, metrics, exports."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2Config

from data import storage
from data.errors import InputError
from model.checkpoint_files import assemble_weights, complete_checkpoints
from model.export import load_model_folder
from ray_jobs import export, train
from ray_jobs.train_export import check_adapter_exports, export_checkpoint
from ray_jobs.train_log import without_clock
from ray_jobs.train_loop import TrainLoop
from ray_jobs.train_metrics import MetricsLog, merge_metrics, rows_after
from ray_jobs.train_parts import base_of, first_model, load_parts
from tests.model.process_group import run_group
from tests.ray_jobs.tiny_store import recipe_overrides, tiny_recipe, write_inputs


class Killed(Exception):
    """Stands for a worker that dies after a checkpoint."""


def _loop(runs_dir: str, inputs: dict[str, str], folder: str, kill_after: int, *overrides: str) -> list[int]:
    """Trains; all workers die right after reporting the checkpoint of step `kill_after`. The steps reported."""
    parts = load_parts(tiny_recipe(Path(runs_dir), *overrides), inputs)
    reported = []

    def report(checkpoint: str, metrics: dict[str, Any]) -> None:
        reported.append(metrics["step"])
        if metrics["step"] == kill_after:
            raise Killed

    try:
        TrainLoop(parts, folder, report).run()
    except Killed:
        assert kill_after
    return reported


def _final_weights(folder: Path) -> dict[str, torch.Tensor]:
    return assemble_weights(complete_checkpoints(str(folder / "checkpoints"))[-1])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], Path]:
    """runs_dir, inputs, and the folder of a whole run of two workers."""
    runs_dir = tmp_path_factory.mktemp("runs")
    inputs = write_inputs(tiny_recipe(runs_dir))
    folder = runs_dir / "undisturbed"
    (steps, _) = run_group(2, _loop, str(runs_dir), inputs, str(folder), 0)
    assert steps == [3, 4, 6, 9, 12, 15, 16]  # every third step and the ends of phases (4, 12, 16)
    return runs_dir, inputs, folder


@pytest.mark.parametrize("kill_after", [9, pytest.param(4, marks=pytest.mark.slow)])
def test_a_run_cut_off_goes_on_from_its_checkpoint_to_the_same_bits(
    undisturbed: tuple[Path, dict[str, str], Path], tmp_path: Path, kill_after: int
) -> None:
    runs_dir, inputs, whole = undisturbed
    run_group(2, _loop, str(runs_dir), inputs, str(tmp_path), kill_after)
    (tmp_path / "checkpoints" / "step-000012").mkdir()
    (tmp_path / "checkpoints" / "step-000012" / "shard0.safetensors").write_bytes(b"half")
    (steps, _) = run_group(2, _loop, str(runs_dir), inputs, str(tmp_path), 0)
    assert steps == [step for step in (3, 4, 6, 9, 12, 15, 16) if step > kill_after]
    before, after = _final_weights(whole), _final_weights(tmp_path)
    assert all(torch.equal(before[name], after[name]) for name in before)
    rows = [without_clock(row) for row in merge_metrics(str(tmp_path))]
    assert [row["step"] for row in rows] == list(range(1, 17))
    assert rows == list(_rows(whole))


@pytest.mark.slow
def test_dropout_draws_the_same_when_a_run_goes_on_at_the_end_of_a_phase(
    undisturbed: tuple[Path, dict[str, str], Path], tmp_path: Path
) -> None:
    runs_dir, inputs, _ = undisturbed
    dropout = [f"train.phases.{index}.lora={{r: 4, alpha: 8, dropout: 0.5}}" for index in (1, 2)]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run_group(2, _loop, str(runs_dir), inputs, str(whole), 0, *dropout)
    run_group(2, _loop, str(runs_dir), inputs, str(cut), 12, *dropout)
    run_group(2, _loop, str(runs_dir), inputs, str(cut), 0, *dropout)
    before, after = _final_weights(whole), _final_weights(cut)
    assert all(torch.equal(before[name], after[name]) for name in before)


def _rows(folder: Path) -> list[dict[str, Any]]:
    paths = sorted((folder / "metrics").glob("part-*.jsonl"))
    return [without_clock(row) for path in paths for row in storage.read_jsonl(path)]


@pytest.mark.slow
def test_two_and_three_workers_see_the_same_batches_and_losses(
    undisturbed: tuple[Path, dict[str, str], Path], tmp_path: Path
) -> None:
    runs_dir, inputs, whole = undisturbed
    run_group(3, _loop, str(runs_dir), inputs, str(tmp_path), 4)
    expected = _rows(whole)[:4]
    found = _rows(tmp_path)
    assert [row["batch_hash"] for row in found] == [row["batch_hash"] for row in expected]
    assert [row["tokens"] for row in found] == [row["tokens"] for row in expected]
    losses = [torch.tensor([row["loss"] for row in rows]) for rows in (found, expected)]
    assert torch.allclose(*losses, atol=1e-5)


def test_phases_are_exported_and_the_adapters_are_merged(
    undisturbed: tuple[Path, dict[str, str], Path], tmp_path: Path
) -> None:
    runs_dir, inputs, whole = undisturbed
    assert sorted(path.name for path in (whole / "phases").iterdir()) == ["adaptation", "cross_modal"]
    last = complete_checkpoints(str(whole / "checkpoints"))[-1]
    assert all("lora" in name for name in assemble_weights(last))
    export_checkpoint(load_parts(tiny_recipe(runs_dir), inputs), last, str(tmp_path / "model"))
    final, before = load_model_folder(str(tmp_path / "model")), load_model_folder(str(whole / "phases" / "cross_modal"))
    assert final.voices == ["v0", "v1", "v2"]
    assert final.vocabulary == before.vocabulary
    names = [name for name, weight in before.lm.named_parameters() if "q_proj" in name]
    weights = dict(final.lm.named_parameters())
    assert names
    assert not any("lora" in name for name in weights)
    assert all(not torch.equal(weights[name], dict(before.lm.named_parameters())[name]) for name in names)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "chain_of_modality (LoRA, merged)" in card
    assert "hours of speech" in card


def test_metrics_are_truncated_within_a_part_and_merged_once(tmp_path: Path) -> None:
    log = MetricsLog(str(tmp_path))
    for step in range(1, 26):
        log.add({"step": step, "loss": float(step)})
    log.flush()
    assert [row["step"] for row in rows_after(str(tmp_path), 20)] == [21, 22, 23, 24, 25]
    log.truncate(7)
    for step in range(8, 11):
        log.add({"step": step, "loss": -1.0})
    log.flush()
    rows = merge_metrics(str(tmp_path))
    assert [row["step"] for row in rows] == list(range(1, 11))
    assert rows[7]["loss"] == -1.0
    assert merge_metrics(str(tmp_path)) == rows
    assert not (tmp_path / "metrics").exists()


def test_a_merge_that_was_killed_while_it_cleared_its_parts_loses_no_row(tmp_path: Path) -> None:
    storage.write_jsonl(tmp_path / "metrics.jsonl", [{"step": step, "loss": 1.0} for step in range(1, 11)])
    log = MetricsLog(str(tmp_path))
    log.add({"step": 9, "loss": 1.0})
    log.add({"step": 10, "loss": 0.5})
    log.flush()
    rows = merge_metrics(str(tmp_path))
    assert [row["step"] for row in rows] == list(range(1, 11))
    assert rows[-1]["loss"] == 0.5
    assert list(storage.read_jsonl(tmp_path / "metrics.jsonl")) == rows


def test_rows_taken_again_are_found_in_a_part_that_begins_before_the_step(tmp_path: Path) -> None:
    """After a resume from step 50 the next part begins with 51, and rows up to 57 were seen before."""
    log = MetricsLog(str(tmp_path))
    for step in range(45, 61):
        log.add({"step": step})
        if step == 50:
            log.flush()
    log.flush()
    assert [row["step"] for row in rows_after(str(tmp_path), 57)] == [58, 59, 60]
    assert rows_after(str(tmp_path), 60) == []


def test_a_phase_starts_from_any_folder_that_it_names(
    undisturbed: tuple[Path, dict[str, str], Path], tmp_path: Path
) -> None:
    """A model folder of ours gives its rows; a plain Hugging Face one gives its body and rows for the new ids."""
    runs_dir, inputs, whole = undisturbed
    ours = str(whole / "phases" / "cross_modal")
    parts = load_parts(tiny_recipe(runs_dir, f"train.phases.1.start_from={ours}"), inputs)
    plan = parts.phases[1]
    assert base_of(parts, plan) == ours
    start, known = first_model(parts, plan, str(tmp_path), ours), load_model_folder(ours)
    assert all(torch.equal(a, b) for a, b in zip(start.parameters(), known.lm.parameters(), strict=True))
    plain = tmp_path / "plain"
    known.lm.save_pretrained(plain)
    parts.text_tokenizer.save_pretrained(plain)
    parts = load_parts(tiny_recipe(runs_dir, f"train.phases.1.start_from={plain}"), inputs)
    start = first_model(parts, parts.phases[1], str(tmp_path), base_of(parts, parts.phases[1]))
    names = [name for name, _ in start.named_parameters() if "layers" in name]
    kept = dict(known.lm.named_parameters())
    assert all(torch.equal(weight, kept[name]) for name, weight in start.named_parameters() if name in names)
    assert names


def test_a_text_tokenizer_that_a_later_phase_s_model_would_read_otherwise_is_refused_before_training(
    undisturbed: tuple[Path, dict[str, str], Path], tmp_path: Path
) -> None:
    runs_dir, inputs, _ = undisturbed
    Qwen2Config(hidden_size=32, num_hidden_layers=1, num_attention_heads=2).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="read otherwise beside a qwen2 model"):
        load_parts(tiny_recipe(runs_dir, f"train.phases.1.start_from={tmp_path}"), inputs)


def test_what_a_phase_starts_from_enters_the_id_by_content(tmp_path: Path) -> None:
    folder = tmp_path / "start"
    ids = []
    for content in ("{}", '{"a": 1}'):
        storage.write_text(folder / "config.json", content)
        ids.append(train.JOB.id(tiny_recipe(tmp_path, f"train.phases.0.start_from={folder}")))
    assert len({*ids, train.JOB.id(tiny_recipe(tmp_path))}) == 3


def test_export_needs_no_cluster_and_says_data_phases_metrics_and_licences(
    undisturbed: tuple[Path, dict[str, str], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_cluster(*arguments: Any, **options: Any) -> None:
        raise AssertionError("export started or joined a Ray cluster")

    monkeypatch.setattr("ray.init", no_cluster)
    runs_dir, _, whole = undisturbed
    last = complete_checkpoints(str(whole / "checkpoints"))[-1]
    licences = ["licences.model=cc-by-4.0", "licences.data=CC0 1.0"]
    assert export.main(["configs/tiny.yaml", *recipe_overrides(runs_dir, *licences), f"checkpoint={last}"]) == 0
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    assert (folder.parent / "_SUCCESS").exists()
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: cc-by-4.0\n")
    for line in (
        "| training data | CC0 1.0 |",
        "| cross_modal | 8 |",
        "| steps | 16 |",
        "| loss | ",
        "| hours of speech |",
    ):
        assert line in card
    assert not torch.distributed.is_initialized()


def _told_otherwise(checkpoint: str, folder: Path, base: str, **told: Any) -> str:
    """A copy of a checkpoint whose run started from `base` and was given other arguments."""
    copy = folder / "checkpoints" / Path(checkpoint).name
    storage.copy_folder(checkpoint, copy)
    manifest = storage.read_json(copy / "manifest.json")
    recipe = {**manifest["recipe"], **told}
    storage.write_json(copy / "manifest.json", {**manifest, "base": base, "recipe": recipe})
    return str(copy)


def test_the_card_tells_of_the_phases_and_the_model_that_the_weights_came_from(
    undisturbed: tuple[Path, dict[str, str], Path], tmp_path: Path
) -> None:
    """`export` is told neither phase= nor model=; the checkpoint knows."""
    runs_dir, inputs, whole = undisturbed
    parts = load_parts(tiny_recipe(runs_dir), inputs)
    last = complete_checkpoints(str(whole / "checkpoints"))[-1]
    model = str(whole / "phases" / "cross_modal")
    alone = _told_otherwise(last, tmp_path, model, phase="chain_of_modality", model=model)
    export_checkpoint(parts, alone, str(tmp_path / "model"))
    card = (tmp_path / "model" / "README.md").read_text()
    assert card.startswith("---\nlicense: unknown\n")
    assert f"base_model: {model}" in card
    assert f"| base model {model} | unknown |" in card
    assert "chain_of_modality" in card
    assert "cross_modal | 8" not in card
    started = load_parts(tiny_recipe(runs_dir, f"train.phases.2.start_from={model}"), inputs)
    export_checkpoint(started, _told_otherwise(last, tmp_path / "other", model), str(tmp_path / "started"))
    card = (tmp_path / "started" / "README.md").read_text()
    assert f"base_model: {model}" in card
    assert "cross_modal | 8" not in card


def test_adapters_are_exported_beside_the_merged_model(
    undisturbed: tuple[Path, dict[str, str], Path], tmp_path: Path
) -> None:
    from peft import PeftModel

    runs_dir, inputs, whole = undisturbed
    parts = load_parts(tiny_recipe(runs_dir, "train.phases.2.lora.export=adapter"), inputs)
    export_checkpoint(parts, complete_checkpoints(str(whole / "checkpoints"))[-1], str(tmp_path / "model"))
    adapter = tmp_path / "model" / "adapter"
    base = storage.read_json(adapter / "adapter_config.json")["base_model_name_or_path"]
    assert base == str(whole / "phases" / "cross_modal")
    merged = PeftModel.from_pretrained(load_model_folder(base).lm, str(adapter)).merge_and_unload()
    final = dict(load_model_folder(str(tmp_path / "model")).lm.named_parameters())
    assert all(torch.allclose(weight, final[name], atol=1e-6) for name, weight in merged.named_parameters())
    assert (adapter / "adapter_model.safetensors").stat().st_size < (
        tmp_path / "model/model.safetensors"
    ).stat().st_size


def test_adapters_over_a_model_without_the_recipe_s_rows_are_refused_before_the_training(
    undisturbed: tuple[Path, dict[str, str], Path], tmp_path: Path
) -> None:
    runs_dir, inputs, whole = undisturbed
    model = tmp_path / "model"
    storage.copy_folder(whole / "phases" / "cross_modal", model)
    overrides = ["phase=chain_of_modality", f"model={model}", "train.phases.2.lora.export=adapter"]
    check_adapter_exports(load_parts(tiny_recipe(runs_dir, *overrides), inputs))
    more = "grammar.templates.more='[more] {unit} | [units] {unit} [eos]'"
    parts = load_parts(tiny_recipe(runs_dir, *overrides, more, "grammar.groups.more=[more]"), inputs)
    with pytest.raises(InputError, match="lacks rows for ids"):
        check_adapter_exports(parts)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("phase=chain_of_modality", "starts from a new model"),
        ("train.phases.2.trainable=[layers]", "trainable: lora"),
    ],
)
def test_adapters_that_could_not_stand_alone_are_refused(
    undisturbed: tuple[Path, dict[str, str], Path], override: str, message: str
) -> None:
    runs_dir, inputs, _ = undisturbed
    parts = load_parts(tiny_recipe(runs_dir, "train.phases.2.lora.export=adapter", override), inputs)
    with pytest.raises(InputError, match=message):
        check_adapter_exports(parts)
