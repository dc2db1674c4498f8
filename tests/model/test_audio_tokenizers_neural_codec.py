"""Codecs of every family, tiny and random: codes alone, in company, in pieces, and as transformers has them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from data.errors import InputError
from data.layouts import frame_major
from data.store import TokenStore, write_shard
from model.audio_tokenizers import codec_families
from model.audio_tokenizers.base import load_audio_tokenizer, stream_info
from model.audio_tokenizers.codec_families import FAMILIES
from model.audio_tokenizers.neural_codec import NeuralCodecTokenizer
from model.config import NeuralCodec
from ray_jobs.tokenize_encoder import Decoded, UtteranceEncoder
from tests.model import tiny_codecs

MAKERS: dict[str, Callable[[], Any]] = {
    "encodec": tiny_codecs.encodec,
    "encodec that looks ahead": tiny_codecs.encodec_music,
    "mimi": tiny_codecs.mimi,
    "dac": tiny_codecs.dac,
    "xcodec": tiny_codecs.xcodec,
}
RATES = {"encodec": 75.0, "encodec that looks ahead": 50.0, "mimi": 12.5, "dac": 50.0, "xcodec": 50.0}


@pytest.fixture(scope="module", params=list(MAKERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tokenizer(name: str) -> NeuralCodecTokenizer:
    return tokenizer_of(MAKERS[name]())


def tokenizer_of(model: Any, codebooks: tuple[int, ...] | None = None) -> NeuralCodecTokenizer:
    return NeuralCodecTokenizer(FAMILIES[model.config.model_type][1](model), codebooks)


def noise(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=0.3, size=round(seconds * rate)).astype(np.float32)


def test_a_second_has_as_many_frames_as_the_config_says(name: str, tokenizer: NeuralCodecTokenizer) -> None:
    assert tokenizer.frame_rate_hz == RATES[name]
    hop = tokenizer.codec.hop_samples
    for frames, samples in ((0, 0), (1, 1), (1, hop), (2, hop + 1), (20, 20 * hop)):
        codes_TK = tokenizer.encode([np.resize(noise(0.5, tokenizer.sample_rate), samples)])[0]
        assert codes_TK.shape == (frames, tokenizer.num_codebooks)
        assert codes_TK.dtype == np.int16
    assert 0 <= codes_TK.min() <= codes_TK.max() < tokenizer.codebook_size


def test_codes_are_those_of_the_model_itself(tokenizer: NeuralCodecTokenizer) -> None:
    model = tokenizer.codec.model
    wave_N = noise(1, tokenizer.sample_rate)[: 10 * tokenizer.codec.hop_samples]
    arguments = {"bandwidth": max(model.config.target_bandwidths)} if hasattr(model.config, "target_bandwidths") else {}
    with torch.inference_mode():
        expected = model.encode(torch.from_numpy(wave_N)[None, None], **arguments).audio_codes
    expected_TK = expected.reshape(tokenizer.num_codebooks, -1).T.numpy()
    np.testing.assert_array_equal(tokenizer.encode([wave_N])[0], expected_TK)
    assert len(np.unique(expected_TK)) > 4


def test_company_changes_no_bit(tokenizer: NeuralCodecTokenizer) -> None:
    waves = [noise(seconds, tokenizer.sample_rate, seed) for seed, seconds in enumerate((0.4, 1.1, 0.03, 0.4))]
    together = tokenizer.encode(waves, speakers=["a", None, "b", "a"])
    for wave_N, codes_TK in zip(waves, together, strict=True):
        np.testing.assert_array_equal(tokenizer.encode([wave_N])[0], codes_TK)


@pytest.mark.parametrize("family", [name for name in MAKERS if name != "xcodec"])
@pytest.mark.parametrize("seconds", [3.0, 3.37])
def test_pieces_join_to_the_whole(family: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tokenizer_of(MAKERS[family]())
    tokenizer.codec.model.double()
    wave_11N = torch.from_numpy(noise(seconds, tokenizer.sample_rate)).double()[None, None]
    with torch.inference_mode():
        whole_QT = tokenizer.codec.codes(wave_11N, tokenizer.num_codebooks)
        monkeypatch.setattr(codec_families, "PIECE_S", 0.5)
        monkeypatch.setattr(codec_families, "PIECE_FRAMES", 10)
        computed = count_pieces(monkeypatch)
        pieces_QT = tokenizer.codec.codes(wave_11N, tokenizer.num_codebooks)
    assert torch.equal(whole_QT, pieces_QT)
    assert min(computed) > 2


def count_pieces(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pieces each call of in_pieces computes from now on."""
    computed: list[int] = []
    original = codec_families.in_pieces

    def counting(compute: Callable[[torch.Tensor], torch.Tensor], *arguments: Any) -> torch.Tensor:
        calls: list[None] = []

        def one(piece: torch.Tensor) -> torch.Tensor:
            calls.append(None)
            return compute(piece)

        result = original(one, *arguments)
        computed.append(len(calls))
        return result

    monkeypatch.setattr(codec_families, "in_pieces", counting)
    return computed


