"""What prepare does to a run of utterances once their manifest is read: word times, then cutting. No Ray.

Both are optional and both need the audio, so a part of the corpus goes through them together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from data.audio import AudioError, iter_blocks
from data.corpus.segmentation import cut, segments
from data.corpus.steps_config import CtcAlignment, VadSegmentation
from data.manifest import Utterance, resolve_audio
from data.quarantine import quarantine_row
from data.timing import samples_to_seconds
from ray_jobs.tokenize_plan import load_wave

if TYPE_CHECKING:
    from model.aligner import WordAligner
    from model.vad import VoiceActivity


@dataclass
class Outcome:
    """What became of some utterances. `unaligned` are rows {id, audio_filepath, reason, detail} without word times."""

    utterances: list[Utterance] = field(default_factory=list)
    quarantine: list[dict[str, Any]] = field(default_factory=list)
    unaligned: list[dict[str, Any]] = field(default_factory=list)

    def add(self, other: "Outcome") -> None:
        """Append what `other` holds."""
        self.utterances += other.utterances
        self.quarantine += other.quarantine
        self.unaligned += other.unaligned

    def to_json(self) -> dict[str, Any]:
        """The JSON form; `from_json` gives the same outcome back."""
        rows = [utterance.to_row() for utterance in self.utterances]
        return {"utterances": rows, "quarantine": self.quarantine, "unaligned": self.unaligned}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Outcome":
        """The inverse of `to_json`."""
        utterances = [Utterance.from_row(row) for row in value["utterances"]]
        return cls(utterances, value["quarantine"], value["unaligned"])


class Steps:
    """The steps of one configuration. Models are loaded when the first utterance needs them."""

    def __init__(
        self, manifest_path: str, alignment: CtcAlignment | None, segmentation: VadSegmentation | None
    ) -> None:
        self.manifest_path = manifest_path
        self.alignment = alignment
        self.segmentation = segmentation
        self._aligner: WordAligner | None = None
        self._detector: VoiceActivity | None = None

    def run(self, utterances: Sequence[Utterance]) -> Outcome:
        """Align and cut. Whose audio cannot be read, or holds no speech, is quarantined; music passes unchanged."""
        outcome = Outcome()
        for utterance in utterances:
            try:
                outcome.add(self._one(utterance))
            except AudioError as error:
                outcome.quarantine.append(quarantine_row(utterance, error.reason, error.detail))
        return outcome

    def _one(self, utterance: Utterance) -> Outcome:
        if utterance.kind != "speech":
            return Outcome([utterance])
        unaligned: list[dict[str, Any]] = []
        if self.alignment and utterance.text and utterance.words is None:
            utterance, unaligned = self._align(utterance, self.alignment)
        if self.segmentation:
            return Outcome(self._cut(utterance, self.segmentation), [], unaligned)
        return Outcome([utterance], [], unaligned)

    def _align(self, utterance: Utterance, config: CtcAlignment) -> tuple[Utterance, list[dict[str, Any]]]:
        from model.aligner import WordAligner
        from model.ctc_alignment import AlignmentError

        self._aligner = self._aligner or WordAligner.load(config)
        try:
            wave = load_wave(self.manifest_path, utterance, self._aligner.sample_rate, config.max_s)
            return replace(utterance, words=self._aligner.align(wave, utterance.text or "")), []
        except AlignmentError as error:
            return utterance, [quarantine_row(utterance, "unaligned", str(error))]
        except AudioError as error:
            if error.reason not in ("too_long", "too_large"):
                raise
            return utterance, [quarantine_row(utterance, error.reason, error.detail)]

    def _cut(self, utterance: Utterance, config: VadSegmentation) -> list[Utterance]:
        from model.vad import SAMPLE_RATE, WINDOW_RATE_HZ, VoiceActivity

        if utterance.duration is not None and utterance.duration <= config.cut_above_s:
            return [utterance]
        self._detector = self._detector or VoiceActivity.from_wheel()
        path = resolve_audio(self.manifest_path, utterance)
        span = (utterance.offset, utterance.duration)
        blocks = iter_blocks(path, SAMPLE_RATE, *span, whole_file=utterance.is_whole_file)
        probabilities_W, num_samples = self._detector.probabilities(blocks)
        duration_s = samples_to_seconds(num_samples, SAMPLE_RATE)
        if duration_s <= config.cut_above_s:
            return [utterance]
        found = segments(probabilities_W, WINDOW_RATE_HZ, duration_s, config)
        if not found:
            highest = float(probabilities_W.max())
            raise AudioError("no_speech", f"no speech in {duration_s:.1f} s: at most {highest:.2f} sure of any")
        return cut(utterance, found)


@lru_cache(maxsize=2)
def cached_steps(manifest_path: str, alignment: CtcAlignment | None, segmentation: VadSegmentation | None) -> Steps:
    """The steps of a worker process, models kept from one part to the next."""
    return Steps(manifest_path, alignment, segmentation)
