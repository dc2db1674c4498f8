"""A codebook over a brought encoder: a sample that hangs on seed and ids alone, past bad files, on any workers."""

import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from data import storage
from data.audio import write_wav
from data.manifest import Utterance, write_manifest
from data.run_folder import RunFolder
from model.audio_tokenizers.base import load_audio_tokenizer
from model.audio_tokenizers.shared_kmeans import fit_shared_kmeans
from model.audio_tokenizers.ssl_units import SslUnitTokenizer
from model.config import SslUnits
from ray_jobs import bounded_wait, fit_codebook
from ray_jobs.fit_tokenizer import JOB, work
from ray_jobs.frame_share import FrameShare, limits_of, plan_groups, sampled_rows
from ray_jobs.job import Run
from ray_jobs.recipe import load_recipe
from ray_jobs.tokenize_watch import StalledError
from tests.model.tiny_ssl import save_encoder

ROOT = Path(__file__).resolve().parents[2]
RATE = 16000


def make_corpus(folder: Path, clips: int = 7) -> list[Utterance]:
    """Clips of noise and tones; the first is no audio."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(clips):
        times = np.arange(RATE) / RATE
        wave = rng.normal(0, 0.05, RATE) + 0.2 * np.sin(2 * np.pi * 150 * (i + 1) * times**1.3)
        write_wav(str(folder / f"audio/{i}.wav"), wave, RATE)
        rows.append(
            Utterance(f"u{i}", f"audio/{i}.wav", 1.0, text="low high", kind="speech", split="train",
                      words=(("low", 0.0, 0.5), ("high", 0.5, 1.0)))
        )  # fmt: skip
    (folder / "audio/0.wav").write_bytes(b"not audio")
    write_manifest(str(folder / "manifest.jsonl"), rows)
    return rows


def test_the_sample_hangs_on_seed_and_id_alone():
    rows = sampled_rows(3, "u1", 100, 0.25)
    assert rows == sorted(set(rows)) == sampled_rows(3, "u1", 100, 0.25)
    assert len(rows) == 25
    assert rows != sampled_rows(4, "u1", 100, 0.25) != sampled_rows(4, "u2", 100, 0.25)
    assert [len(sampled_rows(0, "x", frames, 0.1)) for frames in (0, 1, 4)] == [0, 1, 1]


def test_groups_are_as_many_as_the_frames_need_and_their_order_hangs_on_the_seed():
    utterances = [Utterance(f"u{i}", "x.wav", 2.0) for i in range(1000)]
    config = SslUnits(kind="ssl_units", path="x", layer=1, max_frames=5000, frame_share=0.5)
    groups = plan_groups(utterances, config, 50.0, 600.0, 1)
    assert 100 <= sum(map(len, groups)) <= 130
    shuffled = random.Random(0).sample(utterances, len(utterances))
    assert plan_groups(shuffled, config, 50.0, 600.0, 1) == groups != plan_groups(utterances, config, 50.0, 600.0, 2)
    endless = [Utterance("a", "a.wav", 9e9), *utterances]
    assert sum(map(len, plan_groups(endless, config, 50.0, 600.0, 1))) >= 100


def test_frames_beyond_the_bound_are_left_out_from_the_end():
    assert limits_of({2: 40, 0: 50, 1: 30}, 90) == {0: 50, 1: 30, 2: 10}


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """Rows, configuration and tokenizer folder of a corpus of seven clips in groups of two."""
    monkeypatch.setattr("ray_jobs.frame_share.GROUP_UTTERANCES", 2)
    rows = make_corpus(tmp_path)
    config = SslUnits(
        kind="ssl_units", path=save_encoder(tmp_path / "encoder"), layer=2, codebook_size=6, max_frames=140
    )
    SslUnitTokenizer.bring(config, str(tmp_path / "unit"))
    return rows, config, str(tmp_path / "unit")


def shares_of(tmp_path, prepared, workers: int) -> list[FrameShare]:
    rows, config, folder = prepared
    groups = plan_groups(rows, config, 50.0, 600.0, 1)
    return [
        FrameShare(folder, {g: groups[g] for g in range(w, len(groups), workers)}, str(tmp_path / "manifest.jsonl"),
                   config, 600.0, 1)
        for w in range(workers)
    ]  # fmt: skip


def test_shares_of_any_number_fit_the_same_codebook_past_bad_files(tmp_path, prepared):
    results = []
    for workers in (1, 3):
        shares = shares_of(tmp_path, prepared, workers)
        sizes = {group: share.load(group) for share in shares for group in share.groups}
        limits = limits_of(sizes, 140)
        assert sum(sizes.values()) == 150  # half the frames of six clips of 50
        assert sum(limits.values()) == 140

        def call(method, *arguments, shares=shares, limits=limits):
            return [share.call(limits, method, *arguments) for share in shares]

        results.append(fit_shared_kmeans(call, 6, 10, 1))
        words = {group: row for share in shares for group, row in share.words(limits).items()}
        assert {group: len(row) for group, row in words.items()} == {g: n for g, n in limits.items() if n}
        assert set(np.concatenate(list(words.values()))) == {"low", "high"}
    assert np.array_equal(results[0].centroids_KD, results[1].centroids_KD)
    assert results[0].distortion == results[1].distortion


def test_a_share_whose_process_was_replaced_computes_its_frames_again(tmp_path, prepared):
    (first,), (second,) = (shares_of(tmp_path, prepared, 1) for _ in range(2))
    limits = limits_of({group: first.load(group) for group in first.groups}, 140)
    total, squares = first.call(limits, "moments")
    again, squares_again = second.call(limits, "moments")
    assert np.array_equal(total, again)
    assert squares == squares_again


def test_threads_that_decode_ahead_change_nothing(tmp_path, prepared):
    (one,), (several,) = (shares_of(tmp_path, prepared, 1) for _ in range(2))
    several.threads = 3
    limits = limits_of({group: one.load(group) for group in one.groups}, 140)
    assert limits_of({group: several.load(group) for group in several.groups}, 140) == limits
    assert str(one.passed_over()) == str(several.passed_over()) == "7 files read, 1 passed over (1 not_audio)"
    for group, row in one.words(limits).items():
        assert np.array_equal(row, several.words(limits)[group])
        assert np.array_equal(one._part.blocks[group], several._part.blocks[group])


def test_a_share_stops_loading_when_it_alone_has_enough(tmp_path, prepared):
    rows, config, folder = prepared
    prepared = (rows, config.model_copy(update={"max_frames": 30}), folder)
    (share,) = shares_of(tmp_path, (rows, config, folder), 1)
    share.config = prepared[1]
    sizes = [share.load(group) for group in sorted(share.groups)]
    assert sum(sizes) < 30 + 50
    assert sizes[-1] == 0


def test_actors_that_never_come_up_are_an_error_within_the_bound(monkeypatch):
    class Share:
        load = SimpleNamespace(remote=lambda group: f"features of {group}")

    waited = []
    monkeypatch.setattr(
        bounded_wait.ray, "wait", lambda refs, num_returns, timeout: waited.append(timeout) or ([], refs)
    )
    with pytest.raises(StalledError, match=r"FrameShare\)\.load, 0 of 3 groups done, .* 7 s: 3 of 3 tasks"):
        fit_codebook._load([Share, Share], [{0: [], 2: []}, {1: []}], 7.0)
    assert waited == [7.0]


def test_an_actor_that_is_started_anew_has_the_time_to_compute_its_frames_again(tmp_path, prepared, monkeypatch):
    rows, config, folder = prepared
    now, waited = [0.0], []

    class Local:
        """A share in this process that answers at once."""

        def __init__(self, *arguments):
            self.share = FrameShare(*arguments)

        def __getattr__(self, name):
            return SimpleNamespace(remote=getattr(self.share, name))

    def load(shares, dealt, stall_s):
        now[0] += 100.0
        return {group: share.share.load(group) for share in shares for group in share.share.groups}

    def results(asked, stall_s, operator):
        waited.append(stall_s)
        return asked

    actors = SimpleNamespace(options=lambda **options: SimpleNamespace(remote=Local))
    fake = {"remote": lambda kind: actors, "kill": lambda share: None, "put": lambda value: value}
    monkeypatch.setattr(fit_codebook, "ray", SimpleNamespace(**fake))
    monkeypatch.setattr(fit_codebook, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(fit_codebook, "start_ray", lambda: None)
    monkeypatch.setattr(fit_codebook, "_load", load)
    monkeypatch.setattr(fit_codebook, "results_of", results)
    tokenize = load_recipe(str(ROOT / "configs/tiny.yaml"), ["tokenize.stall_s=7"]).tokenize
    centroids_KD, _ = fit_codebook.fit_codebook(folder, config, rows, str(tmp_path / "manifest.jsonl"), tokenize, 1)
    assert len(centroids_KD) == 6
    assert set(waited) == {107.0}


def recipe_of(tmp_path, *fields: str):
    unit = f"{{kind: ssl_units, path: {tmp_path}/encoder, layer: 2, codebook_size: 6, iterations: 5{''.join(fields)}}}"
    return [
        f"tokenizers={{unit: {unit}}}",
        "grammar={templates: {asr: '[asr] {unit} | {text} [eos]'}, groups: {asr: [asr]}}",
    ]


@pytest.mark.ray
def test_fit_tokenizer_on_two_actors_fits_what_one_process_does(ray_cluster, tmp_path):
    rows = make_corpus(tmp_path, clips=40)
    save_encoder(tmp_path / "encoder")
    recipe = load_recipe(str(ROOT / "configs/tiny.yaml"), [*recipe_of(tmp_path), "tokenize.num_workers=2"])
    work(Run(recipe, RunFolder(str(tmp_path / "run"), "x"), {"prepare": str(tmp_path)}))
    tokenizer = load_audio_tokenizer(str(tmp_path / "run/unit"))

    config = recipe.tokenizers["unit"]
    SslUnitTokenizer.bring(config, str(tmp_path / "unit"))
    (share,) = shares_of(tmp_path, (rows, config, str(tmp_path / "unit")), 1)
    limits = limits_of({group: share.load(group) for group in share.groups}, config.max_frames)
    fit = fit_shared_kmeans(lambda method, *arguments: [share.call(limits, method, *arguments)], 6, 5, recipe.seed)
    assert len(limits) == 2
    assert np.array_equal(tokenizer.centroids_KD, fit.centroids_KD)

    quality = storage.read_json(tmp_path / "run/quality.json")["unit"]
    assert quality["frames"] == sum(limits.values()) == 39 * 25
    assert quality["bitrate_bps"] == pytest.approx(50 * np.log2(6))
    assert 0 < quality["relative_distortion"] < 1
    assert {"word_purity", "word_pnmi", "codebook_used", "entropy_bits"} <= set(quality)


def test_the_jobs_id_hangs_on_the_encoders_content_and_not_on_its_place(tmp_path):
    for name, seed in (("x", 0), ("y", 0), ("z", 1)):
        save_encoder(tmp_path / name / "encoder", seed=seed)
    ids = {
        name: JOB.id(load_recipe(str(ROOT / "configs/tiny.yaml"), recipe_of(tmp_path / name)))
        for name in ("x", "y", "z")
    }
    assert ids["x"] == ids["y"] != ids["z"]
    [line] = JOB.plan(load_recipe(str(ROOT / "configs/tiny.yaml"), recipe_of(tmp_path / "x")))
    assert "ssl_units" in line
    assert "fits 6 codes" in line


def test_the_jobs_id_hangs_on_the_dtype_in_use(tmp_path):
    save_encoder(tmp_path / "encoder")

    def id_of(gpus: int, *fields: str) -> str:
        return JOB.id(
            load_recipe(str(ROOT / "configs/tiny.yaml"), [*recipe_of(tmp_path, *fields), f"tokenize.num_gpus={gpus}"])
        )

    assert id_of(0) == id_of(0, ", dtype: fp32") == id_of(1, ", dtype: fp32")
    assert id_of(1) == id_of(1, ", dtype: bf16") == id_of(0, ", dtype: bf16")
    assert id_of(0) != id_of(1)


def test_brought_centroids_are_kept_and_nothing_is_fitted(tmp_path):
    import torch
    from safetensors.torch import save_file

    make_corpus(tmp_path)
    save_encoder(tmp_path / "encoder")
    save_file({"centroids": torch.randn(6, 32)}, tmp_path / "km.safetensors")
    recipe = load_recipe(
        str(ROOT / "configs/tiny.yaml"), recipe_of(tmp_path, f", kmeans_path: {tmp_path}/km.safetensors")
    )
    work(Run(recipe, RunFolder(str(tmp_path / "run"), "x"), {"prepare": str(tmp_path)}))
    quality = storage.read_json(tmp_path / "run/quality.json")["unit"]
    assert quality["bitrate_bps"] == pytest.approx(50 * np.log2(6))
    assert "relative_distortion" not in quality
    assert load_audio_tokenizer(str(tmp_path / "run/unit")).codebook_size == 6
