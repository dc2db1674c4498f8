"""SpeechTokenizer, tiny and random: published names, the arithmetic of its layers, codes that company leaves alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from data.errors import InputError
from model.audio_tokenizers import speech_tokenizer
from model.audio_tokenizers.base import load_audio_tokenizer, stream_info
from model.audio_tokenizers.speech_tokenizer import Shape, SpeechTokenizer, SpeechTokenizerModel
from model.audio_tokenizers.weight_norm import fold_weight_norm
from model.config import SpeechTokenizerUnits
from model.convert import main as convert
from tests.model import tiny_codecs

CONFIG: dict[str, Any] = {
    "n_filters": 4,
    "strides": [8, 5, 4, 2],
    "dimension": 16,
    "semantic_dimension": 24,
    "bidirectional": True,
    "dilation_base": 2,
    "residual_kernel_size": 3,
    "n_residual_layers": 1,
    "lstm_layers": 2,
    "activation": "ELU",
    "codebook_size": 32,
    "n_q": 8,
    "sample_rate": 16000,
    "learning_rate": 1e-4,
}


def random_model(**changes: Any) -> SpeechTokenizerModel:
    """Codebooks lie where the latents of noise do, so that every codebook's codes vary."""
    torch.manual_seed(0)
    model = SpeechTokenizerModel(Shape.read({**CONFIG, **changes})).eval()
    with torch.no_grad():
        latents_TC = model.latents(torch.randn(1, 1, 16000) * 0.3)
        for k, centroids_VC in enumerate(model.codebooks):
            centroids_VC.copy_(torch.randn_like(centroids_VC) * latents_TC.std(0) * 0.7**k)
        model.codebooks[0].add_(latents_TC.mean(0))
    return model


@pytest.fixture(scope="module")
def tokenizer() -> SpeechTokenizer:
    return SpeechTokenizer(random_model())


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=0.3, size=samples).astype(np.float32)


def as_published(model: SpeechTokenizerModel, new_names: bool = False) -> dict[str, torch.Tensor]:
    """The model's state under the names of the checkpoint: weight norm, running sums, the way to HuBERT's width."""
    names = ("parametrizations.weight.original0", "parametrizations.weight.original1")
    length, direction = names if new_names else ("weight_g", "weight_v")
    state: dict[str, torch.Tensor] = {"transform.weight": torch.zeros(24, 16), "transform.bias": torch.zeros(24)}
    for name, value in model.state_dict().items():
        if name.endswith(("conv.weight", "convtr.weight")):
            stem = name.removesuffix("weight")
            state[stem + direction] = value * 3  # its own length is of no account
            state[stem + length] = value.flatten(1).norm(dim=1).view(-1, 1, 1)
        elif name.endswith(".embed"):
            stem = name.removesuffix("embed")
            state |= {name: value, stem + "embed_avg": value * 2, stem + "inited": torch.ones(1)}
            state[stem + "cluster_size"] = torch.ones(len(value))
        else:
            state[name] = value
    return state


def published_folder(folder: Path, **changes: Any) -> Path:
    folder.mkdir()
    torch.save(as_published(random_model(**changes)), folder / "SpeechTokenizer.pt")
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    return folder


def test_the_modules_bear_the_published_names() -> None:
    names = random_model().state_dict().keys()
    for name in (
        "encoder.model.0.conv.conv.weight",
        "encoder.model.1.block.1.conv.conv.weight",
        "encoder.model.1.block.3.conv.conv.bias",
        "encoder.model.1.shortcut.conv.conv.weight",
        "encoder.model.12.conv.conv.weight",
        "encoder.model.13.lstm.weight_ih_l1_reverse",
        "encoder.model.15.conv.conv.weight",
        "decoder.model.1.lstm.weight_hh_l0",
        "decoder.model.3.convtr.convtr.weight",
        "decoder.model.4.block.1.conv.conv.weight",
        "decoder.model.15.conv.conv.weight",
        "quantizer.vq.layers.7._codebook.embed",
    ):
        assert name in names


