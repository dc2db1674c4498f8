"""What a corpus adapter is, and which there are. A new one is one file, one configuration class and one line here.

An adapter says what a corpus holds; it renames nothing, holds nothing out and checks no ids: that is done once, for
all of them, by data/corpus/imported.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from data.manifest import default_id

# kind -> module:class; modules are imported when their kind is asked for
KINDS = {
    "manifest": "data.corpus.adapters.manifest:ManifestAdapter",
    "librispeech": "data.corpus.adapters.librispeech:LibriSpeechAdapter",
    "librilight": "data.corpus.adapters.librilight:LibriLightAdapter",
    "mls": "data.corpus.adapters.mls:MlsAdapter",
    "commonvoice": "data.corpus.adapters.commonvoice:CommonVoiceAdapter",
    "gigaspeech": "data.corpus.adapters.gigaspeech:GigaSpeechAdapter",
    "vctk": "data.corpus.adapters.vctk:VctkAdapter",
    "ljspeech": "data.corpus.adapters.ljspeech:LjSpeechAdapter",
    "musiccaps": "data.corpus.adapters.musiccaps:MusicCapsAdapter",
    "hf_dataset": "data.corpus.adapters.hf_dataset:HfDatasetAdapter",
    "kaldi": "data.corpus.adapters.kaldi:KaldiAdapter",
    "lhotse": "data.corpus.adapters.lhotse_cuts:LhotseAdapter",
    "webdataset": "data.corpus.adapters.webdataset:WebDatasetAdapter",
    "audiofolder": "data.corpus.adapters.audiofolder:AudioFolderAdapter",
}

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".mp3", ".ogg", ".opus", ".aiff", ".aif", ".m4a", ".aac", ".webm", ".mp4"})

_HELD_OUT = {"test": ("test", "eval"), "dev": ("dev", "valid")}


@dataclass(frozen=True, slots=True)
class Found:
    """One utterance as the corpus has it: a manifest row, its audio relative to `CorpusAdapter.root` or absolute.

    `content` is the encoded audio itself where no file and no range of bytes holds it as it is.
    """

    row: dict[str, Any]
    content: bytes | None = None


@dataclass(frozen=True, slots=True)
class Bad:
    """An utterance, or a line or file where one was expected, that cannot be used."""

    row: dict[str, Any]

    @classmethod
    def of(cls, identity: str | None, path: Any, reason: str, detail: Any) -> "Bad":
        """A quarantine row; without an identity, it gets the id that a row with this path would have."""
        path = _unicode(path) if isinstance(path, str) else path
        name = _unicode(identity) if identity else default_id(str(path), 0.0, None)
        return cls({"id": name, "audio_filepath": path, "reason": reason, "detail": _unicode(str(detail))})


class CorpusAdapter(Protocol):
    """One corpus in the layout of its publisher.

    `licence` and `layout` are for people; `signs` are glob patterns of which one must be there.
    """

    kind: str
    title: str
    licence: str
    layout: str
    signs: tuple[str, ...]

    def __init__(self, config: Any) -> None: ...

    @property
    def root(self) -> str:
        """The folder (or URL) that relative audio paths count from."""
        ...

    def rows(self) -> Iterator[Found | Bad]:
        """Everything the corpus holds, in an order that depends on its content alone. Raises InputError."""
        ...

    def content_id(self) -> str:
        """Hash of the corpus' listing and metadata, the same wherever the corpus lies. Raises InputError."""
        ...


def _unicode(text: str) -> str:
    """`text` with what no UTF-8 can hold (bytes of another encoding, lone surrogates) written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def adapter_class(kind: str) -> type[CorpusAdapter]:
    """The adapter of a kind."""
    module, _, name = KINDS[kind].partition(":")
    found: type[CorpusAdapter] = getattr(import_module(module), name)
    return found


def open_corpus(config: Any) -> CorpusAdapter:
    """The adapter of a corpus' configuration."""
    return adapter_class(config.kind)(config)


def split_of(name: str) -> str:
    """The split that a published part, table or folder name means: test-clean -> test, validation -> dev, …"""
    lowered = name.lower()
    return next((split for split, starts in _HELD_OUT.items() if lowered.startswith(starts)), "train")
