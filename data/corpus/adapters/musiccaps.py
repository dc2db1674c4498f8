"""MusicCaps: a table of captions, and the clips that the user has fetched."""

import csv
import io
import re
from collections.abc import Iterator
from typing import Any

from data.corpus.adapters.base import Bad, Found
from data.corpus.adapters.folder import FolderAdapter, is_audio, read_table

_VIDEO = re.compile(r"\[?([\w-]{11})\]?(?:\W.*|_\d.*)?")
_COLUMNS = ("ytid", "start_s", "end_s", "caption")


class MusicCapsAdapter(FolderAdapter):
    """`corpus: {kind: musiccaps, path: /data/musiccaps, audio: clips}`

    Clips are found anywhere below the folder by the video's id at the start of their names. Those that are no longer
    to be had are quarantined as missing. The evaluation part of AudioSet is the test split.
    """

    kind = "musiccaps"
    title = "MusicCaps"
    licence = "CC BY-SA 4.0 for the captions; the audio belongs to its uploaders and is fetched by the user"
    layout = (
        "  musiccaps-public.csv   (ytid, start_s, end_s, caption, aspect_list, is_audioset_eval, …)\n"
        "  audio/-0Gj8-vB1q4.wav  (or [-0Gj8-vB1q4]-[30-40].wav)"
    )
    signs = ("musiccaps*.csv",)

    def rows(self) -> Iterator[Found | Bad]:
        """One row per caption whose clip is there."""
        self.check_layout()
        table = min(self.folder.glob("musiccaps*.csv"))
        clips = {found[1]: name for name in self.listing() if is_audio(name) and (found := _video(name))}
        rows = list(csv.DictReader(io.StringIO(read_table(table), newline="")))
        if not rows or not set(_COLUMNS) <= set(rows[0]):
            raise self.unlike([f"columns {', '.join(_COLUMNS)} in {table.name}"])
        for row in rows:
            clip = clips.get(row["ytid"])
            if clip is None:
                yield Bad.of(row["ytid"], None, "missing", f"no audio file named {row['ytid']}.* below {self.folder}")
            else:
                yield self._clip(row, clip)

    def _clip(self, row: dict[str, Any], clip: str) -> Found | Bad:
        try:
            start, end = float(row["start_s"]), float(row["end_s"])
        except (TypeError, ValueError):
            return Bad.of(row["ytid"], clip, "bad_field", f"start_s={row['start_s']!r}, end_s={row['end_s']!r}")
        kept = {name: row[name] for name in ("aspect_list", "audioset_positive_labels", "author_id") if row.get(name)}
        span = {"offset": start, "duration": end - start} if self.config.audio == "whole" else {}
        held_out = str(row.get("is_audioset_eval")).strip().lower() in ("true", "1")
        fields = {"id": row["ytid"], "audio_filepath": clip, "kind": "music", "caption": row["caption"]}
        return Found({**kept, **fields, **span, "split": "test" if held_out else "train"})


def _video(name: str) -> re.Match[str] | None:
    return _VIDEO.fullmatch(name.rpartition("/")[2].rpartition(".")[0])
