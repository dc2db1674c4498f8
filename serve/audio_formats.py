"""Waveforms as the audio formats of the API."""

import io

import numpy as np
import soundfile

from data.audio import resample, wav_bytes

PCM_RATE_HZ = 24_000  # headerless PCM has no place for a rate: OpenAI's is fixed
CONTENT_TYPES = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "pcm": f"audio/pcm;rate={PCM_RATE_HZ};channels=1",
    "pcm16": f"audio/pcm;rate={PCM_RATE_HZ};channels=1",
}
_LIBSNDFILE = {"flac": ("FLAC", "PCM_16"), "mp3": ("MP3", "MPEG_LAYER_III"), "opus": ("OGG", "OPUS")}
_CODEC_RATES_HZ = {
    "mp3": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
    "opus": (8000, 12000, 16000, 24000, 48000),
}


def encode_audio(wave: np.ndarray, sample_rate: int, audio_format: str) -> bytes:
    """Float samples (N,) in one of CONTENT_TYPES, resampled where the format does not know the rate."""
    if audio_format == "wav":
        return wav_bytes(wave, sample_rate)
    if audio_format in ("pcm", "pcm16"):
        samples = resample(np.asarray(wave, np.float32), sample_rate, PCM_RATE_HZ)
        return np.clip(np.round(samples * 32768.0), -32768, 32767).astype("<i2").tobytes()
    rates = _CODEC_RATES_HZ.get(audio_format, (sample_rate,))
    rate = next((rate for rate in rates if rate >= sample_rate), rates[-1])
    samples = np.clip(resample(np.asarray(wave, np.float32), sample_rate, rate), -1.0, 1.0)
    container, subtype = _LIBSNDFILE[audio_format]
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=container, subtype=subtype)
    return buffer.getvalue()
