"""Units of a self-supervised encoder: same in any company, whole after any chunking, self-contained on disk."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from data.errors import InputError
from model.audio_tokenizers.base import load_audio_tokenizer, stream_info, tokenizer_id
from model.audio_tokenizers.ssl_units import SslUnitTokenizer
from model.config import SslUnits
from tests.model.tiny_ssl import edit_json, save_encoder

RATE, HOP, FIELD = 16000, 320, 165
CODES = 20


def clip(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.02, 0.1, samples).astype(np.float32)


def save_centroids(path, dimension: int = 32, codes: int = CODES) -> str:
    save_file({"centroids": torch.randn(codes, dimension, generator=torch.Generator().manual_seed(5))}, path)
    return str(path)


def config_of(tmp_path, variant: str = "hubert", **fields) -> SslUnits:
    encoder = save_encoder(tmp_path / "encoder", variant)
    kmeans = save_centroids(tmp_path / "kmeans.safetensors")
    return SslUnits(
        **{"kind": "ssl_units", "path": encoder, "layer": 2, "codebook_size": CODES, "kmeans_path": kmeans, **fields}
    )


def bring(tmp_path, config: SslUnits) -> SslUnitTokenizer:
    SslUnitTokenizer.bring(config, str(tmp_path / "unit"))
    return load_audio_tokenizer(str(tmp_path / "unit"))


def test_it_says_what_it_is_and_encodes_any_length(tmp_path):
    tokenizer = bring(tmp_path, config_of(tmp_path))
    info = stream_info(tokenizer, "x")
    assert (info.frame_rate_hz, info.num_codebooks, info.codebook_size) == (50.0, 1, CODES)
    lengths = {0: 0, 1: 1, FIELD - 1: 1, FIELD: 1, FIELD + HOP - 1: 1, FIELD + HOP: 2, RATE: 50}
    codes = tokenizer.encode([clip(samples) for samples in lengths])
    assert [len(codes_TK) for codes_TK in codes] == list(lengths.values())
    assert all(codes_TK.dtype == np.int16 and codes_TK.shape[1] == 1 for codes_TK in codes)
    assert all((codes_TK >= 0).all() and (codes_TK < CODES).all() for codes_TK in codes)


@pytest.mark.parametrize("variant", ["hubert", "wavlm_large", "data2vec"])
def test_units_do_not_depend_on_the_batch_or_its_size(tmp_path, variant):
    config = config_of(tmp_path, variant, batch_s=60.0)
    clips = [clip(samples, i) for i, samples in enumerate((16000, 5000, 48000, 700, 90000, 200000))]
    features = np.concatenate(bring(tmp_path, config).features_of_waves(clips))
    chosen = np.random.default_rng(0).choice(features, CODES, replace=False)
    save_file({"km": torch.from_numpy(chosen)}, config.kmeans_path)
    tokenizer = bring(tmp_path, config)
    together = np.concatenate(tokenizer.encode(clips, speakers=["a"] * len(clips)))
    alone = np.concatenate([tokenizer.encode([one])[0] for one in clips])
    assert (together == alone).mean() >= 0.999
    assert len(alone) > 1000
    assert len(np.unique(alone)) > CODES // 2


def test_the_folder_stands_alone(tmp_path):
    tokenizer = bring(tmp_path, config_of(tmp_path))
    expected = tokenizer.encode([clip(9000)])[0]
    tokenizer.save(str(tmp_path / "elsewhere/unit"))
    assert tokenizer_id(str(tmp_path / "unit")) == tokenizer_id(str(tmp_path / "elsewhere/unit"))
    for gone in ("encoder", "unit"):
        shutil.rmtree(tmp_path / gone)
    assert np.array_equal(load_audio_tokenizer(str(tmp_path / "elsewhere/unit")).encode([clip(9000)])[0], expected)


def make_local(folder: str) -> None:
    """Make an encoder whose frames see only what is near: attention contributes nothing."""
    weights = load_file(f"{folder}/model.safetensors")
    for name in weights:
        if "attention.out_proj" in name:
            weights[name] = torch.zeros_like(weights[name])
    save_file(weights, f"{folder}/model.safetensors", {"format": "pt"})


def test_chunks_of_a_long_recording_join_without_a_seam(tmp_path):
    """With an encoder that sees no further than the overlap, units of chunks are those of the whole, all of them."""
    config = config_of(tmp_path, "wav2vec2_large", chunk_s=1.0, overlap_s=0.5)
    make_local(config.path)
    chunked = bring(tmp_path, config)
    whole = bring(tmp_path / "whole", config.model_copy(update={"chunk_s": 60.0}))
    wave = clip(7 * RATE + 123)
    features, expected = (tokenizer.features_of_waves([wave])[0] for tokenizer in (chunked, whole))
    assert features.shape == expected.shape == (350, 32)
    assert np.abs(features - expected).max() < 1e-4
    assert (chunked.encode([wave])[0] == whole.encode([wave])[0]).mean() >= 0.999


def test_chunks_are_computed_apart(tmp_path):
    """The test above could not see it if nothing were cut: here attention reaches over the whole recording."""
    config = config_of(tmp_path, chunk_s=1.0, overlap_s=0.2)
    chunked = bring(tmp_path, config)
    whole = bring(tmp_path / "whole", config.model_copy(update={"chunk_s": 60.0}))
    wave = clip(4 * RATE)
    assert np.abs(chunked.features_of_waves([wave])[0] - whole.features_of_waves([wave])[0]).max() > 1e-3


def test_normalisation_is_what_the_feature_extractor_says_unless_told(tmp_path):
    config = config_of(tmp_path, "wavlm_large")
    assert bring(tmp_path, config).settings.normalize
    told = bring(tmp_path / "told", config.model_copy(update={"normalize": False}))
    assert not told.settings.normalize
    edit_json(tmp_path / "encoder/preprocessor_config.json", do_normalize=False)
    plain = bring(tmp_path / "plain", config)
    assert not plain.settings.normalize
    loud, quiet = clip(9000), 0.1 * clip(9000)
    assert not np.allclose(plain.features_of_waves([loud])[0], plain.features_of_waves([quiet])[0], atol=1e-3)
    normal = bring(tmp_path / "normal", config.model_copy(update={"normalize": True}))
    assert np.allclose(normal.features_of_waves([loud])[0], normal.features_of_waves([quiet])[0], atol=1e-3)


def test_without_centroids_there_are_features_and_a_clear_error_for_codes(tmp_path):
    tokenizer = bring(tmp_path, config_of(tmp_path, kmeans_path=None))
    assert tokenizer.features_of_waves([clip(RATE)])[0].shape == (50, 32)
    with pytest.raises(InputError, match="no centroids yet: run fit_tokenizer"):
        tokenizer.encode([clip(RATE)])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"codebook_size": 21}, r"centroids are \(20, 32\), expected .* \(21, 32\)"),
        ({"sample_rate": 24000}, "24000 Hz, but the encoder .* hears 16000 Hz"),
        ({"layer": 9}, "layer is 9"),
        ({"kmeans_path": "nowhere.safetensors"}, "does not exist"),
    ],
)
def test_what_does_not_fit_is_an_input_error(tmp_path, fields, message):
    with pytest.raises(InputError, match=message):
        bring(tmp_path, config_of(tmp_path, **fields))


def test_a_pickled_kmeans_is_refused(tmp_path):
    (tmp_path / "km.bin").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(InputError, match="no safetensors file"):
        bring(tmp_path, config_of(tmp_path, kmeans_path=str(tmp_path / "km.bin")))


def test_an_overlap_longer_than_the_chunk_is_refused(tmp_path):
    with pytest.raises(ValueError, match="overlap_s is 5, expected less than chunk_s, which is 3"):
        SslUnits(kind="ssl_units", path="x", layer=1, chunk_s=3, overlap_s=5)
