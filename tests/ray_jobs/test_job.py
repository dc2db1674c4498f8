"""Jobs: ids, resuming, freshness, exit codes, stdout."""

from pathlib import Path

import pytest

from data import storage
from data.errors import InputError, TooManyBadError
from data.run_folder import RunFolder
from ray_jobs.job import Command, Job, check_submitted_paths, ensure, main, parse_arguments
from ray_jobs.recipe import Recipe, load_recipe
from ray_jobs.recipe_keys import key_lines

DEMO = str(Path(__file__).resolve().parents[2] / "configs" / "demo.yaml")


@pytest.fixture
def calls():
    return []


@pytest.fixture
def jobs(calls):
    def cook(run):
        calls.append("cook")
        storage.write_text(run.folder.file("soup"), "leek")

    def serve(run):
        calls.append("serve")
        storage.write_text(run.folder.file("plate"), storage.read_text(storage.join(run.inputs["cook"], "soup")))

    first = Job(name="cook", version=1, work=cook, fields=lambda recipe: {"seed": recipe.seed})
    second = Job(
        name="serve",
        version=1,
        work=serve,
        fields=lambda recipe: {"lr": recipe.tune.lr},
        upstream=lambda recipe: [first],
    )
    return first, second


def test_a_job_makes_what_it_lacks_and_finds_what_is_there(jobs, calls, tmp_path):
    recipe = load_recipe(DEMO, [f"runs_dir={tmp_path}"])
    folder = ensure(jobs[1], recipe)
    assert storage.read_text(folder.file("plate")) == "leek"
    assert ensure(jobs[1], recipe).path == folder.path
    assert calls == ["cook", "serve"]
    ensure(jobs[1], recipe, fresh=True)
    assert calls == ["cook", "serve", "serve"]


def test_the_id_follows_upstream_fields_and_ignores_runs_dir(jobs, tmp_path):
    one = load_recipe(DEMO, [f"runs_dir={tmp_path}"])
    assert jobs[1].id(one) == jobs[1].id(load_recipe(DEMO, ["runs_dir=/elsewhere"]))
    assert jobs[1].id(one) != jobs[1].id(load_recipe(DEMO, ["seed=2"]))


def test_a_half_made_folder_is_resumed_and_fresh_clears_it(tmp_path):
    def crash_once(run):
        marker = run.folder.file("part")
        if not storage.exists(marker):
            storage.write_text(marker, "kept")
            raise RuntimeError("power cut")

    job = Job(name="brittle", version=1, work=crash_once, fields=lambda recipe: {})
    arguments = [DEMO, f"runs_dir={tmp_path}"]
    assert main(job, arguments) == 1
    assert main(job, arguments) == 0
    assert main(job, [*arguments, "--fresh"]) == 1


@pytest.mark.parametrize(("error", "code"), [(InputError("no"), 2), (TooManyBadError("bad"), 3), (OSError("disk"), 1)])
def test_exit_codes(error, code, tmp_path):
    def fail(run):
        raise error

    assert (
        main(Job(name="failing", version=1, work=fail, fields=lambda recipe: {}), [DEMO, f"runs_dir={tmp_path}"])
        == code
    )


def test_stdout_ends_with_the_folder_and_a_dry_run_writes_nothing(jobs, calls, tmp_path, capsys):
    assert main(jobs[1], [DEMO, f"runs_dir={tmp_path}", "--dry-run"]) == 0
    assert calls == []
    assert not list(tmp_path.iterdir())
    out = capsys.readouterr().out
    assert "(will be made first)" in out
    assert main(jobs[1], [DEMO, f"runs_dir={tmp_path}"]) == 0
    assert RunFolder(capsys.readouterr().out.strip(), "").done


def test_foreign_arguments_are_refused(jobs, tmp_path):
    assert main(jobs[0], [DEMO, f"runs_dir={tmp_path}", "endpoint=http://x"]) == 2


def test_help_names_the_keys(jobs, capsys):
    with pytest.raises(SystemExit) as stop:
        main(jobs[0], ["--help"])
    assert stop.value.code == 0
    assert "train.zero_stage" in capsys.readouterr().out


def test_a_recipe_s_keys_are_listed_once_as_overrides_spell_them():
    lines = key_lines(Recipe)
    assert len(lines) < 500
    assert "  corpus.corpora.NAME.*  as corpus.*" in lines
    kinds = [line for line in lines if line.startswith("  tokenizers.NAME.kind: ")]
    assert len(kinds) == len(set(kinds)) > 5
    assert lines.index("  tokenizers.NAME.kind: kmeans_units") < lines.index(
        "  tokenizers.NAME.sample_rate [16000]  Hz"
    )
    assert any(line.startswith("  train.phases.N.lora.r [16]") for line in lines)


def test_a_command_without_a_folder_takes_no_fresh():
    with pytest.raises(SystemExit) as stop:
        parse_arguments(Command(name="deploy"), [DEMO, "--fresh"])
    assert stop.value.code == 2


def test_a_place_that_nothing_installed_reads_is_bad_input(jobs, calls, caplog):
    assert main(jobs[0], [DEMO, "runs_dir=gopher://host/runs"]) == 2
    assert "'gopher://host/runs' cannot be read: Protocol not known" in caplog.text
    assert calls == []


def test_relative_paths_are_refused_under_a_submitted_job(monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(InputError, match="runs_dir='runs' is relative"):
        check_submitted_paths(load_recipe(DEMO, []))
    check_submitted_paths(load_recipe(DEMO, ["runs_dir=/mnt/runs"]))
