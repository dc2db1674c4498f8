from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from data.audio import load_audio
from model.vad import SAMPLE_RATE, WINDOW_SAMPLES, VoiceActivity

pytest.importorskip("safetensors")
if find_spec("silero_vad") is None:
    pytest.skip("silero-vad is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def detector() -> VoiceActivity:
    return VoiceActivity.from_wheel()


@pytest.fixture(scope="module")
def speech(real_audio: Path) -> np.ndarray:
    """Ten seconds of silence, then a recording."""
    wave = load_audio(str(real_audio / "read" / "jfk" / "jfk.flac"), SAMPLE_RATE)
    return np.concatenate([np.zeros(10 * SAMPLE_RATE, np.float32), wave])


def test_speech_is_told_from_silence_and_noise(detector: VoiceActivity, speech: np.ndarray) -> None:
    probability_W, num_samples = detector.probabilities([speech])
    assert num_samples == len(speech)
    assert len(probability_W) == -(-len(speech) // WINDOW_SAMPLES)
    first_spoken = 10 * SAMPLE_RATE // WINDOW_SAMPLES
    assert (probability_W[:first_spoken] < 0.3).all()
    assert (probability_W[first_spoken:] > 0.5).mean() > 0.6
    noise = np.random.default_rng(0).normal(0, 0.05, 5 * SAMPLE_RATE).astype(np.float32)
    assert (detector.probabilities([noise])[0] > 0.5).mean() < 0.05


def test_how_the_audio_arrives_changes_nothing(detector: VoiceActivity, speech: np.ndarray) -> None:
    long = np.concatenate([speech, speech])
    whole_W, _ = detector.probabilities([long])
    pieces_W, num_samples = detector.probabilities(np.array_split(long, 17))
    np.testing.assert_array_equal(whole_W, pieces_W)
    assert num_samples == len(long)
    assert detector.probabilities([])[0].size == 0


def test_the_network_is_the_one_that_the_package_runs(detector: VoiceActivity, speech: np.ndarray) -> None:
    """With the weights of the package's TorchScript model, ours gives its probabilities, window by window."""
    found = find_spec("silero_vad")
    assert found is not None
    assert found.origin is not None
    published = torch.jit.load(str(Path(found.origin).parent / "data" / "silero_vad.jit"))
    weights = published.state_dict()
    ours = VoiceActivity()
    names = {"stft_conv.weight": "_model.stft.forward_basis_buffer"}
    for index in range(4):
        names |= {f"conv{index + 1}.{p}": f"_model.encoder.{index}.reparam_conv.{p}" for p in ("weight", "bias")}
    names |= {f"lstm.{p}_l0": f"_model.decoder.rnn.{p}" for p in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    names |= {f"final_conv.{p}": f"_model.decoder.decoder.2.{p}" for p in ("weight", "bias")}
    ours.load_state_dict({name: weights[theirs] for name, theirs in names.items()})
    wave_N = torch.from_numpy(speech[9 * SAMPLE_RATE : 12 * SAMPLE_RATE]).clone()
    wave_N = wave_N[: len(wave_N) // WINDOW_SAMPLES * WINDOW_SAMPLES]
    with torch.no_grad():
        expected_W = [published(window_N, SAMPLE_RATE).item() for window_N in wave_N.split(WINDOW_SAMPLES)]
    np.testing.assert_allclose(ours.eval().probabilities([wave_N.numpy()])[0], expected_W, atol=1e-4)
