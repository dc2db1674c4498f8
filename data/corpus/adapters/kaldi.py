"""Kaldi data folders. wav.scp is a table of paths here; Kaldi's shell commands are never run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.corpus.adapters.base import Bad, Found, split_of
from data.corpus.adapters.folder import FolderAdapter, read_lines, subfolders
from data.errors import InputError

_TO_THE_END = -1.0  # where a segment ends that has the rest of its recording
_MORE = {"utt2spk": "speaker", "utt2lang": "lang", "text": "text"}


class KaldiAdapter(FolderAdapter):
    """`corpus: {kind: kaldi, path: /data/egs/mine/data, test: {part: [eval]}}`

    One data folder, or a folder of several, whose names say part and split. Relative paths count from `path`.
    """

    kind = "kaldi"
    title = "a Kaldi data folder"
    licence = "whatever the recordings' own terms are"
    layout = (
        "  train/wav.scp    (recording, path)\n"
        "  train/segments   (utterance, recording, start, end in seconds or -1; may be absent)\n"
        "  train/text, train/utt2spk, train/utt2lang, train/spk2gender   (may be absent)\n"
        "  test/wav.scp …"
    )
    signs = ("wav.scp", "*/wav.scp")

    def rows(self) -> Iterator[Found | Bad]:
        """One row per segment, or per recording where there are no segments."""
        self.check_layout()
        single = (self.folder / "wav.scp").exists()
        for folder in [self.folder] if single else subfolders(self.folder):
            if (folder / "wav.scp").exists():
                yield from self._part(folder)

    def _part(self, folder: Path) -> Iterator[Found | Bad]:
        listed = _pairs(folder / "wav.scp")
        _refuse_commands(folder / "wav.scp", listed)
        recordings = _table(folder / "wav.scp")
        tables = {ours: _table(folder / name) for name, ours in _MORE.items()}
        genders = _table(folder / "spk2gender")
        segments = (folder / "segments").exists()
        for name, span in _pairs(folder / "segments") if segments else listed:
            speaker = tables["speaker"].get(name)
            row = {"id": name, **{ours: table.get(name) for ours, table in tables.items()}, "part": folder.name}
            row |= {"split": split_of(folder.name)}
            row |= {"gender": genders[speaker]} if speaker in genders else {}
            yield _located(row, span, recordings) if segments else Found({**row, "audio_filepath": span})


def _located(row: dict[str, Any], span: str, recordings: dict[str, str]) -> Found | Bad:
    recording, *times = span.split()
    path = recordings.get(recording)
    if path is None:
        return Bad.of(row["id"], None, "missing", f"recording {recording!r} of its segment is not in wav.scp")
    if len(times) > 2:
        detail = f"segment {span!r} means one channel, and channels are mixed when read: split the recordings"
        return Bad.of(row["id"], path, "bad_field", detail)
    try:
        start, end = map(float, times)
    except ValueError:
        return Bad.of(row["id"], path, "bad_field", f"segment {span!r} is not 'recording start end'")
    if not 0 <= start < end and not (start >= 0 and end == _TO_THE_END):
        return Bad.of(row["id"], path, "bad_field", f"segment from {start} to {end} s")
    duration = None if end == _TO_THE_END else round(end - start, 6)
    return Found({**row, "audio_filepath": path, "offset": start, "duration": duration, "recording": recording})


def _refuse_commands(table: Path, recordings: list[tuple[str, str]]) -> None:
    for name, path in recordings:
        if path.endswith("|") or path.startswith("|"):
            raise InputError(
                f"{table}: {name!r} is a shell command ({path!r:.120}), and commands are never run here: write the "
                "audio out once (`wav-copy scp:wav.scp ...`, or run the command with its output in a file) and give "
                "wav.scp the paths"
            )
        if ".ark:" in path:
            raise InputError(f"{table}: {name!r} points into an archive ({path!r:.120}): give wav.scp audio files")


def _table(path: Path) -> dict[str, str]:
    """First column -> the rest of the line, of the first line that has it; empty where the file is absent."""
    return dict(reversed(_pairs(path)))


def _pairs(path: Path) -> list[tuple[str, str]]:
    """(first column, the rest) of every line, in order: an id may stand there twice."""
    parts = (line.strip().partition(" ") for line in map(_spaced, read_lines(path) if path.exists() else []))
    return [(key, value.strip()) for key, _, value in parts]


def _spaced(line: str) -> str:
    return line.replace("\t", " ")
