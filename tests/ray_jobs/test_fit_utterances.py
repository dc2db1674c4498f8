"""fit_tokenizer beyond frames: pitch, style and compression, the same on one worker and on two."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from data import storage
from data.audio import write_wav
from data.manifest import Utterance, write_manifest
from data.quarantine import PassedOver
from data.run_folder import RunFolder
from model.audio_tokenizers.base import compression_of, load_audio_tokenizer, stream_info, tokenizer_id
from ray_jobs import fit_chunks, fit_utterances
from ray_jobs.fit_chunks import Source
from ray_jobs.fit_frames import labels_of_frames
from ray_jobs.fit_tokenizer import work
from ray_jobs.fit_utterances import codes_of_chunk, features_of_chunk, phone_spans
from ray_jobs.job import Run
from ray_jobs.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]
RATE = 16000


def make_corpus(folder: Path) -> list[Utterance]:
    """Eight clips of a tone then noise, whose phones say so, by two speakers; one more is corrupt."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(9):
        tone = 0.2 * np.sin(2 * np.pi * (110 + 60 * (i % 2)) * np.arange(RATE) / RATE)
        write_wav(str(folder / f"audio/{i}.wav"), np.concatenate([tone, rng.normal(0, 0.1, RATE)]), RATE)
        phones = [["a", 0.0, 1.0], ["s", 1.0, 2.0]]
        rows.append(Utterance(f"u{i}", f"audio/{i}.wav", 2.0, text="ah", speaker="ab"[i % 2], extra={"phones": phones}))
    (folder / "audio/8.wav").write_bytes(b"not audio")
    write_manifest(str(folder / "manifest.jsonl"), rows)
    return rows


def fit(folder: Path, name: str, workers: int) -> dict[str, dict[str, float]]:
    recipe = load_recipe(
        str(ROOT / "configs/tiny.yaml"),
        [
            "tokenizers.unit.codebook_size=6",
            "tokenizers.unit.compression={kind: unigram, vocabulary_size: 12}",
            "tokenizers.pitch={kind: pitch_vq, codebook_size: 4, steps: 5, batch_size: 4, crop_codes: 4, channels: 8}",
            "tokenizers.style={kind: style, codebook_size: 3}",
            "grammar.templates={asr: '[asr] {unit} | {text} [eos]'}",
            "grammar.groups={asr: [asr]}",
            "vocoder=null",
            f"tokenize.num_workers={workers}",
        ],
    )
    work(Run(recipe, RunFolder(str(folder / name), "x"), {"prepare": str(folder)}))
    return storage.read_json(folder / name / "quality.json")


@pytest.mark.ray
def test_pitch_style_and_compression_are_fitted_and_judged_alike_on_one_worker_and_on_two(ray_cluster, tmp_path):
    make_corpus(tmp_path)
    quality, again = fit(tmp_path, "a", 1), fit(tmp_path, "b", 2)
    assert quality == again
    for stream in ("unit", "pitch", "style"):
        assert tokenizer_id(str(tmp_path / "a" / stream)) == tokenizer_id(str(tmp_path / "b" / stream))
    assert quality["unit"]["phone_purity"] > 0.9
    assert quality["pitch"]["phone_purity"] > 0.9
    assert {"phone_pnmi", "phone_cluster_purity"} <= set(quality["unit"]) & set(quality["pitch"])
    assert "phone_pnmi" not in quality["style"]
    unit = load_audio_tokenizer(str(tmp_path / "a/unit"))
    assert compression_of(unit).codebook_size == stream_info(unit, "x").codebook_size == 12
    assert quality["unit"]["compressed_codes_per_s"] < unit.frame_rate_hz
    assert load_audio_tokenizer(str(tmp_path / "a/pitch")).speakers.of("a") is not None


def test_features_and_codes_pass_over_bad_files_and_carry_speaker_and_labels(tmp_path):
    from model.audio_tokenizers.style import StyleTokenizer
    from model.config import Style

    rows = make_corpus(tmp_path)
    config, manifest = Style(kind="style", codebook_size=2), str(tmp_path / "manifest.jsonl")
    bad = replace(rows[6], id="gone", audio_filepath="gone.wav")
    found, passed = features_of_chunk([*rows[6:], bad], manifest, 600.0, config)
    assert str(passed) == "4 files read, 2 passed over (1 missing, 1 not_audio)"
    assert [speaker for _, speaker in found] == ["a", "b"]
    tokenizer = StyleTokenizer.fit_utterances(config, [f for f, _ in found], ["a", "b"], 0)
    tokenizer.save(str(tmp_path / "style"))
    encoded, _ = codes_of_chunk(rows[6:], manifest, 600.0, str(tmp_path / "style"))
    assert [one.phones_T.tolist() for one in encoded] == [["a", "s"]] * 2
    assert [one.codes_TK.shape for one in encoded] == [(2, 1)] * 2


def test_labels_fill_their_span_of_frames():
    assert labels_of_frames([["h", 0.0, 0.04], ["ə", 0.08, 0.5]], 5, 25.0).tolist() == ["h", "", "ə", "ə", "ə"]


def test_a_field_called_phones_of_another_form_is_left_alone():
    def spans_of(value):
        return phone_spans(Utterance("u", "u.wav", 1.0, extra={"phones": value}))

    spans = [["h", 0, 0.04], ["ə", 0.08, 0.5]]
    assert spans_of(spans) == spans
    for other in (None, "HH AH L OW", ["HH", "AH"], [["h", "0", "1"]], [["h", None, 1]], [["h", 1.0, 0.5]],
                  [["h", 0.0, float("nan")]], [{"phone": "h"}], {"h": 1}, 3):  # fmt: skip
        assert spans_of(other) == ()
    assert phone_spans(Utterance("u", "u.wav", 1.0)) == ()


def test_tasks_that_encode_ask_for_the_gpus_of_tokenization_and_others_for_none(monkeypatch):
    asked = []

    def remote(**options):
        asked.append(options)
        return lambda function: SimpleNamespace(remote=lambda *arguments: ([], PassedOver()))

    monkeypatch.setattr(fit_chunks.ray, "remote", remote)
    monkeypatch.setattr(fit_chunks, "result_of", lambda found, *_: found)
    source = Source([Utterance("u", "u.wav", 1.0)], "manifest.jsonl", 600.0, 0, 2, 60.0, 0.5)
    assert fit_utterances.encode_sample(source, "unit", 10) == []
    assert fit_utterances.collect_features(source, None) == ([], [])
    assert asked == [{"num_cpus": 1, "num_gpus": 0.5}, {"num_cpus": 1, "num_gpus": 0.0}]
