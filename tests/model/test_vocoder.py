from pathlib import Path

import numpy as np
import pytest
import torch

from data.errors import InputError
from model.audio_tokenizers.features import log_mel
from model.config import VocoderConfig
from model.vocoder_training import Example, fit_unit_mel
from model.vocoders.base import load_vocoder
from model.vocoders.unit_mel import UnitMelNetwork, UnitMelVocoder

RATE = 16000
PITCHES_HZ = (220.0, 440.0, 880.0)
TINY = VocoderConfig(steps=40, channels=16, batch_size=8, crop_codes=12, lr=1e-2, griffin_lim_iterations=8)


def tones(codes: list[int], gain: float) -> np.ndarray:
    time_N = np.arange(640) / RATE
    return np.concatenate([gain * np.sin(2 * np.pi * PITCHES_HZ[code] * time_N) for code in codes])


def examples() -> list[Example]:
    rng = np.random.default_rng(0)
    found = []
    for index in range(12):
        codes = np.repeat(rng.integers(0, 3, 5), 4)
        voice, gain = ("loud", 0.5) if index % 2 else ("soft", 0.05)
        found.append(Example(codes, log_mel(tones(list(codes), gain), RATE).astype(np.float32), voice))
    return found


@pytest.fixture(scope="module")
def vocoder() -> UnitMelVocoder:
    return fit_unit_mel(examples(), TINY, 1, "unit", 25.0, 3)[0]


def test_training_learns_which_sound_a_unit_stands_for(vocoder: UnitMelVocoder) -> None:
    for code, pitch_hz in enumerate(PITCHES_HZ):
        wave = vocoder.synthesize({"unit": np.full(20, code)}, "loud")
        spectrum = np.abs(np.fft.rfft(wave * np.hanning(wave.size)))
        loudest_hz = np.argmax(spectrum) * RATE / wave.size
        assert abs(loudest_hz - pitch_hz) < 0.25 * pitch_hz


def test_the_voice_is_heard(vocoder: UnitMelVocoder) -> None:
    codes = {"unit": np.full(20, 1)}
    assert np.std(vocoder.synthesize(codes, "loud")) > 3 * np.std(vocoder.synthesize(codes, "soft"))


def test_two_fits_of_one_seed_are_equal_and_survive_the_disk(vocoder: UnitMelVocoder, tmp_path: Path) -> None:
    again = fit_unit_mel(examples(), TINY, 1, "unit", 25.0, 3)[0]
    again.save(str(tmp_path))
    loaded = load_vocoder(str(tmp_path))
    assert (loaded.voices, loaded.inputs, loaded.sample_rate) == (("loud", "soft"), ("unit",), RATE)
    codes = {"unit": np.array([0, 0, 1, 2], np.int16)}
    assert np.array_equal(loaded.synthesize(codes, "soft"), vocoder.synthesize(codes, "soft"))


@pytest.mark.parametrize("length", [0, 1, 2, 3, 30])
def test_any_number_of_units_gives_its_own_length_of_sound(vocoder: UnitMelVocoder, length: int) -> None:
    wave = vocoder.synthesize({"unit": np.ones((length, 1), np.int16)}, "loud")
    assert wave.dtype == np.float32
    assert wave.shape == (length * 640,)
    assert np.isfinite(wave).all()


def test_durations_repeat_deduplicated_units(vocoder: UnitMelVocoder) -> None:
    whole = vocoder.synthesize({"unit": np.array([0, 0, 0, 2])}, "loud")
    short = vocoder.synthesize({"unit": np.array([0, 2]), "unit_durations": np.array([3, 1])}, "loud")
    assert np.array_equal(whole, short)


def test_pieces_are_together_as_long_as_the_whole(vocoder: UnitMelVocoder) -> None:
    chunks = [{"unit": np.full(length, 1)} for length in (5, 1, 0, 20, 7)]
    pieces = list(vocoder.stream(chunks, "loud"))
    assert sum(piece.size for piece in pieces) == 33 * 640
    assert list(vocoder.stream([], "loud")) == []


def test_unknown_voices_streams_and_codes_are_refused(vocoder: UnitMelVocoder) -> None:
    for voice in ("nobody", None):
        with pytest.raises(InputError, match="loud, soft"):
            vocoder.synthesize({"unit": np.ones(3, int)}, voice)
    with pytest.raises(InputError, match="needs the stream 'unit'"):
        vocoder.synthesize({"music": np.ones(3, int)}, "loud")
    with pytest.raises(InputError, match="another tokenizer"):
        vocoder.synthesize({"unit": np.array([3])}, "loud")
    with pytest.raises(InputError, match="nothing to learn"):
        fit_unit_mel([], TINY, 1, "unit", 25.0, 3)


def test_padding_of_a_batch_does_not_change_a_clip(vocoder: UnitMelVocoder) -> None:
    network: UnitMelNetwork = vocoder.network
    codes_BT, voice_B = torch.tensor([[0, 1, 2, 0, 0]]), torch.tensor([0])
    mask_BT1 = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0])[None, :, None]
    with torch.no_grad():
        alone = network(codes_BT[:, :3], voice_B)
        padded = network(codes_BT, voice_B, mask_BT1)[:, :12]
    assert torch.allclose(alone, padded, atol=1e-6)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="folder of a vocoder"):
        load_vocoder(str(tmp_path))
    (tmp_path / "config.json").write_text('{"kind": "hum"}')
    with pytest.raises(InputError, match="unit_mel"):
        load_vocoder(str(tmp_path))
