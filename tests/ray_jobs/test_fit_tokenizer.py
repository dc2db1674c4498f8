"""fit_tokenizer: the same tokenizers for the same corpus, past bad files; a clear error where audio is missing."""

from pathlib import Path

import numpy as np
import pytest

from data import storage
from data.audio import write_wav
from data.errors import InputError
from data.manifest import Utterance, write_manifest
from data.run_folder import RunFolder
from data.text_tokenizer import decode_text, encode_text
from model.audio_tokenizers.base import load_audio_tokenizer, tokenizer_id
from model.config import KMeansUnits
from ray_jobs.fit_frames import frames_of_chunk
from ray_jobs.fit_tokenizer import JOB, work
from ray_jobs.job import Run
from ray_jobs.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]
RATE = 16000


def make_corpus(folder: Path) -> list[Utterance]:
    """Four training clips, one of them corrupt, a test clip and a music clip."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(6):
        write_wav(str(folder / f"audio/{i}.wav"), rng.normal(0, 0.1, RATE), RATE)
        kind, split = ("music" if i == 5 else "speech"), ("test" if i == 4 else "train")
        words = (("low", 0.0, 0.52), ("high", 0.52, 1.0))
        rows.append(
            Utterance(f"u{i}", f"audio/{i}.wav", 1.0, text="low high", kind=kind, split=split, words=words,
                      caption="a tune" if kind == "music" else None)
        )  # fmt: skip
    (folder / "audio/0.wav").write_bytes(b"not audio")
    write_manifest(str(folder / "manifest.jsonl"), rows)
    return rows


def test_frames_carry_the_word_they_lie_in_and_bad_files_are_passed_over(tmp_path):
    rows = make_corpus(tmp_path)
    config = KMeansUnits(kind="kmeans_units")
    found, passed = frames_of_chunk(rows[:3], str(tmp_path / "manifest.jsonl"), 600.0, config)
    assert [features_TD.shape for features_TD, _ in found] == [(25, 39)] * 2
    assert [words_T.tolist() for _, words_T in found] == [["low"] * 13 + ["high"] * 12] * 2
    assert str(passed) == "3 files read, 1 passed over (1 not_audio)"
    assert frames_of_chunk(rows[:1], str(tmp_path / "manifest.jsonl"), 600.0, config)[0] == []


@pytest.mark.ray
def test_two_fits_agree_and_everything_is_written(ray_cluster, tmp_path):
    make_corpus(tmp_path)
    small = ["tokenizers.unit.codebook_size=6", "tokenizers.music.codebook_size=4"]
    for name, workers in (("a", 1), ("b", 2)):
        recipe = load_recipe(str(ROOT / "configs/tiny.yaml"), [*small, f"tokenize.num_workers={workers}"])
        work(Run(recipe, RunFolder(str(tmp_path / name), "x"), {"prepare": str(tmp_path)}))
    for part in ("unit", "music", "text"):
        assert tokenizer_id(str(tmp_path / "a" / part)) == tokenizer_id(str(tmp_path / "b" / part))
    assert load_audio_tokenizer(str(tmp_path / "a/music")).num_codebooks == 2
    quality = storage.read_json(tmp_path / "a/quality.json")
    assert quality["unit"]["frames"] == 75
    assert quality["unit"]["bitrate_bps"] == pytest.approx(25 * np.log2(6))
    assert {
        "word_purity",
        "word_cluster_purity",
        "word_pnmi",
        "entropy_bps",
        "relative_distortion",
        "codebook_used",
    } <= set(quality["unit"])


def test_the_text_tokenizer_has_a_token_for_every_training_word(tmp_path, monkeypatch):
    from transformers import AutoTokenizer

    make_corpus(tmp_path)
    monkeypatch.setattr("ray_jobs.fit_tokenizer._make_stream", lambda *args: {})
    recipe = load_recipe(str(ROOT / "configs/tiny.yaml"), [])
    work(Run(recipe, RunFolder(str(tmp_path / "run"), "x"), {"prepare": str(tmp_path)}))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run/text")
    assert len(encode_text(tokenizer, "low high a tune")) == 4
    assert decode_text(tokenizer, encode_text(tokenizer, "über 世界")) == "über 世界"
    brought = load_recipe(str(ROOT / "configs/tiny.yaml"), ["text.kind=pretrained", f"text.path={tmp_path}/run/text"])
    work(Run(brought, RunFolder(str(tmp_path / "again"), "x"), {"prepare": str(tmp_path)}))
    assert len(AutoTokenizer.from_pretrained(tmp_path / "again/text")) == len(tokenizer)
    assert JOB.id(brought) != JOB.id(recipe)
    (tmp_path / "none").mkdir()
    bad = load_recipe(str(ROOT / "configs/tiny.yaml"), [f"text={{kind: pretrained, path: {tmp_path}/none}}"])
    monkeypatch.setattr("ray_jobs.fit_tokenizer._make_stream", lambda *args: pytest.fail("fitted first"))
    with pytest.raises(InputError, match=r"text.path=.*/none' holds no text tokenizer"):
        work(Run(bad, RunFolder(str(tmp_path / "bad"), "x"), {"prepare": str(tmp_path)}))


def test_a_stream_without_audio_is_an_error_only_where_the_recipe_uses_it(tmp_path, monkeypatch):
    rows = [row for row in make_corpus(tmp_path) if row.kind == "speech"]
    write_manifest(str(tmp_path / "manifest.jsonl"), rows)
    monkeypatch.setattr("ray_jobs.fit_tokenizer._make_stream", lambda *args: {})
    recipe = load_recipe(str(ROOT / "configs/tiny.yaml"), [])
    run = Run(recipe, RunFolder(str(tmp_path / "run"), "x"), {"prepare": str(tmp_path)})
    with pytest.raises(InputError, match=r"'music'.*text_to_music.*no training utterance of kind 'music'"):
        work(run)
    grammar = recipe.grammar.model_copy(update={"templates": {"asr": "[asr] {unit} | {text} [eos]"}})
    work(Run(recipe.model_copy(update={"grammar": grammar}), run.folder, run.inputs))
    assert list(storage.read_json(run.folder.file("quality.json"))) == ["unit"]


def test_a_corpus_without_training_data_is_an_input_error(tmp_path):
    write_manifest(str(tmp_path / "manifest.jsonl"), [Utterance("a", "a.wav", split="test")])
    recipe = load_recipe(str(ROOT / "configs/tiny.yaml"), [])
    with pytest.raises(InputError, match="no utterance of split 'train'"):
        work(Run(recipe, RunFolder(str(tmp_path / "run"), "x"), {"prepare": str(tmp_path)}))
