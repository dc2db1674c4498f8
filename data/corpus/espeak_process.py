"""One shard of speech by espeak-ng, in a process of its own: `python -m data.corpus.espeak_process < shard.json`.

espeak-ng seeds its noise from the clock, and keeps state between calls (flutter): only a fresh process that sets
the seed and speaks the same texts in the same order gives the same bytes. It is GPL-3.0 and optional: the wheel
`espeakng-loader` brings library and data, and nothing of ours links to it outside this process. Reads {"folder",
"sample_rate", "phones", "items": [{"path", "text", "voice", "rate", "pitch"}]} and prints one JSON line per item:
{"path", "duration", "words"}, with "phones" where they are asked for.
"""

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from data import storage
from data.audio import resample, write_wav
from data.timing import samples_to_seconds, seconds_to_samples, written_seconds

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: samples come through the callback, before espeak_Synth returns
_RATE, _PITCH = 1, 3  # espeak_PARAMETER
_WORD_EVENT, _PHONEME_EVENT, _LAST_EVENT = 1, 7, 0  # espeak_EVENT_TYPE
_PHONEMES_IN_IPA = 1 | 2  # espeakINITIALIZE_PHONEME_EVENTS | espeakINITIALIZE_PHONEME_IPA; the sound stays the same
_STRESS = "ˈˌ"
_UTF8 = 1
_NOISE_SEED = 1
_BUFFER_MS = 1000
_SILENCE = 0.01  # of the peak: what is quieter at the end is cut, but for the pad
_END_PAD_S = 0.06


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class Synthesizer:
    """espeak-ng through ctypes. One per process: the library is global state.

    With `phones`, `phones_s` holds (IPA, start in seconds) of what was spoken last, "" for a pause.
    """

    def __init__(self, phones: bool = False) -> None:
        import espeakng_loader

        self._library = ctypes.cdll.LoadLibrary(espeakng_loader.get_library_path())
        data = Path(espeakng_loader.get_data_path())
        self._variants = {path.name for path in (data / "voices" / "!v").iterdir()}
        self.sample_rate = self._library.espeak_Initialize(
            _SYNCHRONOUS, _BUFFER_MS, str(data).encode(), _PHONEMES_IN_IPA if phones else 0
        )
        if self.sample_rate <= 0:
            raise RuntimeError(f"espeak_Initialize failed with {self.sample_rate} (data in {data})")
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(_NOISE_SEED))
        self._blocks: list[np.ndarray] = []
        self._starts_ms: list[int] = []
        self.phones_s: list[tuple[str, float]] = []
        self._callback = _CALLBACK(self._collect)  # kept here: the library calls it after this line has passed
        self._library.espeak_SetSynthCallback(self._callback)

    def speak(self, text: str, voice: str, rate: int, pitch: int) -> tuple[np.ndarray, list[float]]:
        """int16 samples (N,) at `sample_rate`, and the start of each word in seconds.

        Raises ValueError for a voice that espeak-ng does not have.
        """
        _, plus, variant = voice.partition("+")
        # espeak-ng falls back to the plain voice, silently, when it lacks the variant.
        unknown = bool(plus) and variant not in self._variants
        if unknown or self._library.espeak_SetVoiceByName(f"gmw/{voice}".encode()) != 0:
            raise ValueError(f"voice {voice!r} is unknown to espeak-ng: give an accent such as en-US, or en-US+f2")
        # Setting a voice resets the parameters, so they come after it.
        self._library.espeak_SetParameter(_RATE, rate, 0)
        self._library.espeak_SetParameter(_PITCH, pitch, 0)
        self._blocks, self._starts_ms, self.phones_s = [], [], []
        content = text.encode()
        self._library.espeak_Synth(content, len(content) + 1, 0, 1, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        samples_N = np.concatenate(self._blocks) if self._blocks else np.zeros(0, np.int16)
        return samples_N, [start / 1000 for start in self._starts_ms]

    def _collect(self, samples: Any, count: int, events: Any) -> int:
        if count > 0:
            self._blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while events[index].type != _LAST_EVENT:
            if events[index].type == _WORD_EVENT:
                self._starts_ms.append(events[index].audio_position)
            elif events[index].type == _PHONEME_EVENT:
                name = events[index].id.decode("utf-8", errors="ignore").strip(_STRESS)
                self.phones_s.append((name, events[index].audio_position / 1000))
            index += 1
        return 0


def trim_end(samples_N: np.ndarray, sample_rate: int) -> np.ndarray:
    """The samples without the silence that espeak-ng puts at the end, but for a short pad."""
    loud = np.flatnonzero(np.abs(samples_N.astype(np.int32)) > _SILENCE * np.abs(samples_N.astype(np.int32)).max())
    if not loud.size:
        return samples_N
    return samples_N[: loud[-1] + 1 + seconds_to_samples(_END_PAD_S, sample_rate)]


def word_spans(text: str, starts_s: list[float], duration_s: float) -> list[list[Any]] | None:
    """[[word, start_s, end_s], …] by the order of the events; None when espeak-ng merged or split words."""
    words = text.split()
    if len(words) != len(starts_s):
        return None
    bounds = np.minimum(np.maximum.accumulate([*starts_s, duration_s]), duration_s).tolist()
    return [
        [word, written_seconds(bounds[index]), written_seconds(bounds[index + 1])] for index, word in enumerate(words)
    ]


def phone_spans(phones_s: list[tuple[str, float]], duration_s: float) -> list[list[Any]]:
    """[[ipa, start_s, end_s], …] in IPA without stress; every phone lasts until the next event, pauses are left out."""
    starts = [written_seconds(min(start_s, duration_s)) for _, start_s in phones_s]
    spans = zip(phones_s, starts, [*starts[1:], duration_s], strict=True)
    return [[name, start_s, end_s] for (name, _), start_s, end_s in spans if name and end_s > start_s]


def make_item(
    synthesizer: Synthesizer, item: dict[str, Any], folder: str, sample_rate: int, phones: bool = False
) -> dict[str, Any]:
    """Speak, resample and write one utterance. Returns its path, duration in seconds, word spans and, if asked for,
    phone spans."""
    samples_N, starts_s = synthesizer.speak(item["text"], item["voice"], item["rate"], item["pitch"])
    if not samples_N.size:
        raise RuntimeError(f"espeak-ng gave no sound for {item['text']!r} in voice {item['voice']!r}")
    trimmed_N = trim_end(samples_N, synthesizer.sample_rate).astype(np.float32) / 32768
    wave_N = resample(trimmed_N, synthesizer.sample_rate, sample_rate)
    write_wav(storage.join(folder, item["path"]), wave_N, sample_rate)
    duration_s = written_seconds(samples_to_seconds(len(wave_N), sample_rate))
    made = {"path": item["path"], "duration": duration_s, "words": word_spans(item["text"], starts_s, duration_s)}
    return {**made, "phones": phone_spans(synthesizer.phones_s, duration_s)} if phones else made


def main() -> int:
    """Make the shard on stdin. Exit 2 with a message for a voice that does not exist."""
    shard = json.load(sys.stdin)
    phones = shard.get("phones", False)
    synthesizer = Synthesizer(phones)
    for item in shard["items"]:
        try:
            made = make_item(synthesizer, item, shard["folder"], shard["sample_rate"], phones)
        except ValueError as error:
            print(error, file=sys.stderr)
            return 2
        print(json.dumps(made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
