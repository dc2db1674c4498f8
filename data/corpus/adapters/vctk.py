"""CSTR VCTK, versions 0.80 and 0.92.

lhotse's recipe runs only whole: it reads every audio header first, ends at the first bad one, and drops recordings
without a text unseen. So the folders are listed here.
"""

from collections.abc import Iterator
from pathlib import Path

from data.corpus.adapters.base import Bad, Found
from data.corpus.adapters.folder import FolderAdapter, read_lines, subfolders

_SPEAKER_COLUMNS = 4


class VctkAdapter(FolderAdapter):
    """`corpus: {kind: vctk, path: /data/VCTK-Corpus-0.92, test: {speaker: [p225, p226]}}`

    There are no published splits: hold out by speaker. Speaker p315 has no texts; its recordings are kept without.
    """

    kind = "vctk"
    title = "VCTK"
    licence = "CC BY 4.0 (version 0.92), ODC-By 1.0 (version 0.80)"
    layout = (
        "  wav48_silence_trimmed/p225/p225_001_mic1.flac   (version 0.92; 0.80: wav48/p225/p225_001.wav)\n"
        "  txt/p225/p225_001.txt\n"
        "  speaker-info.txt                                (ID AGE GENDER ACCENTS REGION)"
    )
    signs = ("wav48_silence_trimmed/*/*", "wav48/*/*")

    def rows(self) -> Iterator[Found | Bad]:
        """One row per recording of the chosen microphone, and per text that lacks one."""
        self.check_layout()
        new = (self.folder / "wav48_silence_trimmed").is_dir()
        audio = self.folder / ("wav48_silence_trimmed" if new else "wav48")
        ending = f"_{self.config.microphone}.flac" if new else ".wav"
        speakers = self._speakers()
        names = {path.name for folder in (audio, self.folder / "txt") for path in subfolders(folder)}
        for speaker in sorted(names):
            described = speakers.get(speaker, speakers.get(speaker.removeprefix("p"), {}))
            spoken = {path.name.removesuffix(ending) for path in (audio / speaker).glob(f"*{ending}")}
            written = {path.stem: path for path in (self.folder / "txt" / speaker).glob("*.txt")}
            for name in sorted(spoken | set(written)):
                path = f"{audio.name}/{speaker}/{name}{ending}"
                if name not in spoken:
                    yield Bad.of(name, path, "missing", f"a text without a recording: no file at {self.folder / path}")
                    continue
                row = {"id": name, "audio_filepath": path, "speaker": speaker, "lang": "en", **described}
                yield Found({**row, "text": _text(written.get(name))})

    def _speakers(self) -> dict[str, dict[str, str]]:
        """Speaker -> age, gender, accent and region; ids are written with the p in 0.92 and without in 0.80."""
        table = self.folder / "speaker-info.txt"
        rows = [line.split() for line in read_lines(table)[1:]] if table.exists() else []
        return {
            row[0]: {"age": row[1], "gender": row[2], "accent": row[3], "region": " ".join(row[4:])}
            for row in rows
            if len(row) >= _SPEAKER_COLUMNS
        }


def _text(path: Path | None) -> str | None:
    return " ".join(read_lines(path)).strip() if path else None
