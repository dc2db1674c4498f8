"""Synthetic music: short clips made with numpy from attributes, and their captions of few words.

Shapes: N samples.
"""

import random

import numpy as np

from data.timing import seconds_to_samples

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "tempo": ("slow", "medium", "fast"),
    "register": ("low", "middle", "high"),
    "instrument": ("piano", "organ", "flute", "violin", "bell", "guitar"),
    "direction": ("rising", "falling", "steady"),
    "drums": ("with", "without"),
}
SAMPLE_RATE = 16_000
_NOTES_PER_S = {"slow": 2.0, "medium": 4.0, "fast": 8.0}
_BASE_HZ = {"low": 130.0, "middle": 390.0, "high": 1000.0}
_SCALE = np.array([0, 2, 4, 5, 7, 9, 11, 12])
# Instrument: strengths of the harmonics, decay time of a note in seconds, attack time in seconds.
_TIMBRES: dict[str, tuple[tuple[float, ...], float, float]] = {
    "piano": ((1.0, 0.5, 0.25, 0.12, 0.06), 0.35, 0.004),
    "organ": ((1.0, 0.0, 0.8, 0.0, 0.6, 0.0, 0.4), 8.0, 0.02),
    "flute": ((1.0, 0.12), 8.0, 0.06),
    "violin": ((1.0, 0.8, 0.65, 0.5, 0.4, 0.32, 0.25, 0.2), 8.0, 0.05),
    "bell": ((1.0, 0.0, 0.0, 0.7), 0.6, 0.002),
    "guitar": ((1.0, 0.9, 0.6, 0.5, 0.35, 0.2), 0.15, 0.002),
}


def caption_of(attributes: dict[str, str]) -> str:
    """The fixed wording: "slow low piano rising with drums"."""
    return " ".join(attributes[name] for name in ATTRIBUTES) + " drums"


def caption_words() -> tuple[str, ...]:
    """Every word that a caption can hold, in a fixed order."""
    return (*(word for words in ATTRIBUTES.values() for word in words), "drums")


def all_combinations() -> list[dict[str, str]]:
    """The 324 combinations of attributes, in a fixed order."""
    combinations: list[dict[str, str]] = [{}]
    for name, words in ATTRIBUTES.items():
        combinations = [{**combination, name: word} for combination in combinations for word in words]
    return combinations


def split_combinations(seed: int) -> dict[str, list[dict[str, str]]]:
    """The combinations of each split: a fifth for test, a tenth for dev, the rest for train; disjoint."""
    order = all_combinations()
    random.Random(f"{seed} music").shuffle(order)
    test, dev = len(order) // 5, len(order) // 10
    return {"test": order[:test], "dev": order[test : test + dev], "train": order[test + dev :]}


def sample_attributes(rng: np.random.Generator, combinations: list[dict[str, str]] | None = None) -> dict[str, str]:
    """One combination, drawn evenly from `combinations` (all of them when not given)."""
    choices = all_combinations() if combinations is None else combinations
    return dict(choices[int(rng.integers(len(choices)))])


def synthesize_music(
    attributes: dict[str, str], rng: np.random.Generator, duration_s: float = 2.4, sample_rate: int = SAMPLE_RATE
) -> np.ndarray:
    """A clip (N,), float32 in [-1, 1]: notes of one scale, with pitch, tempo and level varied by `rng`."""
    num_samples = seconds_to_samples(duration_s, sample_rate)
    note_s = 1.0 / (_NOTES_PER_S[attributes["tempo"]] * rng.uniform(0.95, 1.05))
    base_hz = _BASE_HZ[attributes["register"]] * rng.uniform(0.9, 1.1)
    starts_s = np.arange(0.0, duration_s, note_s)
    pitches_hz = base_hz * 2 ** (_melody(attributes["direction"], len(starts_s), rng) / 12)
    wave_N = np.zeros(num_samples)
    for start_s, pitch_hz in zip(starts_s, pitches_hz, strict=True):
        start = seconds_to_samples(start_s, sample_rate)
        length = min(seconds_to_samples(note_s, sample_rate), num_samples - start)
        wave_N[start : start + length] += _note(attributes["instrument"], pitch_hz, length, sample_rate)
    wave_N *= 0.5 / max(np.abs(wave_N).max(), 1e-9)
    if attributes["drums"] == "with":
        wave_N += _drums(num_samples, sample_rate, rng)
    wave_N += rng.normal(0, 1e-3, num_samples)
    return (wave_N * rng.uniform(0.6, 0.9) / max(np.abs(wave_N).max(), 1e-9)).astype(np.float32)


def _melody(direction: str, num_notes: int, rng: np.random.Generator) -> np.ndarray:
    """Semitones above the base of each note: one octave up, one down, or two notes near the base by turns."""
    if direction == "steady":
        return np.where(np.arange(num_notes) % 2 == 0, 0.0, float(rng.choice([0, 2])))
    steps = np.round(np.linspace(0, len(_SCALE) - 1, num_notes)).astype(int)
    rise = _SCALE[steps].astype(float)
    return rise if direction == "rising" else rise[::-1]


def _note(instrument: str, pitch_hz: float, length: int, sample_rate: int) -> np.ndarray:
    harmonics, decay_s, attack_s = _TIMBRES[instrument]
    time_N = np.arange(length) / sample_rate
    envelope_N = np.exp(-time_N / decay_s) * np.minimum(1.0, time_N / attack_s)
    release = min(length, seconds_to_samples(0.01, sample_rate))
    envelope_N[length - release :] *= np.linspace(1.0, 0.0, release)
    stretch = 1.007 if instrument == "bell" else 1.0  # a bell's partials are not whole multiples
    vibrato_N = 0.3 * np.sin(2 * np.pi * 5.5 * time_N) if instrument in ("violin", "flute") else 0.0
    tone_N = np.zeros(length)
    for index, strength in enumerate(harmonics, start=1):
        hz = pitch_hz * index * stretch ** (index - 1)
        if strength and hz < sample_rate / 2:
            tone_N += strength * np.sin(2 * np.pi * hz * time_N + index * vibrato_N)
    return tone_N * envelope_N


def _drums(num_samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """A kick twice a second and a noisy snare between."""
    wave_N = np.zeros(num_samples)
    hit_N = np.arange(min(seconds_to_samples(0.15, sample_rate), num_samples)) / sample_rate
    kick_N = np.sin(2 * np.pi * 60 * hit_N) * np.exp(-hit_N / 0.05)
    for beat in range(int(4 * num_samples / sample_rate) + 1):
        start = seconds_to_samples(beat * 0.25, sample_rate)
        length = min(len(hit_N), num_samples - start)
        if length > 0:
            snare_N = rng.normal(0, 0.35, len(hit_N)) * np.exp(-hit_N / 0.03)
            wave_N[start : start + length] += (kick_N if beat % 2 == 0 else snare_N)[:length]
    return 0.6 * wave_N
