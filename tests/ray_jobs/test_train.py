"""The train job: what its id hangs on, what it refuses, and what a SIGKILL does to it."""

from pathlib import Path

import pytest
import torch

from data import storage
from data.errors import InputError
from model.checkpoint_files import assemble_weights, complete_checkpoints
from model.export import load_model_folder
from ray_jobs import export, train
from ray_jobs.train_log import without_clock
from ray_jobs.train_loop import TrainLoop
from ray_jobs.train_parts import load_parts, phases_to_run, target_phase
from tests.model.process_group import run_group
from tests.ray_jobs.tiny_store import recipe_overrides, tiny_recipe, write_inputs
from tests.ray_jobs.train_process import (
    LONG,
    TIMEOUT_S,
    kill_family,
    said,
    start,
    training_workers,
    wait_for_checkpoint,
)


def test_placement_and_cadence_do_not_change_the_id_but_the_dtype_in_use_does(tmp_path: Path) -> None:
    ids = [
        train.JOB.id(tiny_recipe(tmp_path, *overrides))
        for overrides in ((), ("train.num_workers=3",), ("train.save_every=7",), ("runs_dir=elsewhere",))
    ]
    assert len(set(ids)) == 1
    in_use = train.with_dtype(tiny_recipe(tmp_path, "train.dtype=auto")).train.dtype
    assert train.JOB.id(tiny_recipe(tmp_path, "train.dtype=auto")) == train.JOB.id(
        tiny_recipe(tmp_path, f"train.dtype={in_use}")
    )
    assert train.JOB.id(tiny_recipe(tmp_path, "train.dtype=bf16")) not in ids


def test_a_mixture_and_a_model_enter_the_id_by_content(tmp_path: Path) -> None:
    def id_with(name: str, weights: str) -> str:
        (tmp_path / name).write_text(f"weights: {weights}")
        return train.JOB.id(tiny_recipe(tmp_path, f"mixture={tmp_path / name}"))

    first, copied, other = id_with("a.yaml", "{asr: 1}"), id_with("b.yaml", "{asr: 1}"), id_with("c.yaml", "{asr: 2}")
    assert first == copied
    assert first != other
    assert first != train.JOB.id(tiny_recipe(tmp_path))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    assert train.JOB.id(tiny_recipe(tmp_path, f"model={tmp_path / 'model'}")) != train.JOB.id(tiny_recipe(tmp_path))


def test_a_mixture_replaces_the_target_s_weights_and_a_phase_runs_alone(tmp_path: Path) -> None:
    (tmp_path / "mixture.yaml").write_text("weights: {asr: 1, tts: 1}")
    recipe = tiny_recipe(tmp_path, f"mixture={tmp_path / 'mixture.yaml'}", "phase=cross_modal")
    (plan,) = phases_to_run(recipe)
    assert plan.steps == recipe.train.steps
    assert plan.config.weights == pytest.approx({"asr": 0.38, "tts": 0.38, "lm": 0.04, "music": 0.14, "text": 0.06})
    assert target_phase(recipe).name == "cross_modal"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("phase=crossmodal", "did you mean 'cross_modal'"),
        ("mixture=nowhere.yaml", "does not exist"),
        ("model=nowhere", "does not exist"),
        ("train.steps=1", "leaves no step"),
        ("train.phases.0.weights={speach: 1}", "'speach', which grammar.groups lacks"),
        ("train.phases.1.loss_weights={assr: 2}", "loss_weights of phase 'cross_modal' names"),
    ],
)
def test_bad_arguments_exit_2_and_say_what_to_do(
    tmp_path: Path, override: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = ["configs/tiny.yaml", *recipe_overrides(tmp_path), override, "--dry-run"]
    assert train.main(arguments) == 2
    assert message in caplog.text


@pytest.mark.parametrize("content", ["just words", "weights: [1, 2]", "weights: {asr: many}", "weights: {assr: 1}"])
def test_a_bad_mixture_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "mixture.yaml").write_text(content)
    with pytest.raises(InputError, match="mixture"):
        phases_to_run(tiny_recipe(tmp_path, f"mixture={tmp_path / 'mixture.yaml'}"))


NVME = ("train.zero_stage=3", "train.offload_optimizer=nvme", "train.offload_path=/nvme")


def test_states_on_nvme_are_planned_and_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    arguments = ["configs/tiny.yaml", *recipe_overrides(tmp_path, *NVME)]
    assert train.main([*arguments, "--dry-run"]) == 0
    assert "no checkpoint can be saved of states that lie there: train will refuse to start" in capsys.readouterr().out
    assert train.main(arguments) == 2
    assert "offload to cpu" in caplog.text
    assert list(tmp_path.iterdir()) == []  # before anything is made


