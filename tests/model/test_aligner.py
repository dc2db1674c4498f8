from pathlib import Path

import numpy as np
import pytest
import torch

from data.corpus.steps_config import CtcAlignment
from data.errors import InputError
from model.aligner import WordAligner, interpolate
from model.ctc_alignment import AlignmentError
from tests.tiny_ctc import save_tiny_ctc


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ctc")
    save_tiny_ctc(path)
    return path


def load(folder: Path, **changes: float) -> WordAligner:
    return WordAligner.load(CtcAlignment(kind="ctc", path=str(folder), **changes))


def noise(duration_s: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, int(16000 * duration_s)).astype(np.float32)


def test_every_word_gets_a_time_in_order(folder: Path) -> None:
    words = load(folder).align(noise(2.0), "abba  99 Cab's")
    assert [word for word, _, _ in words] == ["abba", "99", "Cab's"]
    bounds = [time for _, start_s, end_s in words for time in (start_s, end_s)]
    assert bounds == sorted(bounds)
    assert 0 <= bounds[0] < bounds[-1] <= 2.0


def test_known_probabilities_give_known_times(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aligner = load(folder)
    path = [0] * 10 + [2] * 5 + [3] * 5 + [1] * 10 + [4] * 10 + [0] * 10
    known_TV = np.log(np.full((50, 6), 0.01) + 0.9 * np.eye(6)[path])
    monkeypatch.setattr(aligner, "log_probs", lambda wave_N: known_TV)
    assert aligner.align(noise(1.0), "ab c") == (("ab", 0.2, 0.4), ("c", 0.6, 0.8))
    assert aligner.align(noise(1.0), "ab 7 8 c 9") == (
        ("ab", 0.2, 0.4),
        ("7", 0.4, 0.5),
        ("8", 0.5, 0.6),
        ("c", 0.6, 0.8),
        ("9", 0.8, 1.0),
    )


def test_the_frames_are_those_of_the_model_in_one_piece_and_in_chunks(folder: Path) -> None:
    wave_N = noise(3.0)
    whole = load(folder)
    whole_TV = whole.log_probs(wave_N)
    normal_1N = torch.from_numpy((wave_N - wave_N.mean()) / np.sqrt(wave_N.var() + 1e-7))[None]
    with torch.no_grad():
        expected_TV = whole.model(normal_1N).logits[0].log_softmax(-1).numpy()
    np.testing.assert_allclose(whole_TV, expected_TV, atol=1e-5)
    chunked_TV = load(folder, chunk_s=1.0, overlap_s=0.5).log_probs(wave_N)
    assert chunked_TV.shape == whole_TV.shape
    assert np.corrcoef(chunked_TV.ravel(), whole_TV.ravel())[0, 1] > 0.99


def test_what_cannot_be_aligned_says_why(folder: Path) -> None:
    aligner = load(folder)
    with pytest.raises(AlignmentError, match="no character of '12 34'"):
        aligner.align(noise(1.0), "12 34")
    with pytest.raises(AlignmentError, match="too short for 39 tokens"):
        aligner.align(noise(0.2), "abc " * 10)
    with pytest.raises(AlignmentError, match="too short for one frame"):
        aligner.align(noise(0.005), "a")


def test_a_folder_that_is_no_ctc_model_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"corpus\.alignment\.path"):
        load(tmp_path)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(InputError, match=r"vocab\.json"):
        load(tmp_path)


def test_missing_times_share_the_gap() -> None:
    assert interpolate([None, (1.0, 2.0), None, None, (3.0, 4.0), None], 5.0) == [
        (0.0, 1.0),
        (1.0, 2.0),
        (2.0, 2.5),
        (2.5, 3.0),
        (3.0, 4.0),
        (4.0, 5.0),
    ]
