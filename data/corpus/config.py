"""Configuration of corpora that are brought: one class per `kind`, on one common base."""

from typing import Any, Literal

from pydantic import Field

from data.frozen import Frozen


class BroughtCorpus(Frozen):
    """What every corpus that is not made here has in common."""

    fields: dict[str, str] = Field({}, description="renames: our field -> the corpus' own, e.g. {text: transcription}")
    test: dict[str, list[Any]] = Field({}, description="hold out for testing: field -> values, e.g. {take: [8, 9]}")
    dev: dict[str, list[Any]] = Field({}, description="hold out for development, same form")
    normalize_text: bool = Field(False, description="lower-case the texts and drop punctuation but the apostrophe")


class ManifestCorpus(BroughtCorpus):
    """Any JSONL manifest of recordings."""

    kind: Literal["manifest"]
    manifest: str = Field(description="path or URL of a JSONL manifest, one utterance a line (NeMo's names)")
