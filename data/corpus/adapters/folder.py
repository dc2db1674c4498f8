"""What adapters of folders share: paths, listings by content, and a helpful refusal of the wrong folder."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from data import storage
from data.corpus.adapters.base import AUDIO_SUFFIXES, KINDS, Bad, Found, adapter_class
from data.errors import InputError

_SHOWN_FILES = 8
_HASH_BLOCK_BYTES = 1 << 20


class FolderAdapter:
    """The base of adapters of folders. What it offers is in `CorpusAdapter`."""

    kind: str
    title: str
    licence: str
    layout: str
    signs: tuple[str, ...]
    hidden_by_size: frozenset[str] = AUDIO_SUFFIXES
    """Endings of the files that enter the content id by name and size alone; all others enter by their bytes."""

    def __init__(self, config: Any) -> None:
        self.config = config
        path = config.path
        if storage.is_url(path):
            raise InputError(
                f"corpus.path={path!r} is a URL: {self.title} is read from a folder that every node can see "
                "(a mount will do), or by URL through corpus.kind=manifest"
            )
        self.folder = Path(path).absolute()
        if not self.folder.exists():
            raise InputError(f"corpus.path={path!r} does not exist: give the folder of {self.title}\n{self.layout}")

    @property
    def root(self) -> str:
        """The corpus' folder, absolute."""
        return str(self.folder)

    def rows(self) -> Iterator[Found | Bad]:
        """Everything the corpus holds."""
        raise NotImplementedError

    def content_id(self) -> str:
        """SHA-256 over names and sizes of all files, and the bytes of those that are no audio; of what is no file,
        such as a link to nowhere, the name alone."""
        self.check_layout()
        listed: dict[str, Any] = {}
        for name in self.listing():
            path = self.folder / name
            if path.is_file():
                listed[name] = [path.stat().st_size, None if self.enters_by_size(path) else hash_file(path)]
            else:
                listed[name] = None
        return storage.hash_json(listed)

    def enters_by_size(self, path: Path) -> bool:
        """Whether a file enters the content id by name and size alone."""
        return path.suffix.lower() in self.hidden_by_size

    def listing(self) -> list[str]:
        """Names of all files below the folder, relative to it, sorted; what starts with a dot is nobody's data."""
        found = []
        for parent, folders, names in os.walk(self.folder, followlinks=True):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            inner = Path(parent).relative_to(self.folder)
            found += [(inner / name).as_posix() for name in names if not name.startswith(".")]
        return sorted(found)

    def relative(self, path: Path) -> str:
        """A path below the folder as it is written in the manifest."""
        return path.relative_to(self.folder).as_posix()

    def check_layout(self) -> None:
        """Raises InputError that says what was looked for, what was found, and what was probably meant."""
        if not matches(self.folder, self.signs):
            raise self.unlike(self.signs)

    def parts(self) -> list[str]:
        """The folders that config.parts asks for, or all. Raises InputError for one that is not there."""
        missing = [part for part in self.config.parts if not (self.folder / part).is_dir()]
        if missing:
            raise self.unlike([f"{part}/" for part in missing])
        return list(self.config.parts) or [path.name for path in subfolders(self.folder)]

    def unlike(self, looked_for: Iterable[str]) -> InputError:
        """The refusal of a folder that does not look like the corpus."""
        found = sorted(path.name + "/" * path.is_dir() for path in _children(self.folder))
        shown = ", ".join(found[:_SHOWN_FILES]) + (f" and {len(found) - _SHOWN_FILES} more" * (len(found) > 8))
        return InputError(
            f"corpus.path={self.config.path!r} does not look like {self.title}: looked for "
            f"{' or '.join(looked_for)}, found {shown or 'an empty folder'}{self._meant()}\n"
            f"corpus.kind={self.kind} expects\n{self.layout}"
        )

    def _meant(self) -> str:
        """A folder nearby that has the layout, or the corpus that this folder looks like."""
        nearby = [*(path for path in sorted(_children(self.folder)) if path.is_dir()), self.folder.parent]
        for path in nearby:
            if self.signs and matches(path, self.signs):
                return f". Did you mean corpus.path={str(path)!r}?"
        for kind in KINDS:
            signs = adapter_class(kind).signs
            if kind != self.kind and matches(self.folder, signs):
                return f". It looks like {adapter_class(kind).title}: did you mean corpus.kind={kind}?"
        return ""


def matches(folder: Path, signs: Iterable[str]) -> bool:
    """Whether some file or folder of `folder` has one of the patterns."""
    return folder.is_dir() and any(next(folder.glob(sign), None) is not None for sign in signs)


def hash_file(path: Path) -> str:
    """SHA-256 of a file that may be larger than memory."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def subfolders(folder: Path) -> list[Path]:
    """The folders directly below, sorted, those that start with a dot left out."""
    return sorted(path for path in _children(folder) if path.is_dir())


def is_audio(name: str | PurePosixPath) -> bool:
    """Whether a name ends like an audio file."""
    return PurePosixPath(name).suffix.lower() in AUDIO_SUFFIXES


def read_table(path: Path) -> str:
    """A UTF-8 text, byte order mark left out. Bytes that are no UTF-8 become lone surrogates: bad rows, later on."""
    return storage.read_bytes(path).decode("utf-8-sig", "surrogateescape")


def read_lines(path: Path) -> list[str]:
    """The lines of a table that is read with `read_table`, ends stripped, empty ones left out."""
    # Not splitlines: it also cuts at separators that may stand inside a text (U+2028, form feeds).
    return [line.rstrip("\r") for line in read_table(path).split("\n") if line.strip()]


def _children(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []
