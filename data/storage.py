"""The one door to storage: whole objects in, whole objects or ranges of them out, over fsspec.

Object stores have neither rename nor append, so neither is offered. A local write lands under a temporary
name first, so a killed process never leaves half an object under the real one.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import fsspec

from data.errors import InputError


def _filesystem(path: str | Path) -> tuple[Any, str]:
    """The storage of `path` and its name there. It remembers no listings, as those of object stores do by default: what
    other processes have written since would not be there."""
    return fsspec.core.url_to_fs(str(path), use_listings_cache=False)


def is_url(path: str | Path) -> bool:
    """Whether `path` names an object store (`s3://…`) rather than a local file."""
    return "://" in str(path)


def check_protocol(url: str) -> None:
    """Raises InputError where nothing that is installed reads `url`."""
    try:
        fsspec.get_filesystem_class(url.partition("://")[0].rpartition("::")[2])
    except (ImportError, ValueError) as error:  # a package that is lacking, a protocol that nobody knows
        raise InputError(f"{url!r} cannot be read: {error}; install what is lacking, or give another place") from None


def join(folder: str | Path, *names: str) -> str:
    """`folder/name/…`, for local paths and URLs alike. An absolute or URL name replaces the folder."""
    result = str(folder)
    for name in names:
        result = name if is_url(name) or os.path.isabs(name) else f"{result.rstrip('/')}/{name}"
    return result


def absolute(path: str) -> str:
    """`path` for a process in another working directory; URLs stay as they are."""
    return path if is_url(path) else os.path.abspath(path)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write one whole object, making parent folders as needed."""
    if is_url(path):
        with fsspec.open(str(path), "wb") as handle:
            handle.write(content)
        return
    with writing(path) as handle:
        handle.write(content)


@contextmanager
def writing(path: str | Path) -> Iterator[IO[bytes]]:
    """A file to write one whole object into, piece by piece; it appears when the block ends without an error.

    Raises OSError, which names the object, where it cannot be written.
    """
    target = None if is_url(path) else Path(path)
    if target:
        target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}." if target else None
    descriptor, temporary = tempfile.mkstemp(dir=target.parent if target else None, prefix=prefix)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            yield handle
        if target:
            os.chmod(temporary, 0o644)
            os.replace(temporary, target)
        else:
            filesystem, inner = _filesystem(path)
            with suppress(PermissionError):  # folders are made, or not, as by fsspec.open
                filesystem.makedirs(filesystem._parent(inner), exist_ok=True)
            filesystem.put_file(temporary, inner)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk says so of no file
        raise
    finally:
        Path(temporary).unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write one whole UTF-8 object."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def write_jsonl(path: str | Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line."""
    with writing(path) as handle:
        for row in rows:
            handle.write((json.dumps(row, ensure_ascii=False) + "\n").encode())


def read_bytes(path: str | Path) -> bytes:
    """The whole object. Raises FileNotFoundError where there is none."""
    if is_url(path):
        with fsspec.open(str(path), "rb") as handle:
            return handle.read()
    return Path(path).read_bytes()


def read_range(path: str | Path, start_byte: int, end_byte: int) -> bytes:
    """Bytes [start_byte, end_byte) of an object, fewer where it ends before. Raises FileNotFoundError, ValueError."""
    if not 0 <= start_byte <= end_byte:
        raise ValueError(f"bytes {start_byte} to {end_byte} are no range: give 0 <= start <= end")
    filesystem, inner = _filesystem(path)
    # An empty range is no valid request over HTTP, and there is nothing to read.
    content = bytes(filesystem.cat_file(inner, start=start_byte, end=end_byte)) if end_byte > start_byte else b""
    if len(content) > end_byte - start_byte:
        raise ValueError(f"{path} came whole where a range of it was asked: its server knows no ranges")
    return content


def open_seekable(path: str | Path) -> Any:
    """A binary file-like object that reads and seeks in an object without fetching it whole; the caller closes it."""
    return fsspec.open(str(path), "rb").open()


