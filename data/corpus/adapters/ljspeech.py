"""LJ Speech.

lhotse's recipe runs only whole: it ends at the first bad audio header or line, and drops missing files unseen. So
metadata.csv is read here.
"""

from collections.abc import Iterator

from data.corpus.adapters.base import Bad, Found
from data.corpus.adapters.folder import FolderAdapter, read_lines


class LjSpeechAdapter(FolderAdapter):
    """`corpus: {kind: ljspeech, path: /data/LJSpeech-1.1, test: {book: [LJ001, LJ002]}}`

    There are no published splits: hold out by `book`, the first five letters of an id. The text has its numbers and
    abbreviations spelled out; the printed one is kept as `raw_text`.
    """

    kind = "ljspeech"
    title = "LJ Speech"
    licence = "public domain"
    layout = "  metadata.csv             (id|text|text with numbers spelled out)\n  wavs/LJ001-0001.wav"
    signs = ("wavs/*.wav",)

    def rows(self) -> Iterator[Found | Bad]:
        """One row per line of metadata.csv."""
        self.check_layout()
        table = self.folder / "metadata.csv"
        if not table.exists():
            raise self.unlike(["metadata.csv"])
        for line in read_lines(table):
            name, *texts = (part.strip() for part in line.split("|"))
            path = f"wavs/{name}.wav"
            if not texts or not texts[0]:
                yield Bad.of(name, path, "bad_field", f"metadata.csv: {line!r:.120} is not id|text|spelled-out text")
                continue
            row = {"id": name, "audio_filepath": path, "text": texts[-1] or texts[0], "raw_text": texts[0]}
            yield Found({**row, "speaker": "LJ", "lang": "en", "gender": "female", "book": name.partition("-")[0]})