def test_fewer_codebooks_are_columns_of_all(name: str, tokenizer: NeuralCodecTokenizer) -> None:
    wave_N = noise(0.6, tokenizer.sample_rate)
    all_TK = tokenizer.encode([wave_N])[0]
    for codebooks in ((0,), (1, 2), (0, 1, 2)):
        part = NeuralCodecTokenizer(tokenizer.codec, codebooks)
        assert part.num_codebooks == len(codebooks)
        np.testing.assert_array_equal(part.encode([wave_N])[0], all_TK[:, list(codebooks)])


def test_codes_sound_again_for_as_long(tokenizer: NeuralCodecTokenizer) -> None:
    codes_TK = tokenizer.encode([noise(0.8, tokenizer.sample_rate)])[0]
    wave_N = tokenizer.decode(codes_TK)
    assert wave_N.dtype == np.float32
    assert abs(wave_N.size - len(codes_TK) * tokenizer.codec.hop_samples) < tokenizer.codec.hop_samples
    np.testing.assert_array_equal(tokenizer.decode(codes_TK.reshape(-1)), wave_N)
    coarse = NeuralCodecTokenizer(tokenizer.codec, (0, 1)).decode(codes_TK[:, :2])
    assert coarse.shape == wave_N.shape
    assert not np.array_equal(coarse, wave_N)
    assert tokenizer.decode(codes_TK[:0]).size == 0


def test_later_codebooks_are_decoded_only_beside_the_first(tokenizer: NeuralCodecTokenizer) -> None:
    acoustic = NeuralCodecTokenizer(tokenizer.codec, (1, 2))
    wave_N = noise(0.3, tokenizer.sample_rate)
    all_TK = tokenizer.encode([wave_N])[0]
    with pytest.raises(InputError, match="0 to 2 side by side"):
        acoustic.decode(all_TK[:, 1:3])
    np.testing.assert_array_equal(
        acoustic.decode(all_TK[:, :3], codebooks=range(3)), tokenizer.decode(all_TK[:, :3], codebooks=range(3))
    )


def test_codes_that_no_codebook_has_are_refused(tokenizer: NeuralCodecTokenizer) -> None:
    codes_TK = np.zeros((3, tokenizer.num_codebooks), np.int16)
    for bad in (codes_TK - 1, codes_TK + tokenizer.codebook_size, codes_TK[:, 1:], codes_TK.reshape(-1)[1:]):
        with pytest.raises(InputError):
            tokenizer.decode(bad)


@pytest.mark.parametrize("codebooks", [(), (1, 0), (0, 0), (-1,), (0, 9)])
def test_codebooks_that_the_model_lacks_are_refused(codebooks: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="ascending indices from 0 to"):
        tokenizer_of(tiny_codecs.dac(), codebooks)


def test_what_was_brought_opens_again_without_its_source(tmp_path: Path, name: str) -> None:
    model = MAKERS[name]()
    model.save_pretrained(tmp_path / "published")
    config = NeuralCodec(kind="neural_codec", path=str(tmp_path / "published"), codebooks=(0, 1))
    NeuralCodecTokenizer.bring(config, str(tmp_path / "unit"))
    (tmp_path / "published").rename(tmp_path / "elsewhere")
    opened = load_audio_tokenizer(str(tmp_path / "unit"))
    opened.save(str(tmp_path / "copy"))
    again = load_audio_tokenizer(str(tmp_path / "copy"))
    wave_N = noise(0.5, opened.sample_rate)
    expected = tokenizer_of(model, (0, 1)).encode([wave_N])[0]
    for found in (opened, again):
        assert stream_info(found, "x") == stream_info(tokenizer_of(model, (0, 1)), "x")
        np.testing.assert_array_equal(found.encode([wave_N])[0], expected)