def read_text(path: str | Path) -> str:
    """The whole object as UTF-8."""
    return read_bytes(path).decode()


def read_json(path: str | Path) -> Any:
    """The whole object, parsed."""
    return json.loads(read_text(path))


def read_jsonl(path: str | Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file, blank lines skipped."""
    with fsspec.open(str(path), "rt", encoding="utf-8") as handle:
        for line in handle:
            if line.strip():
                yield json.loads(line)


def exists(path: str | Path) -> bool:
    """Whether an object or folder is there."""
    if is_url(path):
        filesystem, inner = _filesystem(path)
        return filesystem.exists(inner)
    return Path(path).exists()


def list_files(folder: str | Path) -> list[str]:
    """Every file below `folder` as paths relative to it, sorted. Empty where the folder is absent."""
    filesystem, root = _filesystem(folder)
    found = filesystem.find(root)
    return sorted(os.path.relpath(name, root) for name in found)


def list_sizes(folder: str | Path) -> dict[str, int]:
    """Bytes of every file below `folder`, by its path relative to it, sorted."""
    filesystem, root = _filesystem(folder)
    found = filesystem.find(root, detail=True)
    return {os.path.relpath(name, root): int(found[name]["size"]) for name in sorted(found)}


def delete(path: str | Path) -> None:
    """Remove an object or a whole folder; nothing happens where there is none."""
    filesystem, inner = _filesystem(path)
    if filesystem.exists(inner):
        filesystem.rm(inner, recursive=True)


def copy_folder(source: str | Path, target: str | Path) -> None:
    """Copy every file below `source` under `target`, between any two storages."""
    for name in list_files(source):
        copy_file(join(source, name), join(target, name))


def copy_file(source: str | Path, target: str | Path) -> None:
    """Copy one object between any two storages, piece by piece."""
    with open_seekable(source) as original, writing(target) as copy:
        shutil.copyfileobj(original, copy, 1 << 22)


def local_folder(folder: str | Path, version: str = "") -> Path:
    """A local folder with the content of `folder`: itself when local, else a cached download.

    `version`: what tells the content of a folder that is written anew from what it held before; without it, what was
    fetched once is taken to be what is there.
    Processes of one machine may ask at once: each fetches into a folder of its own, and the first to be done gives its.
    Raises InputError for a URL below which there is nothing.
    """
    if not is_url(folder):
        return Path(folder)
    cache = _cache_of(folder, version)
    if not cache.exists():
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache.parent) as own:
            whole = Path(own) / cache.name
            whole.mkdir()
            copy_folder(folder, whole)
            if not any(whole.iterdir()):  # to an object store no folder and an empty one are the same
                raise InputError(f"there is nothing at {str(folder)!r}: give the URL of a folder that holds files")
            try:
                whole.rename(cache)
            except OSError:
                if not cache.exists():
                    raise
    return cache


def forget_local(folder: str | Path, version: str = "") -> None:
    """The next `local_folder` of a URL fetches it anew; nothing happens to a local folder."""
    if is_url(folder):
        delete(_cache_of(folder, version))


def _cache_of(folder: str | Path, version: str) -> Path:
    key = hashlib.sha256((str(folder) + version).encode()).hexdigest()[:16]
    return Path(os.environ.get("ANTIPHON_CACHE", Path.home() / ".cache" / "antiphon")) / "folders" / key


def hash_bytes(content: bytes) -> str:
    """SHA-256 in hex: how raw objects are named by content."""
    return hashlib.sha256(content).hexdigest()


def hash_json(value: Any) -> str:
    """SHA-256 of the canonical JSON form of `value`."""
    return hash_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())


def hash_folder(folder: str | Path) -> str:
    """SHA-256 over names and contents of every file below `folder`: the id of a raw model folder."""
    return hash_json({name: hash_bytes(read_bytes(join(folder, name))) for name in list_files(folder)})
