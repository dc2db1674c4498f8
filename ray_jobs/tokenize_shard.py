"""One shard of a manifest becomes one shard of the token store. No Ray.

A shard's objects are written whole, `shards/part-NNNNN.parquet` last: where that file is, the shard is done. So any
number of kills and restarts ends in the bytes of an undisturbed run, with at most the unfinished shards done again.
"""

from typing import Any

from data import storage
from data.errors import InputError
from data.manifest import Utterance
from data.store import SHARDS, Record, write_shard
from ray_jobs.tokenize_encoder import Outcome, UtteranceEncoder
from ray_jobs.tokenize_guard import guarded_outcomes
from ray_jobs.tokenize_plan import ShardPlan, kind_of_stream, load_wave, plan_shards, read_shard

__all__ = [
    "ShardPlan",
    "ShardTokenizer",
    "UtteranceEncoder",
    "kind_of_stream",
    "load_wave",
    "plan_shards",
    "read_shard",
]

PARTS = "parts"
ATTEMPTS = "attempts"


class ShardTokenizer:
    """Writes the shards of one token store. `shard` and `seconds` say how far it is, for whoever watches."""

    def __init__(self, encoder: UtteranceEncoder, folder: str) -> None:
        self.encoder = encoder
        self.folder = folder
        self.shard = ""
        self.seconds = 0.0

    def write(self, plan: ShardPlan) -> dict[str, Any]:
        """Encode and write one shard; returns its counts. A shard that is written already is left as it is.

        A shard that somebody began and did not finish may hold a file that kills its decoder. Such a shard is encoded
        in a process of its own, and a file that kills that one too is quarantined as `crash`.
        """
        target = storage.join(self.folder, SHARDS, f"{plan.name}.parquet")
        counts = storage.join(self.folder, PARTS, f"{plan.name}.json")
        if storage.exists(target):
            return storage.read_json(counts)
        attempt = storage.join(self.folder, ATTEMPTS, plan.name)
        guarded = storage.exists(attempt)
        storage.write_text(attempt, "begun\n")
        outcomes = self._encode(plan, guarded)
        records = [outcome for outcome in outcomes if isinstance(outcome, Record)]
        part = {
            "utterances": len(records),
            "seconds": sum(record.duration_s for record in records),
            "codes": {
                name: sum(r.streams[name].size for r in records if name in r.streams)
                for name in sorted(self.encoder.streams)
            },
            "quarantine": [outcome for outcome in outcomes if isinstance(outcome, dict)],
        }
        self.encoder.doing = "writing the shard"
        storage.write_json(counts, part)
        write_shard(target, records, self.encoder.streams)
        storage.delete(attempt)
        self.encoder.doing = "waiting for a shard"
        return part

    def _encode(self, plan: ShardPlan, guarded: bool) -> list[Outcome]:
        """The outcomes of a shard in the order of the manifest."""
        self.shard, self.seconds = plan.name, 0.0
        self.encoder.doing = "reading the manifest"
        utterances = read_shard(self.encoder.manifest_path, plan)
        places = _places(utterances, self.encoder.manifest_path)
        ordered: list[Outcome | None] = [None] * len(utterances)
        found = guarded_outcomes(self.encoder, utterances) if guarded else self.encoder.outcomes(utterances)
        for batch in found:
            for outcome in batch:
                ordered[places[_identity(outcome)]] = outcome
                self.seconds += outcome.duration_s if isinstance(outcome, Record) else 0.0
        lost = [utterances[i].id for i, outcome in enumerate(ordered) if outcome is None]
        if lost:
            raise RuntimeError(f"{plan.name}: the encoder gave neither a record nor a reason for {lost[:5]}")
        return [outcome for outcome in ordered if outcome is not None]


def _identity(outcome: Outcome) -> str:
    return outcome.id if isinstance(outcome, Record) else str(outcome["id"])


def _places(utterances: list[Utterance], manifest_path: str) -> dict[str, int]:
    """id -> position in the shard; what is encoded is told apart by id, never by its audio."""
    places = {utterance.id: i for i, utterance in enumerate(utterances)}
    if len(places) < len(utterances):
        raise InputError(f"{manifest_path} holds an id twice: import it with prepare, which sets later rows aside")
    return places
