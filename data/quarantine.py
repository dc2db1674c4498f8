"""What becomes of an utterance that cannot be used: a quarantine row with a reason code. The one table of codes.

A row is {id, audio_filepath, reason, detail}: `reason` is a key of REASONS, `detail` a sentence for people.
"""

from collections import Counter
from typing import Any

from data.audio import AudioError
from data.manifest import Utterance

REASONS = {
    # the row of the manifest
    "not_json": "the line is no JSON object, or its text is not Unicode",
    "bad_field": "a field of the row has a wrong type or value",
    "duplicate_id": "an earlier row has this id; it is kept, and this one is listed as id#2, id#3, …",
    # the file
    "missing": "there is no such file or object",
    "unreadable": "the storage refuses to give it: permissions, network, a range outside the file",
    "too_large": "more bytes, or more decoded samples, than a reader may take into memory",
    "empty": "no bytes, no samples, or none in the asked span",
    "not_audio": "no audio format that is read, or a header that no decoder takes, 0 Hz among them",
    "bad_rate": "a sample rate below 1 kHz or above 384 kHz",
    "bad_channels": "no channel, or more than 8",
    # the samples
    "too_long": "longer than tokenize.max_duration_s: cut it into segments with offset and duration",
    "undecodable": "the header is audio, and what follows cannot be decoded",
    "truncated": "the end is missing, by header, closing mark or the manifest's duration, or lies where readers stop",
    "longer_than_stated": "the file goes on for over 5 % after the duration that its row states for all of it",
    "nan": "samples that are NaN or infinite",
    "no_speech": "corpus.segmentation found no speech in a recording that it was to cut",
    "unaligned": "corpus.alignment found no word times; listed in unaligned.jsonl, and kept without them",
    "crash": "the process that decoded or encoded it died, twice",
}


def quarantine_row(utterance: Utterance, reason: str, detail: str) -> dict[str, Any]:
    """What is written of an utterance that could not be used; `reason` is a key of REASONS."""
    return {"id": utterance.id, "audio_filepath": utterance.audio_filepath, "reason": reason, "detail": detail}


class PassedOver:
    """Counts what a job that reads audio has passed over, for the line it ends with."""

    def __init__(self) -> None:
        self.read = 0
        self.reasons: Counter[str] = Counter()

    def add(self, error: AudioError) -> None:
        """One utterance less."""
        self.reasons[error.reason] += 1

    def merge(self, other: "PassedOver") -> None:
        """Take in the counts of a worker."""
        self.read += other.read
        self.reasons.update(other.reasons)

    def __str__(self) -> str:
        bad = self.reasons.total()
        if not bad:
            return f"{self.read} files read, none passed over"
        listed = ", ".join(f"{count} {reason}" for reason, count in sorted(self.reasons.items()))
        return f"{self.read} files read, {bad} passed over ({listed})"
