"""Mozilla Common Voice.

lhotse's recipe ends at the first clip that cannot be read, drops missing ones unseen, wants the columns of the newest
releases and writes manifests of its own. So the tables are read here.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.corpus.adapters.base import Bad, Found, split_of
from data.corpus.adapters.folder import FolderAdapter, read_lines, subfolders


class CommonVoiceAdapter(FolderAdapter):
    """`corpus: {kind: commonvoice, path: /data/cv-corpus-17.0-2024-03-15, languages: [pl]}`

    The folder of one language or of a whole release. `validated` overlaps train, dev and test: read it alone, or
    the clips it shares with tables before it are quarantined as duplicates.
    """

    kind = "commonvoice"
    title = "Common Voice"
    licence = "CC0 1.0; speakers must not be identified"
    layout = (
        "  pl/clips/common_voice_pl_100540.mp3\n"
        "  pl/train.tsv, pl/dev.tsv, pl/test.tsv   (client_id, path, sentence, …)\n"
        "  pl/clip_durations.tsv                   (in newer releases: clip, duration in ms)"
    )
    signs = ("clips", "*/clips")

    def rows(self) -> Iterator[Found | Bad]:
        """One row per line of the chosen tables."""
        self.check_layout()
        single = (self.folder / "clips").is_dir()
        languages = {path.name: path for path in ([self.folder] if single else subfolders(self.folder))}
        missing = sorted(set(self.config.languages) - set(languages))
        if missing:
            raise self.unlike([f"{name}/clips/" for name in missing])
        found = False
        for name in self.config.languages or sorted(languages):
            durations = _durations(languages[name])
            for table in self.config.tables:
                path = languages[name] / f"{table}.tsv"
                if path.exists():
                    found = True
                    yield from self._table(path, durations)
        if not found:
            raise self.unlike([f"{table}.tsv" for table in self.config.tables])

    def _table(self, path: Path, durations: dict[str, float]) -> Iterator[Found | Bad]:
        lines = [line.replace("\r", " ") for line in read_lines(path)]  # csv ends at one inside a line
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
        if rows and not {"path", "sentence"} <= set(rows[0]):
            raise self.unlike([f"columns path and sentence in {path.name} (it has {', '.join(rows[0])})"])
        for row in rows:
            yield self._clip(path, row, durations)

    def _clip(self, table: Path, row: dict[str, Any], durations: dict[str, float]) -> Found | Bad:
        clip = row["path"]
        if not clip or row["sentence"] is None:
            return Bad.of(None, clip, "bad_field", f"{table.name}: a line with too few columns: {row!r:.200}")
        clip = clip if Path(clip).suffix else f"{clip}.mp3"  # the first releases leave the ending out
        kept = ("gender", "age", "accents", "accent", "variant", "up_votes", "down_votes")
        return Found(
            {
                **{name: row[name] for name in kept if row.get(name)},
                "id": Path(clip).stem,
                "audio_filepath": self.relative(table.parent / "clips" / clip),
                "duration": durations.get(clip),
                "text": row["sentence"].strip(),
                "speaker": row.get("client_id"),
                "lang": row.get("locale") or table.parent.name,
                "part": table.stem,
                "split": split_of(table.stem),
            }
        )


def _durations(folder: Path) -> dict[str, float]:
    """Clip -> seconds, where the release says so: a number of milliseconds."""
    table = folder / "clip_durations.tsv"
    rows = [line.split("\t") for line in read_lines(table)[1:]] if table.exists() else []
    return {row[0]: int(row[1]) / 1000 for row in rows if len(row) == 2 and row[1].strip().isdecimal()}
