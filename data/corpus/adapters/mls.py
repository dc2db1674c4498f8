"""Multilingual LibriSpeech.

lhotse's recipe runs only whole and reads every audio header in one go: it ends at the first bad one and drops lines
whose audio is missing unseen. So the transcripts are read here.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from data.corpus.adapters.base import Bad, Found
from data.corpus.adapters.folder import FolderAdapter, read_lines, subfolders
from data.corpus.adapters.supervisions import language_code

_LANGUAGE = re.compile(r"mls_([a-z]+)(_opus)?")


class MlsAdapter(FolderAdapter):
    """`corpus: {kind: mls, path: /data/mls, languages: [polish]}`: the folder of one language or of several."""

    kind = "mls"
    title = "Multilingual LibriSpeech"
    licence = "CC BY 4.0; readings of public-domain books from LibriVox"
    layout = (
        "  mls_polish/metainfo.txt\n"
        "  mls_polish/train/transcripts.txt       (id, tab, text)\n"
        "  mls_polish/train/audio/6892/9023/6892_9023_000000.flac   (or .opus)\n"
        "  mls_polish/dev/…, mls_polish/test/…"
    )
    signs = ("mls_*/*/transcripts.txt", "*/transcripts.txt")

    def rows(self) -> Iterator[Found | Bad]:
        """One row per line of the transcripts."""
        self.check_layout()
        languages = self._languages()
        missing = sorted(set(self.config.languages) - set(languages))
        if missing:
            raise self.unlike([f"mls_{name}/" for name in missing])
        for name in self.config.languages or sorted(languages):
            genders = _genders(languages[name])
            for split in ("train", "dev", "test"):
                table = languages[name] / split / "transcripts.txt"
                for line in read_lines(table) if table.exists() else ():
                    yield self._utterance(name, split, table, line, genders)

    def _languages(self) -> dict[str, Path]:
        folders = [self.folder] if (self.folder / "metainfo.txt").exists() else subfolders(self.folder)
        found = {name[1]: path for path in folders if (name := _LANGUAGE.fullmatch(path.name))}
        if not found:
            raise self.unlike(["a folder named mls_<language> or mls_<language>_opus"])
        return found

    def _utterance(self, language: str, split: str, table: Path, line: str, genders: dict[str, str]) -> Found | Bad:
        identity, _, text = line.partition("\t")
        speaker, *rest = identity.split("_")
        if len(rest) != 2 or not text:
            return Bad.of(identity, None, "bad_field", f"{table}: {line!r:.120} is not 'speaker_book_number<tab>text'")
        stem = table.parent / "audio" / speaker / rest[0] / identity
        path = stem.with_suffix(".opus" if stem.with_suffix(".opus").exists() else ".flac")
        row = {"id": identity, "audio_filepath": self.relative(path), "text": text, "speaker": speaker}
        return Found({**row, "lang": language_code(language), "split": split, "gender": genders.get(speaker)})


def _genders(folder: Path) -> dict[str, str]:
    """Speaker -> F or M, from `metainfo.txt`: columns separated by |, the first line a heading."""
    table = folder / "metainfo.txt"
    rows = [line.split("|") for line in read_lines(table)] if table.exists() else []
    return {row[0].strip(): row[1].strip() for row in rows if len(row) > 1}