def test_weights_under_the_names_of_the_hub_open_too(tmp_path: Path) -> None:
    model = tiny_codecs.encodec()
    model.save_pretrained(tmp_path / "published")
    path = tmp_path / "published" / "model.safetensors"
    named = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value
        for name, value in load_file(path).items()
    }
    assert any(name.endswith("weight_g") for name in named)
    save_file(named, path, {"format": "pt"})
    NeuralCodecTokenizer.bring(NeuralCodec(kind="neural_codec", path=str(path.parent)), str(tmp_path / "unit"))
    wave_N = noise(0.5, 24000)
    found = load_audio_tokenizer(str(tmp_path / "unit")).encode([wave_N])[0]
    np.testing.assert_array_equal(found, tokenizer_of(model).encode([wave_N])[0])


def test_weights_that_lack_a_tensor_are_refused_and_not_made_up(tmp_path: Path) -> None:
    tiny_codecs.dac().save_pretrained(tmp_path / "published")
    path = tmp_path / "published" / "model.safetensors"
    weights = load_file(path)
    del weights["quantizer.quantizers.0.codebook.weight"]
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(InputError, match=r"lack quantizer\.quantizers\.0\.codebook\.weight"):
        NeuralCodecTokenizer.bring(NeuralCodec(kind="neural_codec", path=str(path.parent)), str(tmp_path / "unit"))


def test_weights_that_are_cut_or_a_pointer_to_some_are_an_input_error(tmp_path: Path) -> None:
    tiny_codecs.dac().save_pretrained(tmp_path / "published")
    path = tmp_path / "published" / "model.safetensors"
    whole = path.read_bytes()
    for content in (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 34\n", whole[:999]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="gives no safetensors"):
            NeuralCodecTokenizer.bring(NeuralCodec(kind="neural_codec", path=str(path.parent)), str(tmp_path / "unit"))


def test_a_codec_whose_codes_need_scales_is_refused() -> None:
    with pytest.raises(InputError, match="encodec_48khz"):
        tokenizer_of(tiny_codecs.encodec(normalize=True, chunk_length_s=1.0, overlap=0.01))


def test_a_model_that_is_no_codec_is_refused_by_its_type(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    LlamaForCausalLM(LlamaConfig(vocab_size=8, **shape)).save_pretrained(tmp_path / "llama")
    with pytest.raises(InputError, match="'llama', expected one of encodec, mimi"):
        NeuralCodecTokenizer.bring(NeuralCodec(kind="neural_codec", path=str(tmp_path / "llama")), str(tmp_path / "u"))


def test_music_of_anygpt_is_two_hundred_frame_major_tokens_a_second(tmp_path: Path) -> None:
    model = tiny_codecs.encodec_music()
    model.save_pretrained(tmp_path / "published")
    NeuralCodecTokenizer.bring(
        NeuralCodec(kind="neural_codec", path=str(tmp_path / "published")), str(tmp_path / "music")
    )
    encoder = UtteranceEncoder("manifest.jsonl", {"music": str(tmp_path / "music")}, max_duration_s=60)
    wave_N = noise(2, 32000)
    record = encoder.encode([Decoded(music_utterance(), {32000: wave_N})])[0]
    write_shard(str(tmp_path / "store" / "part-00000.parquet"), [record], encoder.streams)
    info = encoder.streams["music"]
    assert (info.num_codebooks, info.codebook_size, info.frame_rate_hz) == (4, 2048, 50.0)

    row = pq.read_table(tmp_path / "store" / "part-00000.parquet").column("music").to_pylist()[0]
    assert len(row) == 2 * 200
    with torch.inference_mode():
        codes_KT = model.encode(torch.from_numpy(wave_N)[None, None], bandwidth=2.2).audio_codes[0, 0].numpy()
    assert row[:8] == [*codes_KT[:, 0], *codes_KT[:, 1]]
    np.testing.assert_array_equal(row, frame_major(codes_KT.T))
    stored = TokenStore.open(str(tmp_path / "store")).records[0].streams["music"]
    assert encoder.tokenizers["music"].decode(stored).shape == (2 * 32000,)


def music_utterance() -> Any:
    from data.manifest import Utterance

    return Utterance.from_row({"id": "m", "audio_filepath": "m.wav", "kind": "music", "caption": "noise"})