def test_the_plan_names_steps_tokens_memory_and_placement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["configs/tiny.yaml", *recipe_overrides(tmp_path), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    for line in ("cross_modal: 8 steps (5 to 12)", "4 rows of 128 = 512 tokens", "2 x 1 CPU", "MiB of it model states"):
        assert line in printed


GPUS = (
    "train.num_workers=64",
    "train.num_gpus=1",
    "train.num_cpus=8",
    "train.zero_stage=3",
    "train.micro_batch_rows=4",
)


def test_a_recipe_for_64_gpus_is_planned_on_a_laptop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import Qwen2Config

    Qwen2Config(hidden_size=3584, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4,
                intermediate_size=18944, vocab_size=152064).save_pretrained(tmp_path / "qwen")  # fmt: skip
    wide = (
        "train.global_batch_rows=500",
        "train.micro_batch_rows=4",
        "train.sequence_length=4096",
        "train.steps=2000",
        "train.dtype=auto",
    )
    overrides = recipe_overrides(tmp_path, *GPUS, *wide, f"lm.path={tmp_path / 'qwen'}")
    assert train.main(["configs/tiny.yaml", *overrides, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    for line in (
        "500 rows of 4096 = 2048000 tokens; 2000 steps = 4096 million tokens",
        "64 x 8 CPU, 1 GPU = 512 CPU, 64 GPU",
        "zero_stage 3, bf16",
        "2 forward passes of 4 rows on each worker; 12 of 512 rows computed are empty",
        "2.2 GiB of it model states (weights 45",
        "fits GPUs of 141 GB and more",
        "for GPUs of 80 GB: set train.",
    ):
        assert line in printed, line


def test_a_plan_says_what_it_cannot_know_of_a_model_on_the_hub(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    overrides = recipe_overrides(tmp_path, *GPUS, "lm.path=nobody/no-such-model-7b")
    assert train.main(["configs/tiny.yaml", *overrides, "--dry-run"]) == 0
    assert "memory  not known: nobody/no-such-model-7b is a hub id whose config.json is not" in capsys.readouterr().out


def test_a_sink_that_cannot_be_had_is_refused_before_anything_starts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    overrides = recipe_overrides(tmp_path, "train.sinks=[tensorboard, mlflow]")
    assert train.main(["configs/tiny.yaml", *overrides, "--dry-run"]) == 2
    assert "pip install mlflow" in caplog.text


def test_export_needs_a_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert export.main(["configs/tiny.yaml", *recipe_overrides(tmp_path)]) == 2
    assert "checkpoint=PATH" in caplog.text
    assert export.main(["configs/tiny.yaml", *recipe_overrides(tmp_path), f"checkpoint={tmp_path}"]) == 2
    assert "is no complete checkpoint" in caplog.text


# From here on: the job as a user runs it, in processes of its own.


def _undisturbed(runs_dir: str, inputs: dict[str, str], folder: str) -> None:
    TrainLoop(load_parts(tiny_recipe(Path(runs_dir), *LONG), inputs), folder, lambda checkpoint, metrics: None).run()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two plain processes that nothing happened to."""
    runs_dir = tmp_path_factory.mktemp("plain")
    inputs = write_inputs(tiny_recipe(runs_dir, *LONG))
    run_group(2, _undisturbed, str(runs_dir), inputs, str(runs_dir / "train"))
    return runs_dir / "train"


def _same_as(undisturbed: Path, folder: Path) -> None:
    rows = [without_clock(row) for row in storage.read_jsonl(folder / "metrics.jsonl")]
    assert [row["step"] for row in rows] == list(range(1, 121))
    parts = sorted((undisturbed / "metrics").glob("part-*.jsonl"))
    assert rows == [without_clock(row) for part in parts for row in storage.read_jsonl(part)]
    before, after = (
        assemble_weights(complete_checkpoints(str(path / "checkpoints"))[-1]) for path in (undisturbed, folder)
    )
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert len(complete_checkpoints(str(folder / "checkpoints"))) == 2
    assert load_model_folder(str(folder / "model")).voices == ["v0", "v1", "v2"]


@pytest.mark.slow
@pytest.mark.ray
def test_a_killed_worker_is_replaced_and_nothing_is_lost(undisturbed: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, *LONG)
    write_inputs(recipe)
    folder = Path(train.JOB.folder(recipe).path)
    process = start(tmp_path)
    try:
        wait_for_checkpoint(folder, 40, process)
        workers = training_workers(process)
        assert len(workers) == 2
        workers[1].kill()
        assert process.wait(TIMEOUT_S) == 0, said(tmp_path)
    finally:
        kill_family(process)
    _same_as(undisturbed, folder)


@pytest.mark.slow
@pytest.mark.ray
def test_after_a_kill_of_everything_the_job_goes_on_when_run_again(undisturbed: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, *LONG)
    write_inputs(recipe)
    folder = Path(train.JOB.folder(recipe).path)
    process = start(tmp_path)
    try:
        wait_for_checkpoint(folder, 50, process)
    finally:
        kill_family(process)
    kept = complete_checkpoints(str(folder / "checkpoints"))
    assert kept
    assert not (folder / "_SUCCESS").exists()
    kept_at = {path: (Path(path) / "manifest.json").stat().st_mtime_ns for path in kept}
    again = start(tmp_path)
    try:
        first_new = int(kept[-1].rsplit("-", 1)[-1]) // 10 * 10 + 10
        wait_for_checkpoint(folder, first_new, again)
        assert (Path(kept[-1]) / "manifest.json").stat().st_mtime_ns == kept_at[kept[-1]]
        assert again.wait(TIMEOUT_S) == 0, said(tmp_path)
    finally:
        kill_family(again)
    _same_as(undisturbed, folder)
    last = complete_checkpoints(str(folder / "checkpoints"))[-1]
    arguments = [*recipe_overrides(tmp_path, *LONG), f"checkpoint={last}"]
    assert export.main(["configs/tiny.yaml", *arguments]) == 0
    exported = Path(export.JOB.folder(tiny_recipe(tmp_path, *LONG, f"checkpoint={last}")).path) / "model"
    assert (exported / "model.safetensors").read_bytes() == (folder / "model" / "model.safetensors").read_bytes()
