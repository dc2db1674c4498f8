"""metrics.jsonl of a training: written as numbered parts, since object stores have no append; merged at the end."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from data import storage
from data.errors import RunError

PARTS = "metrics"
FLUSH_ROWS = 20


class MetricsLog:
    """Rows {step, …} in the order of steps. Only one worker writes; a resume truncates to its checkpoint.

    All raise RunError where the folder cannot be written.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._rows: list[dict[str, Any]] = []

    def truncate(self, step: int) -> None:
        """Forget every row after `step`."""
        self._rows = []
        with _told(self._folder):
            for path in _parts(self._folder):
                rows = list(storage.read_jsonl(path))
                kept = [row for row in rows if row["step"] <= step]
                if not kept:
                    storage.delete(path)
                elif len(kept) < len(rows):
                    storage.write_jsonl(path, kept)

    def add(self, row: dict[str, Any]) -> None:
        """Take a row; every 20 rows become a part."""
        self._rows.append(row)
        if len(self._rows) >= FLUSH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what has been taken since the last part."""
        if self._rows:
            name = f"part-{self._rows[0]['step']:08d}.jsonl"
            with _told(self._folder):
                storage.write_jsonl(storage.join(self._folder, PARTS, name), self._rows)
            self._rows = []


@contextmanager
def _told(folder: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            f"cannot write the numbers of the training into {folder}: {error}; the checkpoints there are whole: make "
            "room or mend the storage, then run this again"
        ) from error


def merge_metrics(folder: str) -> list[dict[str, Any]]:
    """Merge the parts into metrics.jsonl, one row a step, and return the rows. Does nothing more once merged.

    Parts beside a metrics.jsonl are what a killed merge left, or of steps that were taken again: they replace its rows.
    """
    target = storage.join(folder, "metrics.jsonl")
    paths = _parts(folder)
    merged = list(storage.read_jsonl(target)) if storage.exists(target) else []
    if not paths:
        return merged
    by_step = {row["step"]: row for rows in (merged, *map(storage.read_jsonl, paths)) for row in rows}
    found = [by_step[step] for step in sorted(by_step)]
    storage.write_jsonl(target, found)
    storage.delete(storage.join(folder, PARTS))
    return found


def rows_after(folder: str, step: int) -> list[dict[str, Any]]:
    """The rows after `step` that have been written so far, for progress lines."""
    last = f"part-{step:08d}.jsonl"
    paths = _parts(folder)
    # A part is named by its first row: after a resume that of the step and what follows it may be in one.
    begun = sum(path.rsplit("/", 1)[-1] <= last for path in paths)
    late = paths[max(0, begun - 1) :]
    try:
        return [row for path in late for row in storage.read_jsonl(path) if row["step"] > step]
    except FileNotFoundError:
        return []  # a resume has just truncated them


def _parts(folder: str) -> list[str]:
    names = storage.list_files(storage.join(folder, PARTS))
    return [storage.join(folder, PARTS, name) for name in names if name.startswith("part-") and name.endswith(".jsonl")]
