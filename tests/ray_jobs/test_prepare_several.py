"""A recipe of several corpora: one manifest, one id, and every missing folder named at once."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from data.audio import write_wav
from data.manifest import read_manifest
from ray_jobs import prepare, train
from ray_jobs.recipe import load_recipe

DEMO = Path(__file__).resolve().parents[2] / "configs" / "demo.yaml"


def kaldi(folder: Path, *names: str) -> dict[str, Any]:
    folder.mkdir()
    for name in names:
        write_wav(str(folder / f"{name}.wav"), np.zeros(8000), 8000)
    (folder / "wav.scp").write_text("".join(f"{name} {name}.wav\n" for name in names))
    (folder / "text").write_text("".join(f"{name} {folder.name}\n" for name in names))
    return {"kind": "kaldi", "path": str(folder)}


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A recipe of two corpora that share the id b."""
    corpora = {"second": kaldi(tmp_path / "two", "b", "c"), "first": kaldi(tmp_path / "one", "a", "b")}
    tree = {**yaml.safe_load(DEMO.read_text()), "corpus": {"kind": "several", "corpora": corpora}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**tree, "runs_dir": str(tmp_path / "runs")}))
    return str(tmp_path / "recipe.yaml")


def test_several_corpora_become_one_manifest(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare.main([path]) == 0
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    found = {item.id: (item.text, item.extra["corpus"]) for item in read_manifest(folder / "manifest.jsonl")}
    assert found == {"a": ("one", "first"), "b": ("one", "first"), "c": ("two", "second")}
    bad = [json.loads(line) for line in (folder / "quarantine.jsonl").read_text().splitlines()]
    assert [(row["id"], row["reason"]) for row in bad] == [("b#2", "duplicate_id")]


def test_the_id_hangs_on_contents_and_not_on_places(path: str, tmp_path: Path) -> None:
    before = prepare.JOB.id(load_recipe(path, []))
    (tmp_path / "two").rename(tmp_path / "moved")
    moved = [f"corpus.corpora.second.path={tmp_path}/moved"]
    assert prepare.JOB.id(load_recipe(path, moved)) == before
    (tmp_path / "moved" / "text").write_text("b other\n")
    assert prepare.JOB.id(load_recipe(path, moved)) != before


def test_a_dry_run_tells_of_each_corpus(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main([path, "--dry-run"]) == 0
    assert capsys.readouterr().out.count("2 utterances, 0.00 h") >= 2


def test_a_dry_run_prints_what_it_can_and_names_all_that_is_missing(
    path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    gone = [f"corpus.corpora.{name}.path={tmp_path}/no-{name}" for name in ("first", "second")]
    gone.append("corpus.corpora.first.alignment={kind: ctc, path: some/aligner}")
    hub = "tokenizers.unit={kind: ssl_units, path: some/encoder, layer: 2}"
    assert (
        train.main([path, *gone, hub, "lm.path=some/model", "text={kind: pretrained, path: /no/text}", "--dry-run"])
        == 2
    )
    shown = capsys.readouterr().out
    assert "workers 2 x 1 CPU" in shown
    assert "weights lm.path: some/model  (fetched" in shown
    assert "text.path='/no/text': nothing is there" in caplog.text
    assert "missing tokenizers.unit.revision: the commit of some/encoder" in caplog.text
    assert "missing corpus.corpora.first.alignment.revision: the commit of some/aligner" in caplog.text
    assert caplog.text.count("corpus.corpora.first: corpus.path=") == 1
    for name in ("first", "second"):
        assert f"corpus.corpora.{name}: corpus.path='{tmp_path}/no-{name}' does not exist" in caplog.text


def test_a_dry_run_says_what_would_be_fetched_and_what_is_not_there(
    path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    hub = "tokenizers.unit={kind: ssl_units, path: some/encoder, layer: 2}"
    assert train.main([path, "lm.path=some/model", hub, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "weights lm.path: some/model  (fetched from the hub when they are needed)" in shown
    assert "weights tokenizers.unit.path: some/encoder  (fetched" in shown
    assert "missing tokenizers.unit.revision: the commit of some/encoder" in shown
    assert train.main([path, "lm.path=/no/model", "--dry-run"]) == 2
    assert "lm.path='/no/model': nothing is there" in caplog.text


def test_no_work_begins_before_weights_are_there_and_hub_ids_have_their_commits(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    monkeypatch.setattr(
        "transformers.utils.hub.cached_file",
        lambda hub_id, name, revision: f"{tmp_path}/models--x--y/snapshots/{commit}/{name}",
    )
    monkeypatch.setattr("ray_jobs.prepare.bring", lambda *arguments: pytest.fail("a corpus was read"))
    encoder = "tokenizers.unit={kind: ssl_units, path: some/encoder, layer: 2}"
    aligner = "corpus.corpora.first.alignment={kind: ctc, path: some/aligner}"
    for override, told in (
        (encoder, f"tokenizers.unit: path 'some/encoder' is a hub id .* revision: {commit}"),
        (aligner, f"corpus.corpora.first.alignment: path 'some/aligner' is a hub id .* revision: {commit}"),
        ("lm.path=/no/model", "lm.path='/no/model': nothing is there"),
        (
            encoder.replace("layer: 2", f"revision: {commit}, layer: 2, kmeans_path: no.safetensors"),
            "kmeans_path='no.saf",
        ),
    ):
        caplog.clear()
        assert train.main([path, override]) == 2
        assert re.search(told, caplog.text)
    assert not (tmp_path / "runs").exists()


def test_paths_of_several_corpora_must_be_absolute_under_a_submitted_job(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert prepare.main([path, "corpus.corpora.second.path=two", "--dry-run"]) == 2
    assert "corpus.corpora.second.path='two' is relative" in caplog.text
