"""The sample of frames that a codebook is fitted on, and one worker's share of it. No Ray.

The sample hangs on the seed and the utterances' ids alone: utterances are put in an order drawn by the seed and cut
into groups, and of each utterance a fixed share of frames is drawn by its id. A worker holds whole groups, computes
their features once and keeps the sampled ones as a part of a shared k-means.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from data.manifest import Utterance
from data.quarantine import PassedOver
from data.timing import round_half_up
from model.audio_tokenizers.base import load_audio_tokenizer
from model.audio_tokenizers.shared_kmeans import Part
from model.config import SslUnits
from ray_jobs.fit_frames import labels_of_frames
from ray_jobs.tokenize_plan import usable_waves

GROUP_UTTERANCES = 32
_WAVES_AT_ONCE = 8  # bounds the audio in memory
_SPARE = 1.1  # for files that cannot be read


def plan_groups(
    utterances: Sequence[Utterance], config: SslUnits, frame_rate_hz: float, max_duration_s: float, seed: int
) -> list[list[Utterance]]:
    """Groups of utterances, as many as config.max_frames needs by the manifest's durations."""
    drawn = sorted(utterances, key=lambda utterance: utterance.id)
    random.Random(seed).shuffle(drawn)
    expected, number = 0.0, 0
    for number, utterance in enumerate(drawn, start=1):  # noqa: B007 - what is left of it is the result
        seconds = utterance.duration or 0.0
        expected += seconds * frame_rate_hz * config.frame_share if seconds <= max_duration_s else 0.0
        if expected >= config.max_frames * _SPARE:
            break
    return [drawn[start : start + GROUP_UTTERANCES] for start in range(0, number, GROUP_UTTERANCES)]


def limits_of(sizes: Mapping[int, int], max_frames: int) -> dict[int, int]:
    """Frames used of each group: the first `max_frames` in the order of the groups."""
    limits, left = {}, max_frames
    for group in sorted(sizes):
        limits[group] = min(sizes[group], left)
        left -= limits[group]
    return limits


class FrameShare:
    """Some groups of the sample. Everything it holds can be computed again, should its process die."""

    def __init__(
        self,
        folder: str,
        groups: Mapping[int, list[Utterance]],
        manifest_path: str,
        config: SslUnits,
        max_duration_s: float,
        seed: int,
        threads: int = 1,
    ) -> None:
        """`folder`: of the tokenizer that has features and no codebook yet. `threads` decode while it computes."""
        self.folder = folder
        self.groups = dict(groups)
        self.manifest_path = manifest_path
        self.config = config
        self.max_duration_s = max_duration_s
        self.seed = seed
        self.threads = threads
        self._tokenizer: Any = None
        self._features: dict[int, np.ndarray] = {}
        self._words: dict[int, np.ndarray] = {}
        self._passed: dict[int, PassedOver] = {}
        self._part: Part | None = None

    def load(self, group: int) -> int:
        """Number of sampled frames of a group, which are kept. 0 once this share alone holds max_frames."""
        if sum(len(features_ND) for features_ND in self._features.values()) >= self.config.max_frames:
            return 0
        self._compute(group)
        return len(self._features[group])

    def passed_over(self) -> PassedOver:
        """What was passed over in the groups that are loaded."""
        passed = PassedOver()
        for of_group in self._passed.values():
            passed.merge(of_group)
        return passed

    def call(self, limits: Mapping[int, int], method: str, *arguments: Any) -> Any:
        """A method of this share as a part of a shared k-means, see shared_kmeans.Part."""
        return getattr(self._as_part(limits), method)(*arguments)

    def words(self, limits: Mapping[int, int]) -> dict[int, np.ndarray]:
        """The word (N,) that each frame lies in, by group."""
        self._as_part(limits)
        return {group: self._words[group][: limits[group]] for group in self.groups if limits[group]}

    def _as_part(self, limits: Mapping[int, int]) -> Part:
        if self._part is None:
            wanted = [group for group in self.groups if limits[group]]
            for group in wanted:
                if group not in self._features:
                    self._compute(group)
            device = str(self._tokenizer.encoder.device.type) if self._tokenizer else "cpu"
            self._part = Part({group: self._features[group][: limits[group]] for group in wanted}, device)
            self._features.clear()  # the part has its own copy
            self._tokenizer = None
        return self._part

    def _compute(self, group: int) -> None:
        features, words = [], []
        passed = self._passed[group] = PassedOver()
        for batch in self._batches(self.groups[group], passed):
            computed = self._loaded().features_of_waves([wave_N for _, wave_N in batch])
            for (utterance, _), features_TD in zip(batch, computed, strict=True):
                rows = sampled_rows(self.seed, utterance.id, len(features_TD), self.config.frame_share)
                features.append(features_TD[rows])
                words.append(
                    labels_of_frames(utterance.words or (), len(features_TD), self._loaded().frame_rate_hz)[rows]
                )
        self._features[group] = np.concatenate(features) if features else np.zeros((0, 0), np.float32)
        self._words[group] = np.concatenate(words) if words else np.zeros(0, str)

    def _batches(self, utterances: list[Utterance], passed: PassedOver) -> Iterator[list[tuple[Utterance, np.ndarray]]]:
        """Utterances with their waves; what tokenize_speech would quarantine is passed over."""
        batch, settings = [], (self.config.sample_rate, self.max_duration_s)
        for utterance, wave_N in usable_waves(self.manifest_path, utterances, *settings, passed, self.threads):
            batch.append((utterance, wave_N))
            if len(batch) == _WAVES_AT_ONCE:
                yield batch
                batch = []
        if batch:
            yield batch

    def _loaded(self) -> Any:
        if self._tokenizer is None:
            self._tokenizer = load_audio_tokenizer(self.folder)
        return self._tokenizer


def sampled_rows(seed: int, utterance_id: str, num_frames: int, share: float) -> list[int]:
    """Which frames of an utterance are in the sample, in order; at least one of any that has frames."""
    number = min(num_frames, max(1, round_half_up(share * num_frames)))
    return sorted(random.Random(f"{seed}/{utterance_id}").sample(range(num_frames), number))
