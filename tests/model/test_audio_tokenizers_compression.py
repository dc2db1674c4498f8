"""Compression can be undone: exactly with durations, and by the codes alone where nothing was deduplicated."""

import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import storage
from data.durations import frames_of_codes
from data.errors import InputError
from model.audio_tokenizers.compression import fit_compression, load_compression
from model.config import BpeCompression, DedupCompression, UnigramCompression

BASE = 12  # units, of which training sees 10
CONFIGS = {
    "dedup": DedupCompression(kind="dedup"),
    "bpe": BpeCompression(kind="bpe", vocabulary_size=40),
    "bpe after dedup": BpeCompression(kind="bpe", vocabulary_size=40, dedup=True),
    "unigram": UnigramCompression(kind="unigram", vocabulary_size=40),
    "unigram after dedup": UnigramCompression(kind="unigram", vocabulary_size=40, dedup=True),
}
CODES = st.lists(st.tuples(st.integers(0, BASE - 1), st.integers(1, 4)), max_size=30).map(
    lambda runs: np.array([code for code, frames in runs for _ in range(frames)], np.int16)
)


def training_sequences() -> list[np.ndarray]:
    """Walks that repeat themselves, as speech does."""
    rng = np.random.default_rng(0)
    motifs = [rng.integers(0, 10, 4) for _ in range(8)]
    return [np.repeat(np.concatenate([motifs[i] for i in rng.integers(0, 8, 30)]), 2) for _ in range(30)]


@cache
def fitted(name: str):
    return fit_compression(CONFIGS[name], training_sequences(), BASE)


@pytest.mark.parametrize("name", CONFIGS)
@settings(max_examples=60, deadline=None)
@given(codes_T=CODES)
def test_expanding_with_durations_gives_every_sequence_back(name, codes_T):
    compression = fitted(name)
    codes_L, durations = compression.compress(codes_T)
    assert codes_L.dtype == durations.dtype == np.int16
    assert np.array_equal(compression.expand(codes_L, durations), codes_T)
    assert codes_L.size == 0 or 0 <= codes_L.min() <= codes_L.max() < compression.codebook_size
    assert frames_of_codes(durations).shape == codes_L.shape
    assert frames_of_codes(durations).sum() == codes_T.size


@pytest.mark.parametrize("name", ["bpe", "unigram"])
@settings(max_examples=60, deadline=None)
@given(codes_T=CODES)
def test_merged_codes_alone_give_every_sequence_back(name, codes_T):
    compression = fitted(name)
    assert np.array_equal(compression.expand(compression.compress(codes_T)[0]), codes_T)


def test_without_durations_a_run_comes_back_as_one_frame():
    codes_T = np.array([3, 3, 3, 5, 5, 1])
    for name in ("dedup", "bpe after dedup", "unigram after dedup"):
        assert fitted(name).expand(fitted(name).compress(codes_T)[0]).tolist() == [3, 5, 1]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_single_unit_keeps_its_number_also_when_training_never_saw_it(name):
    for unit in range(BASE):
        assert fitted(name).compress(np.array([unit]))[0].tolist() == [unit]


def test_merges_make_repetitive_sequences_shorter():
    codes_T = training_sequences()[0]
    for name in ("bpe", "unigram"):
        assert fitted(name).codebook_size == 40
        assert fitted(name).compress(codes_T)[0].size < codes_T.size / 3
    assert fitted("bpe after dedup").compress(codes_T)[0].size < fitted("dedup").compress(codes_T)[0].size


def test_the_pieces_of_a_hand_made_corpus_are_found():
    pair = fit_compression(BpeCompression(kind="bpe", vocabulary_size=4), [np.array([0, 1, 0, 1, 2, 0, 1])], 3)
    codes_L, durations_L = pair.compress(np.array([0, 1, 2, 2, 0, 1]))
    assert codes_L.tolist() == [3, 2, 2, 3]
    assert durations_L.tolist() == [2, 1, 1, 2]


def test_durations_after_deduplication_show_where_codes_begin():
    pair = fit_compression(
        BpeCompression(kind="bpe", vocabulary_size=4, dedup=True), [np.array([0, 0, 1, 0, 1, 1, 2, 0, 1])], 3
    )
    codes_L, durations_U = pair.compress(np.array([0, 0, 1, 2, 2, 2, 0, 1]))
    assert codes_L.tolist() == [3, 2, 3]
    assert durations_U.tolist() == [2, -1, 3, 1, -1]
    assert frames_of_codes(durations_U).tolist() == [3, 3, 2]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_saved_compression_is_the_same(name, tmp_path):
    fitted(name).save(str(tmp_path / name))
    loaded = load_compression(str(tmp_path / name))
    assert (loaded.kind, loaded.codebook_size) == (fitted(name).kind, fitted(name).codebook_size)
    for before, after in zip(
        fitted(name).compress(training_sequences()[1]), loaded.compress(training_sequences()[1]), strict=True
    ):
        assert np.array_equal(before, after)
    assert load_compression(str(tmp_path / "nothing")) is None


@pytest.mark.parametrize("name", ["bpe", "unigram"])
def test_the_order_of_the_sequences_changes_no_byte(name, tmp_path):
    fitted(name).save(str(tmp_path / "a"))
    fit_compression(CONFIGS[name], training_sequences()[::-1], BASE).save(str(tmp_path / "b"))
    assert storage.hash_folder(tmp_path / "a") == storage.hash_folder(tmp_path / "b")


@pytest.mark.slow
def test_another_process_fits_the_same_bytes(tmp_path):
    code = (
        "from tests.model.test_audio_tokenizers_compression import *\n"
        "for name in ('bpe', 'unigram'): fitted(name).save(f'{sys.argv[1]}/{name}')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "other")], check=True)
    for name in ("bpe", "unigram"):
        fitted(name).save(str(tmp_path / "here" / name))
    assert storage.hash_folder(tmp_path / "here") == storage.hash_folder(tmp_path / "other")


def test_what_cannot_be_fitted_or_compressed_is_said():
    with pytest.raises(InputError, match=r"vocabulary_size is 12.*12 codes"):
        fit_compression(BpeCompression(kind="bpe", vocabulary_size=12), training_sequences(), BASE)
    with pytest.raises(InputError, match="no units to fit it on"):
        fit_compression(CONFIGS["unigram"], [], BASE)
    with pytest.raises(InputError, match="0 to 99, expected 0 to 11"):
        fitted("bpe").compress(np.array([0, 99]))
