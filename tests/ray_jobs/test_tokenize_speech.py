"""tokenize_speech on a Ray cluster: every utterance once, whatever is corrupt, crashes or is killed."""

import pytest

from data import storage
from data.errors import InputError, TooManyBadError
from data.run_folder import RunFolder
from data.store import TokenStore
from ray_jobs.job import Run
from ray_jobs.tokenize_speech import JOB, work
from tests.ray_jobs.tiny_audio import contents, make_inputs, tokenize_recipe


@pytest.mark.ray
def test_a_run_is_complete_and_a_second_one_changes_and_redoes_nothing(ray_cluster, tmp_path, monkeypatch):
    inputs = make_inputs(tmp_path)
    folder = RunFolder(str(tmp_path / "run"), "x")
    work(Run(tokenize_recipe(max_bad_fraction=0.1), folder, inputs))
    assert len(TokenStore.open(folder.path)) == 11
    assert [row["id"] for row in storage.read_jsonl(folder.file("quarantine.jsonl"))] == ["u0"]
    summary = storage.read_json(folder.file("summary.json"))
    assert (summary["utterances"], summary["quarantined"], summary["codes"]) == (11, 1, {"unit": 55})
    before = contents(tmp_path / "run")
    # One lost shard is written again, with the same bytes; the others are not touched.
    lost = "shards/part-00001.parquet"
    kept = (tmp_path / "run/shards/part-00000.parquet").stat().st_mtime_ns
    (tmp_path / "run" / lost).unlink()
    work(Run(tokenize_recipe(max_bad_fraction=0.1), folder, inputs))
    assert contents(tmp_path / "run") == before
    assert (tmp_path / "run/shards/part-00000.parquet").stat().st_mtime_ns == kept
    monkeypatch.setattr(
        "ray_jobs.tokenize_speech.tokenize_shards", lambda *args, **more: pytest.fail("nothing was left to do")
    )
    work(Run(tokenize_recipe(max_bad_fraction=0.1), folder, inputs))


@pytest.mark.ray
def test_too_many_bad_files_fail_the_job_after_everything_is_written(ray_cluster, tmp_path):
    inputs = make_inputs(tmp_path, utterances=4, bad=3)
    folder = RunFolder(str(tmp_path / "run"), "x")
    with pytest.raises(TooManyBadError, match=r"3 of 4 utterances \(75.0%\).*max_bad_fraction=0.05"):
        work(Run(tokenize_recipe(), folder, inputs))
    assert len(TokenStore.open(folder.path)) == 1
    assert len(list(storage.read_jsonl(folder.file("quarantine.jsonl")))) == 3
    work(Run(tokenize_recipe(max_bad_fraction=0.8), folder, inputs))


def test_rows_that_prepare_could_not_read_count_as_bad(tmp_path, monkeypatch):
    inputs = make_inputs(tmp_path, utterances=2, bad=0)
    rows = [{"id": str(i), "audio_filepath": "", "reason": "bad_row", "detail": ""} for i in range(2)]
    storage.write_jsonl(tmp_path / "prepare/quarantine.jsonl", rows)
    folder = RunFolder(str(tmp_path / "run"), "x")
    part = {"utterances": 2, "seconds": 0.4, "codes": {"unit": 10}, "quarantine": []}
    storage.write_json(folder.file("parts/part-00000.json"), part)
    storage.write_text(folder.file("shards/part-00000.parquet"), "")
    with pytest.raises(TooManyBadError, match="2 of 4"):
        work(Run(tokenize_recipe(), folder, inputs))


def test_an_empty_manifest_is_an_input_error(tmp_path):
    inputs = make_inputs(tmp_path, utterances=0, bad=0)
    with pytest.raises(InputError, match="holds no utterance"):
        work(Run(tokenize_recipe(), RunFolder(str(tmp_path / "run"), "x"), inputs))


def test_the_id_hangs_on_what_changes_the_store():
    assert JOB.id(tokenize_recipe()) == JOB.id(tokenize_recipe(num_workers=7, max_bad_fraction=0.5))
    assert JOB.id(tokenize_recipe()) != JOB.id(tokenize_recipe(shard_utterances=6))
