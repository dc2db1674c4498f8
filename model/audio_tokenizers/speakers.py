"""What is usual for a speaker: means of features over the voices that a tokenizer was fitted on.

Shapes: N = frames of one speaker, D = features. NaN marks values that a frame does not have (F0 where unvoiced).
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

MIN_FRAMES = 50  # with fewer, a speaker is as good as unknown


class SpeakerMeans:
    """Mean (D,) of every speaker, and the mean of these."""

    def __init__(self, means: Mapping[str, np.ndarray], everyone_D: np.ndarray) -> None:
        self.means = dict(means)
        self.everyone_D = everyone_D

    @classmethod
    def fit(
        cls, features: Sequence[np.ndarray], speakers: Iterable[str | None], min_frames: int = MIN_FRAMES
    ) -> "SpeakerMeans":
        """From features (T, D) of utterances and who speaks in each."""
        grouped: dict[str, list[np.ndarray]] = {}
        for features_TD, speaker in zip(features, speakers, strict=True):
            if speaker is not None:
                grouped.setdefault(speaker, []).append(features_TD)
        means = {}
        for speaker in sorted(grouped):
            of_speaker_ND = np.concatenate(grouped[speaker])
            if (np.isfinite(of_speaker_ND).sum(0) >= min_frames).all():
                means[speaker] = present_mean(of_speaker_ND)
        everyone = np.stack(list(means.values())) if means else np.concatenate(list(features))
        return cls(means, present_mean(everyone))

    def of(self, speaker: str | None) -> np.ndarray | None:
        """The speaker's mean (D,); None for an unknown one."""
        return None if speaker is None else self.means.get(speaker)

    def to_arrays(self) -> tuple[list[str], np.ndarray]:
        """Names, and means (1 + speakers, D) of which the first is everyone's."""
        return list(self.means), np.stack([self.everyone_D, *self.means.values()])

    @classmethod
    def from_arrays(cls, names: Sequence[str], means_SD: np.ndarray) -> "SpeakerMeans":
        """What `to_arrays` gave."""
        return cls(dict(zip(names, means_SD[1:], strict=True)), means_SD[0])


def present_mean(values_ND: np.ndarray) -> np.ndarray:
    """Mean (D,) over the values that are there; 0 where there are none."""
    there_ND = np.isfinite(values_ND)
    return np.where(there_ND, values_ND, 0.0).sum(0) / np.maximum(there_ND.sum(0), 1)
