"""Self-supervised encoders: the layer that transformers has, and the same features alone and in any company."""

import numpy as np
import pytest
import torch

from data.errors import InputError
from model.audio_tokenizers.assignment import assign
from model.audio_tokenizers.ssl_encoder import ConvShape, SslEncoder, load_ssl_encoder
from tests.model.tiny_ssl import VARIANTS, save_encoder

CPU = torch.device("cpu")
LENGTHS = (4100, 9000, 2513, 9000, 16000, 950)


def waves(lengths=LENGTHS) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(0, 1, length) for length in lengths]


@pytest.fixture(scope="module", params=sorted(VARIANTS))
def folder(request, tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp(request.param), request.param)


def encoder_of(folder: str, dtype: torch.dtype, layer: int = 2) -> SslEncoder:
    return load_ssl_encoder(folder, None, layer, dtype, CPU)


def test_features_are_the_hidden_states_of_transformers(folder):
    from transformers import AutoModel

    wave = waves((9000,))[0]
    model = AutoModel.from_pretrained(folder, dtype=torch.float64).eval()
    with torch.inference_mode():
        states = model(torch.from_numpy(wave)[None], output_hidden_states=True).hidden_states
    for layer in (1, 3):
        features = encoder_of(folder, torch.float64, layer).features([wave])[0]
        assert torch.allclose(features, states[layer][0], atol=1e-9)


@pytest.mark.parametrize("pad_front_end", [False, True])
def test_a_clip_has_the_same_features_alone_and_beside_longer_ones(folder, pad_front_end):
    encoder = encoder_of(folder, torch.float64)
    alone = [encoder.features([wave])[0] for wave in waves()]
    if pad_front_end:  # what a GPU does with front ends that have no norm over time
        if not encoder.may_pad_front_end:
            pytest.skip("this front end is never padded")
        encoder.pad_front_end = True
    together = encoder.features(waves())
    for one, other in zip(alone, together, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() <= 1e-9


def test_units_in_fp32_are_equal_to_999_in_1000(folder):
    encoder = encoder_of(folder, torch.float32)
    clips = [wave.astype(np.float32) for wave in waves((4100, 16000, 12000, 48000, 90000, 24000, 150000))]
    alone = torch.cat([encoder.features([clip])[0] for clip in clips])
    together = torch.cat(encoder.features(clips))
    generator = torch.Generator().manual_seed(1)
    centroids = alone[torch.randperm(len(alone), generator=generator)[:50]]
    assert len(alone) > 1000
    assert (assign(alone, centroids) == assign(together, centroids)).double().mean() >= 0.999


def test_padding_would_change_units_if_it_were_let_in(tmp_path):
    """The test above can fail: the plain way, zeros behind the clip and no mask, moves the features."""
    encoder = encoder_of(save_encoder(tmp_path), torch.float64)
    clip = waves((4100,))[0]
    padded = encoder.features([np.pad(clip, (0, 8000))])[0]
    alone = encoder.features([clip])[0]
    assert (alone - padded[: len(alone)]).abs().max() > 1e-3


def test_frames_are_counted_as_the_convolutions_do():
    conv = ConvShape((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))
    assert (conv.hop_samples, conv.field_samples) == (320, 400)
    assert [conv.frames(n) for n in (0, 399, 400, 719, 720, 16000)] == [0, 0, 1, 1, 2, 49]


def test_what_cannot_be_an_encoder_is_refused(tmp_path):
    folder = save_encoder(tmp_path / "ok")
    with pytest.raises(InputError, match=r"layer is 4, but .* has layers 1 to 3"):
        encoder_of(folder, torch.float32, layer=4)
    from transformers import LlamaConfig

    LlamaConfig(hidden_size=32, num_attention_heads=2).save_pretrained(tmp_path / "llama")
    with pytest.raises(InputError, match="'llama' model, expected one of hubert"):
        encoder_of(str(tmp_path / "llama"), torch.float32)
    for content in ("{}", '{"model_type": "fairseq"}', "no JSON"):
        (tmp_path / "llama/config.json").write_text(content)
        with pytest.raises(InputError, match=r"no config\.json of an encoder: .* \(known are hubert"):
            encoder_of(str(tmp_path / "llama"), torch.float32)


def test_weights_that_lack_tensors_are_refused_and_not_filled_at_random(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = save_encoder(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("encoder.layers.0.attention.k_proj.weight")
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"lack encoder\.layers\.0\.attention\.k_proj\.weight"):
        encoder_of(folder, torch.float32)


def test_pickled_weights_are_never_read(tmp_path):
    folder = save_encoder(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="convert its weights first"):
        encoder_of(folder, torch.float32)


def test_weights_that_are_cut_or_a_pointer_to_some_are_an_input_error(tmp_path):
    folder = save_encoder(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    for content in (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 34\n", whole[:999], b""):
        (tmp_path / "model.safetensors").write_bytes(content)
        with pytest.raises(InputError, match=r"no model\.safetensors that can be read"):
            encoder_of(folder, torch.float32)