@pytest.mark.parametrize("activation", ["ELU", "Snake"])
def test_a_published_checkpoint_converts_opens_and_encodes_alike(tmp_path: Path, activation: str) -> None:
    published = published_folder(tmp_path / "published", activation=activation)
    assert convert([str(published), str(tmp_path / "converted")]) == 0
    assert any(name.endswith("weight_g") for name in load_file(tmp_path / "converted" / "model.safetensors"))
    config = SpeechTokenizerUnits(kind="speech_tokenizer", path=str(tmp_path / "converted"), codebooks=(0,))
    SpeechTokenizer.bring(config, str(tmp_path / "semantic"))
    (tmp_path / "converted").rename(tmp_path / "elsewhere")
    opened = load_audio_tokenizer(str(tmp_path / "semantic"))
    info = stream_info(opened, "x")
    assert (info.frame_rate_hz, info.num_codebooks, info.codebook_size) == (50.0, 1, 32)
    expected = SpeechTokenizer(random_model(activation=activation), (0,)).encode([noise(16000)])[0]
    np.testing.assert_array_equal(opened.encode([noise(16000)])[0], expected)
    assert len(np.unique(expected)) > 4
    opened.save(str(tmp_path / "copy"))
    again = load_audio_tokenizer(str(tmp_path / "copy"))
    np.testing.assert_array_equal(again.encode([noise(16000)])[0], expected)


@pytest.mark.parametrize("new_names", [False, True], ids=["weight_g and weight_v", "original0 and original1"])
def test_weight_norm_of_either_naming_is_folded_into_the_weights(new_names: bool) -> None:
    model, other = random_model(), SpeechTokenizerModel(Shape.read(CONFIG))
    other.load_published(as_published(model, new_names))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value)


@pytest.mark.parametrize("layer", [nn.Conv1d(3, 5, 4), nn.ConvTranspose1d(3, 5, 4)], ids=["conv", "transposed"])
def test_folding_is_what_torch_computes(layer: nn.Module) -> None:
    normed = nn.utils.parametrizations.weight_norm(layer)
    with torch.no_grad():
        normed.parametrizations.weight.original0.mul_(1.7)
    torch.testing.assert_close(fold_weight_norm(normed.state_dict())["weight"], normed.weight.detach())


def test_the_layers_compute_what_encodec_computes() -> None:
    """EnCodec of transformers is the same network but for the LSTM's second direction."""
    theirs = tiny_codecs.encodec(
        sampling_rate=16000, use_causal_conv=False, upsampling_ratios=[8, 5, 4, 2], codebook_size=32,
        target_bandwidths=[1.0], n_filters=4, num_residual_layers=2,
    )  # fmt: skip
    shape = Shape.read({**CONFIG, "bidirectional": False, "n_q": theirs.config.num_quantizers, "n_residual_layers": 2})
    ours = SpeechTokenizerModel(shape).eval()
    state = {}
    for name, value in fold_weight_norm(theirs.state_dict()).items():
        side, _, rest = name.partition(".layers.")
        if side == "quantizer":
            state[f"quantizer.vq.layers.{rest.replace('codebook.', '_codebook.')}"] = value
            continue
        transposed = value.ndim and side == "decoder" and f"decoder.model.{rest}".replace(
            ".conv.", ".convtr.convtr."
        ) in ours.state_dict()  # fmt: skip
        state[f"{side}.model.{rest.replace('.conv.', '.convtr.convtr.' if transposed else '.conv.conv.')}"] = value
    ours.load_published(state)
    for samples in (1, 37, 16000, 16123):
        wave_11N = torch.from_numpy(noise(samples))[None, None]
        with torch.inference_mode():
            latents_TC = ours.latents(wave_11N)
            torch.testing.assert_close(latents_TC, theirs.encoder(wave_11N)[0].T, rtol=1e-4, atol=1e-6)
            codes_TQ = ours.quantise(latents_TC, shape.n_q)
            expected = theirs.encode(wave_11N, bandwidth=1.0).audio_codes
            assert torch.equal(codes_TQ.T, expected[0, 0])
            heard = ours.wave(ours.quantised(codes_TQ, range(shape.n_q)))
            torch.testing.assert_close(heard, theirs.decode(expected, [None]).audio_values[0, 0], rtol=1e-3, atol=1e-5)


def test_the_encoders_lstm_reads_both_ways(tokenizer: SpeechTokenizer) -> None:
    wave_N = noise(16000)
    changed_N = wave_N.copy()
    changed_N[-320:] = 0
    with torch.inference_mode():
        whole, cut = (tokenizer.model.latents(torch.from_numpy(w)[None, None]) for w in (wave_N, changed_N))
    # Frame 0 lies far beyond what the convolutions see of the end.
    assert not torch.equal(whole[0], cut[0])


