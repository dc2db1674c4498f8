from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml

from data import storage
from data.audio import wav_bytes, write_wav
from data.errors import InputError
from data.manifest import Utterance, write_manifest
from data.run_folder import RunFolder
from data.store import Record, StreamInfo, write_shard
from eval import judging
from ray_jobs import eval_endpoint, eval_report, eval_run, run_eval
from ray_jobs.job import Run
from ray_jobs.recipe import Recipe, load_recipe
from serve.client import EndpointError

ROOT = Path(__file__).resolve().parents[2]
RATE_HZ = 16000


@pytest.fixture
def recipe(tmp_path):
    return load_recipe(str(ROOT / "configs" / "demo.yaml"), [f"runs_dir={tmp_path}", "eval.bootstrap_samples=100"])


@pytest.fixture
def run(tmp_path, recipe) -> Run:
    """A run whose upstream folders hold a manifest of four test utterances, their codes, and a training log."""
    prepared, tokens = tmp_path / "prepare-1", tmp_path / "tokenize-1"
    prepared.mkdir()
    found = [Utterance("old", "s0.wav", 0.1, text="one", speaker="v0")]
    for number in range(4):
        write_wav(str(prepared / f"s{number}.wav"), np.full(RATE_HZ // 10, 0.1), RATE_HZ)
        part = "digits" if number % 2 else "sentences"
        extra = {"part": part, "condition": "seen", "tts_test": True}
        text = f"one two {number}"
        found.append(Utterance(f"s{number}", f"s{number}.wav", 0.1, text=text, speaker="v0", split="test", extra=extra))
    write_manifest(prepared / "manifest.jsonl", found)
    records = [
        Record(u.id, text=u.text, speaker=u.speaker, split=u.split, streams={"unit": np.arange(3, dtype=np.int16)})
        for u in found
    ]
    write_shard(str(tokens / "shards" / "part-00000.parquet"), records, {"unit": StreamInfo(25.0, 1, 200, "t")})
    folder = RunFolder(str(tmp_path / "run_eval-1"), "1", {"git_commit": "abc"})
    folder.begin()
    train = tmp_path / "train-1"
    for place in ("model", "phases/cross_modal"):
        storage.write_json(train / place / "config.json", {"place": place})
    storage.write_jsonl(train / "metrics.jsonl", [{"step": n, "phase": "a", "loss": 2.0} for n in range(3)])
    names = ("fit_tokenizer", "train_vocoder", "fit_judges")
    inputs = {name: str(tmp_path / name) for name in names}
    inputs |= {"prepare": str(prepared), "tokenize_speech": str(tokens), "train": str(train)}
    for path in inputs.values():
        storage.write_json(storage.join(path, "_SUCCESS"), {"wall_s": 100.0})
    return Run(recipe, folder, inputs)


class FakeEndpoint:
    """Knows the right words of nothing, and fails on the third transcript."""

    def transcribe(self, wav, model):
        return "one two"

    def speak(self, text, voice, model):
        if text.endswith("2"):
            raise EndpointError("503: full")
        return wav_bytes(np.full(RATE_HZ // 10, 0.1), RATE_HZ)

    def chat(self, task, model, text, wav, voice):
        return "nothing", None


class FakeJudge:
    id = "fake-1"

    def transcribe(self, wave, sample_rate, utterance_id):
        return f"one two {utterance_id[-1]}"

    def embed(self, wave, sample_rate):
        return np.array([0.6, 0.8])


class FakeVocoder:
    sample_rate = RATE_HZ

    def synthesize(self, streams, voice):
        return np.full(800, 0.1, np.float32)


@pytest.fixture
def without_cluster(monkeypatch):
    """The whole evaluation in this process: Ray tasks called as functions, a fake endpoint, fake judges."""

    @contextmanager
    def open_endpoint(run, model):
        yield FakeEndpoint()

    monkeypatch.setattr(eval_run, "start_ray", lambda: None)
    monkeypatch.setattr(eval_run, "open_endpoint", open_endpoint)
    monkeypatch.setattr(eval_run, "_run_task", lambda task, *arguments: task._function(*arguments))
    monkeypatch.setattr(judging, "load_judge", lambda role, folder: FakeJudge())
    monkeypatch.setattr(judging, "_load_vocoder", lambda folder: FakeVocoder())
    monkeypatch.setattr(eval_report, "read_tune", lambda recipe: None)


def test_an_evaluation_writes_report_samples_and_page(run, without_cluster):
    eval_run.evaluate(run)
    report = storage.read_json(run.folder.file("report.json"))
    headline = report["headline"]
    assert headline["asr_wer"]["value"] == pytest.approx(1 / 3)
    assert 600 <= headline["wall_s"]["value"] < 660
    assert headline["asr_wer_before_lora"]["n_expected"] == 4
    assert headline["tts_wer_ground_truth"]["value"] == headline["tts_wer_resynthesis"]["value"] == 0.0
    assert (headline["tts_wer"]["value"], headline["tts_wer"]["n_scored"]) == (pytest.approx(1 / 4), 3)
    assert headline["tts_sim_same"]["value"] == pytest.approx(3 / 4)
    assert report["judges"]["recogniser"] == "fake-1"
    rows = list(storage.read_jsonl(run.folder.file("samples.jsonl")))
    failed = [row for row in rows if row["error"]]
    assert {row["line"] for row in failed} == {"tts_wer", "tts_wer_shuffled", "tts_sim_same"}
    assert "503: full" in failed[0]["error"]
    page = storage.read_text(run.folder.file("report.html"))
    assert "Training" in page
    assert "<audio" in page


def test_two_evaluations_agree_wherever_they_ran_and_however_chunked(run, without_cluster, monkeypatch, tmp_path):
    eval_run.evaluate(run)
    first = storage.read_json(run.folder.file("report.json"))["result_sha256"]
    other = RunFolder(str(tmp_path / "elsewhere" / "run_eval-1"), "1", {})
    other.begin()
    monkeypatch.setattr(eval_run, "CHUNK", 1)
    eval_run.evaluate(Run(run.recipe, other, run.inputs))
    assert storage.read_json(other.file("report.json"))["result_sha256"] == first


def test_nothing_to_evaluate_is_bad_input_that_names_the_remedy(run, without_cluster):
    write_manifest(f"{run.inputs['prepare']}/manifest.jsonl", [Utterance("a", "s0.wav", text="one")])
    with pytest.raises(InputError, match=r"corpus\.test"):
        eval_run.evaluate(run)


def test_an_unknown_task_is_bad_input_that_names_the_known_ones(run):
    tasks = run.recipe.eval.model_copy(update={"tasks": ("asr", "singing")})
    with pytest.raises(InputError, match=r"singing.*asr"):
        eval_run._tasks(run.recipe.model_copy(update={"eval": tasks}))


def test_the_recipes_own_model_comes_with_the_one_before_lora(run):
    model = eval_endpoint.evaluated_model(run)
    assert model.names == ("final", "before_lora")
    assert model.id == storage.hash_folder(model.served["final"])
    storage.delete(f"{run.inputs['train']}/phases")
    assert eval_endpoint.evaluated_model(run).names == ("final",)


def test_a_given_model_enters_by_content_and_needs_no_training(run, recipe, tmp_path):
    folder = f"{run.inputs['train']}/model"
    given = recipe.model_copy(update={"model": folder})
    storage.copy_folder(folder, tmp_path / "copy")
    copied = recipe.model_copy(update={"model": str(tmp_path / "copy")})
    assert run_eval.raw_inputs(given) == run_eval.raw_inputs(copied)
    assert eval_endpoint.evaluated_model(Run(given, run.folder, {})).served == {"final": folder}
    with pytest.raises(InputError, match=r"config\.json"):
        run_eval.raw_inputs(recipe.model_copy(update={"model": str(tmp_path)}))


def test_a_running_endpoint_enters_by_the_ids_it_lists(recipe, monkeypatch):
    listed = {"http://one": ["demo-1"], "http://two": ["demo-1"], "http://none": [], "http://off": None}

    def models(self):
        ids = listed[str(self._http.base_url).rstrip("/")]
        if ids is None:
            raise EndpointError("connection refused")
        return ids

    monkeypatch.setattr(eval_endpoint.Client, "models", models)
    ids = [run_eval.raw_inputs(recipe.model_copy(update={"endpoint": url})) for url in list(listed)[:3]]
    assert ids[0] == ids[1] == ["endpoint:demo-1"]
    assert ids[2][0].startswith("endpoint:unnamed-")
    assert run_eval.raw_inputs(recipe.model_copy(update={"endpoint": "http://none"})) == ids[2]
    with pytest.raises(InputError, match="lists no model"):
        eval_endpoint.model_ids("http://none")
    with pytest.raises(InputError, match="connection refused"):
        eval_endpoint.endpoint_identity("http://off")
    served = eval_endpoint.evaluated_model(Run(recipe.model_copy(update={"endpoint": "http://one"}), None, {}))
    assert served.served == {"final": "demo-1"}


def test_a_model_and_an_endpoint_together_are_bad_input(recipe):
    with pytest.raises(InputError, match="give one of them"):
        run_eval.upstream(recipe.model_copy(update={"model": "m", "endpoint": "http://e"}))


def test_what_a_finished_search_found_is_read_beside_what_was_asked(recipe):
    from ray_jobs import tune

    assert eval_report.read_tune(recipe) is None
    folder = tune.JOB.folder(recipe)
    weights = {"asr": 0.25, "tts": 0.25, "lm": 0.25, "music": 0.25}
    storage.write_json(folder.file("trials.json"), [{"step": 3, "objective": 1.0, "weights": weights}])
    storage.write_text(folder.file("mixture.yaml"), yaml.safe_dump({"weights": weights}))
    storage.write_json(folder.file("_SUCCESS"), {})
    found = eval_report.read_tune(recipe)
    assert found["found"] == weights
    (target,) = [phase.weights for phase in recipe.train.phases if phase.mixture_target]
    assert found["asked"] == {group: target[group] for group in weights}
    assert found["trials"][0]["objective"] == 1.0


def test_placement_does_not_enter_the_fields_but_the_seed_does(recipe):
    moved = recipe.model_copy(update={"eval": recipe.eval.model_copy(update={"num_workers": 7, "concurrency": 1})})
    assert run_eval.fields(moved) == run_eval.fields(recipe)
    assert run_eval.fields(recipe.model_copy(update={"seed": 2})) != run_eval.fields(recipe)


def test_the_digits_recipe_is_whole_and_speaks_nothing():
    recipe: Recipe = load_recipe(str(ROOT / "configs" / "digits.yaml"), ["corpus.manifest=/data/m.jsonl"])
    assert recipe.eval.tasks == ("asr",)
    assert recipe.vocoder is None
    assert recipe.corpus.test == {"take": [8, 9]}


@pytest.mark.ray
def test_chunks_run_as_tasks_and_come_back_in_order(ray_cluster, run):
    from eval.judging import Heard, JudgeFolders

    items = [Heard(str(number), "transcribe", "n", error=f"e{number}") for number in range(30)]
    with eval_run.ChunkPool(2) as pool:
        found = pool.collect(pool.submit(eval_run.judge, JudgeFolders(), items))
    assert [key for key, _ in found] == [str(number) for number in range(30)]
    assert found[7][1].error == "e7"
