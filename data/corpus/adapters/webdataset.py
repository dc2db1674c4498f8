"""WebDataset tars. Of a plain tar, audio is named by its range of bytes; of a compressed one, it is written out."""

import tarfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

from data import storage
from data.audio import MAX_FILE_BYTES
from data.corpus.adapters.base import Bad, Found, split_of
from data.corpus.adapters.folder import FolderAdapter, hash_file, is_audio
from data.manifest import RowError, parse_row

_PLAIN, _COMPRESSED = (".tar",), (".tar.gz", ".tgz")
_MAX_TEXT_BYTES = 16 * 2**20
_TEXTS = (".json", ".txt")
Part = tuple[str, tarfile.TarInfo, bytes | None]  # ending, member, content where it was read


class _Member(tarfile.TarInfo):
    """For `tarfile` alone, a broken header in the middle ends an archive as if nothing followed."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> "_Member":
        """The next member. Raises ReadError where its header is broken or broken off."""
        try:
            return super().fromtarfile(tarfile_)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(f"at byte {tarfile_.offset}: {error}") from error


class WebDatasetAdapter(FolderAdapter):
    """`corpus: {kind: webdataset, path: /data/shards, fields: {text: transcript}}`

    A sample's `.json` gives the fields, its `.txt` the text. Utterances are named by shard and key, as keys often
    start anew in every shard, unless the JSON has an `id`. Shards or folders called train…, valid… or test… say
    the split.
    """

    kind = "webdataset"
    title = "a WebDataset"
    licence = "whatever the recordings' own terms are"
    layout = "  train-000000.tar   (or .tar.gz), each with\n    0001.flac, 0001.json, 0001.txt, 0002.flac, …"
    signs = ("*.tar", "*.tar.gz", "*.tgz", "*/*.tar", "*/*.tar.gz", "*/*.tgz")

    @property
    def root(self) -> str:
        """The folder of the tars."""
        return str(self.folder if self.folder.is_dir() else self.folder.parent)

    def check_layout(self) -> None:
        """Raises InputError where there is no tar."""
        if not self._tars():
            raise self.unlike(self.signs)

    def content_id(self) -> str:
        """SHA-256 over the members of plain tars (what is no audio by its bytes) and the bytes of the others."""
        self.check_layout()
        return storage.hash_json({self._name(path): _tar_id(path) for path in self._tars()})

    def rows(self) -> Iterator[Found | Bad]:
        """One row per sample."""
        self.check_layout()
        for path in self._tars():
            shard = self._name(path)
            try:
                for key, parts in _samples(path):
                    yield self._sample(shard, key, parts, path)
                    yield from _further(f"{_stem(shard)}/{key}", shard, parts)
            except (tarfile.TarError, OSError, EOFError) as error:
                yield Bad.of(shard, shard, "unreadable", f"{type(error).__name__}: {error}; samples before it are kept")

    def _sample(self, shard: str, key: str, parts: list[Part], path: Path) -> Found | Bad:
        stem = _stem(shard)
        identity = f"{stem}/{key}"
        audio = next((part for part in parts if is_audio(part[1].name)), None)
        if audio is None:
            names = ", ".join(part[1].name for part in parts)
            hint = "" if shard.endswith(_PLAIN) else " (the members of a sample stand together in a compressed tar)"
            return Bad.of(identity, shard, "missing", f"no audio among {names}{hint}")
        large = next((member for _, member, _ in parts if member.size > _most_bytes(member)), None)
        if large is not None:
            detail = f"{large.name} has {large.size} bytes, at most {_most_bytes(large)} are read"
            return Bad.of(identity, shard, "too_large", detail)
        try:
            fields = _fields(parts)
        except (RowError, UnicodeDecodeError) as error:
            return Bad.of(identity, shard, "bad_field", error)
        member, content = audio[1], audio[2]
        splits = {split_of(part) for part in stem.split("/")} - {"train"}
        row = {"id": identity, "split": min(splits, default="train"), **fields}
        if content is not None:
            return Found({**row, "audio_filepath": f"{identity}{Path(member.name).suffix}"}, content)
        end = member.offset_data + member.size
        return Found({**row, "audio_filepath": f"{shard}#bytes={member.offset_data}-{end}"})

    def _tars(self) -> list[Path]:
        if self.folder.is_file():
            return [self.folder] if self.folder.name.endswith(_PLAIN + _COMPRESSED) else []
        return [self.folder / name for name in self.listing() if name.endswith(_PLAIN + _COMPRESSED)]

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def _stem(shard: str) -> str:
    return shard.removesuffix(next(end for end in _PLAIN + _COMPRESSED if shard.endswith(end)))


def _further(identity: str, shard: str, parts: list[Part]) -> Iterator[Bad]:
    """A sample has one recording. Names with dots in them, cut at the first, make several of them one sample."""
    others = [part[1].name for part in parts if is_audio(part[1].name)][1:]
    for number, name in enumerate(others, start=2):
        detail = f"{name} has the key of a recording before it: a key ends at the first dot of a name"
        yield Bad.of(f"{identity}#{number}", shard, "duplicate_id", detail)


def _samples(path: Path) -> Iterator[tuple[str, list[Part]]]:
    """Members by key: of a compressed tar, whose audio is in memory, neighbours alone; of a plain one, wherever they
    stand, for `tar` puts them in no order, and with no content but their texts'. Raises what `_parts` raises, after the
    samples before it."""
    if not path.name.endswith(_PLAIN):
        yield from ((key, list(group)) for key, group in groupby(_parts(path), key=lambda part: _key(part[1].name)))
        return
    samples: dict[str, list[Part]] = {}
    broken: Exception | None = None
    key = ""
    try:
        for suffix, member, content in _parts(path):
            key = _key(member.name)
            samples.setdefault(key, []).append((suffix, member, content if suffix in _TEXTS else None))
    except (tarfile.TarError, OSError, EOFError) as error:
        broken = error
        samples.pop(key, None)  # the last member may be the broken one
    yield from samples.items()
    if broken:
        raise broken


def _parts(path: Path) -> Iterator[Part]:
    """Members of a tar in order. Unread are the audio of a plain one, what is too large, and further recordings of a
    sample."""
    plain = path.name.endswith(_PLAIN)
    heard = None
    with tarfile.open(path, "r:" if plain else "r|gz", tarinfo=_Member) as tar:
        for member in tar:
            if not member.isfile() or PurePosixPath(member.name).name.startswith("."):  # as in folders
                continue
            audio, key = is_audio(member.name), _key(member.name)
            unread = member.size > _most_bytes(member) or (audio and (plain or key == heard))
            heard = key if audio else heard
            handle = None if unread else tar.extractfile(member)
            yield Path(member.name).suffix, member, handle.read() if handle else None


def _most_bytes(member: tarfile.TarInfo) -> int:
    """More of a member are not taken into memory."""
    return MAX_FILE_BYTES if is_audio(member.name) else _MAX_TEXT_BYTES


def _key(name: str) -> str:
    """WebDataset's key: the name up to the first dot after the last slash."""
    folder, slash, file = name.removeprefix("./").rpartition("/")
    return f"{folder}{slash}{file.partition('.')[0]}"


def _fields(parts: list[Part]) -> dict[str, Any]:
    contents = {suffix: content for suffix, _, content in parts if content is not None}
    fields = parse_row(contents[".json"]) if ".json" in contents else {}
    if ".txt" in contents and "text" not in fields:
        fields["text"] = contents[".txt"].decode("utf-8-sig").strip()
    return fields


def _tar_id(path: Path) -> Any:
    if not path.name.endswith(_PLAIN):
        return hash_file(path)
    try:
        return [[m.name, m.size, None if c is None else storage.hash_bytes(c)] for _, m, c in _parts(path)]
    except (tarfile.TarError, OSError, EOFError):
        return hash_file(path)  # broken inside: `rows` says where
