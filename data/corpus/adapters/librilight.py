"""Libri-Light: long recordings without text, with stretches of speech in a JSON beside each.

lhotse's recipe runs only whole: it reads every audio header first, ends at the first bad one, wants folders named
small, medium and large, and replaces "flac" anywhere in a path. So the JSON is read here.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data import storage
from data.corpus.adapters.base import Bad, Found
from data.corpus.adapters.folder import FolderAdapter


class LibriLightAdapter(FolderAdapter):
    """`corpus: {kind: librilight, path: /data/librilight, parts: [small], utterances: voice_activity}`"""

    kind = "librilight"
    title = "Libri-Light"
    licence = "public domain (LibriVox); the metadata is MIT"
    layout = (
        "  small/100/sea_fairies_0812_librivox_64kb_mp3/01_baum_sea_fairies_64kb.flac\n"
        "  small/100/sea_fairies_0812_librivox_64kb_mp3/01_baum_sea_fairies_64kb.json\n"
        '  each JSON: {"speaker": "100", "voice_activity": [[start_s, end_s], …], "book_meta": {…}, "snr": …}'
    )
    signs = ("*/*/*/*.json",)

    def rows(self) -> Iterator[Found | Bad]:
        """One row per stretch of speech, or per recording."""
        self.check_layout()
        for part in self.parts():
            for path in sorted((self.folder / part).rglob("*.flac")):
                yield from self._recording(part, path)

    def _recording(self, part: str, path: Path) -> Iterator[Found | Bad]:
        relative = self.relative(path)
        name = relative.removesuffix(".flac")
        try:
            described = storage.read_json(path.with_suffix(".json"))
            row = self._row(part, relative, described)
            spans = [(float(start), float(end)) for start, end in described["voice_activity"]]
        except FileNotFoundError:
            yield Bad.of(name, relative, "bad_field", f"no {path.with_suffix('.json').name} beside it")
            return
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            yield Bad.of(name, relative, "bad_field", f"{path.with_suffix('.json')}: {type(error).__name__}: {error}")
            return
        if self.config.utterances == "recording":
            yield Found({**row, "id": name})
            return
        for number, (start, end) in enumerate(spans):
            yield Found({**row, "id": f"{name}_{number}", "offset": start, "duration": round(end - start, 6)})

    def _row(self, part: str, relative: str, described: dict[str, Any]) -> dict[str, Any]:
        book = described.get("book_meta") or {}
        return {
            "audio_filepath": relative,
            "speaker": str(described["speaker"]),
            "lang": "en",
            "part": part,
            "book": book.get("title"),
            "snr": described.get("snr"),
        }