def test_every_codebook_quantises_what_those_before_it_left(tokenizer: SpeechTokenizer) -> None:
    model = tokenizer.model
    with torch.inference_mode():
        latents_TC = model.latents(torch.from_numpy(noise(8000))[None, None]).double()
        codes_TQ = model.double().quantise(latents_TC, 8)
        rest_TC = latents_TC
        for k in range(8):
            distances_TV = torch.cdist(rest_TC, model.codebooks[k])
            assert torch.equal(distances_TV.argmin(1), codes_TQ[:, k])
            rest_TC = rest_TC - model.codebooks[k][codes_TQ[:, k]]
            summed_TC = model.quantised(codes_TQ[:, : k + 1], range(k + 1))
            torch.testing.assert_close(latents_TC - summed_TC, rest_TC)
        parts = model.quantised(codes_TQ[:, :1], [0]) + model.quantised(codes_TQ[:, 1:], range(1, 8))
        torch.testing.assert_close(parts, model.quantised(codes_TQ, range(8)))
        model.float()


def test_semantic_and_acoustic_streams_are_columns_of_all_codes(tokenizer: SpeechTokenizer) -> None:
    wave_N = noise(8000)
    all_TK = tokenizer.encode([wave_N])[0]
    semantic, acoustic = (SpeechTokenizer(tokenizer.model, chosen) for chosen in ((0,), range(1, 8)))
    assert all_TK.shape == (25, 8)
    np.testing.assert_array_equal(np.hstack([semantic.encode([wave_N])[0], acoustic.encode([wave_N])[0]]), all_TK)
    whole_N = tokenizer.decode(all_TK)
    assert whole_N.shape == wave_N.shape
    assert whole_N.dtype == np.float32
    np.testing.assert_array_equal(semantic.decode(all_TK, codebooks=range(8)), whole_N)
    alone_N = acoustic.decode(all_TK[:, 1:])
    assert alone_N.shape == whole_N.shape
    assert not np.array_equal(alone_N, whole_N)
    with pytest.raises(InputError, match=r"expected \(frames, 7\)"):
        acoustic.decode(all_TK)


def test_frames_are_samples_over_the_hop_rounded_up_and_company_changes_no_bit(tokenizer: SpeechTokenizer) -> None:
    waves = [noise(samples, seed) for seed, samples in enumerate((0, 1, 319, 320, 321, 8000, 16123))]
    together = tokenizer.encode(waves, speakers=["a"] * len(waves))
    assert [len(codes_TK) for codes_TK in together] == [0, 1, 1, 1, 2, 25, 51]
    for wave_N, codes_TK in zip(waves, together, strict=True):
        assert codes_TK.dtype == np.int16
        np.testing.assert_array_equal(tokenizer.encode([wave_N])[0], codes_TK)


def test_pieces_of_a_long_recording_join_to_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model().double()
    wave_11N = torch.from_numpy(noise(50003)).double()[None, None]
    with torch.inference_mode():
        whole_TC = model.latents(wave_11N)
        monkeypatch.setattr(speech_tokenizer, "PIECE_S", 0.5)
        torch.testing.assert_close(model.latents(wave_11N), whole_TC, rtol=0, atol=1e-12)


def test_weights_that_do_not_fit_the_config_are_refused(tmp_path: Path) -> None:
    model = SpeechTokenizerModel(Shape.read(CONFIG))
    state = as_published(random_model())
    for change, message in (
        ({"quantizer.vq.layers.0._codebook.embed": None}, "lack quantizer"),
        ({"encoder.model.0.conv.conv.bias": torch.zeros(9)}, r"bias of shape \(9,\), expected \(4,\)"),
        ({"unknown": torch.zeros(1)}, "have unknown besides"),
    ):
        changed = {name: value for name, value in (state | change).items() if value is not None}
        with pytest.raises(InputError, match=message):
            model.load_published(changed)
    with pytest.raises(InputError, match=r"lacks strides"):
        Shape.read({name: value for name, value in CONFIG.items() if name != "strides"})
    absent = SpeechTokenizerUnits(kind="speech_tokenizer", path=str(tmp_path / "absent"))
    with pytest.raises(InputError, match=r"python -m model\.convert"):
        SpeechTokenizer.bring(absent, str(tmp_path / "unit"))
    unconverted = SpeechTokenizerUnits(kind="speech_tokenizer", path=str(published_folder(tmp_path / "published")))
    with pytest.raises(InputError, match=r"python -m model\.convert"):
        SpeechTokenizer.bring(unconverted, str(tmp_path / "unit"))
