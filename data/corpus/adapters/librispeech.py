"""LibriSpeech, by lhotse's reader of one utterance, so that an unreadable file costs one row and not the corpus."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.corpus.adapters.base import Bad, Found, split_of
from data.corpus.adapters.folder import FolderAdapter, read_lines
from data.corpus.adapters.supervisions import supervision_row


class LibriSpeechAdapter(FolderAdapter):
    """`corpus: {kind: librispeech, path: /data/LibriSpeech, parts: [train-clean-100, dev-clean, test-clean]}`

    Word alignments (`*.alignment.txt`, as lhotse reads them) are used where they lie beside the transcripts.
    """

    kind = "librispeech"
    title = "LibriSpeech"
    licence = "CC BY 4.0; readings of public-domain books from LibriVox"
    layout = (
        "  train-clean-100/19/198/19-198.trans.txt\n"
        "  train-clean-100/19/198/19-198-0000.flac\n"
        "  dev-clean/…, test-clean/…"
    )
    signs = ("*/*/*/*.trans.txt",)

    def rows(self) -> Iterator[Found | Bad]:
        """One row per line of the transcripts."""
        self.check_layout()
        for part in self.parts():
            for transcript in sorted((self.folder / part).rglob("*.trans.txt")):
                yield from self._chapter(part, transcript)

    def _chapter(self, part: str, transcript: Path) -> Iterator[Found | Bad]:
        from lhotse.recipes.librispeech import parse_alignments

        aligned = transcript.with_name(transcript.name.replace(".trans.txt", ".alignment.txt"))
        alignments = parse_alignments(aligned) if aligned.exists() else {}
        for line in read_lines(transcript):
            yield self._utterance(part, line, alignments)

    def _utterance(self, part: str, line: str, alignments: dict[str, Any]) -> Found | Bad:
        from lhotse.recipes.librispeech import parse_utterance

        name = line.split(maxsplit=1)[0]
        path = f"{part}/{'/'.join(name.split('-')[:-1])}/{name}.flac"
        if len(line.split(maxsplit=1)) < 2:
            return Bad.of(name, path, "bad_field", f"no text in {line!r}")
        try:
            parsed = parse_utterance(self.folder / part, line, alignments)
        except Exception as error:  # each of lhotse's audio backends raises its own kinds
            return Bad.of(name, path, "not_audio", f"{type(error).__name__}: {error}")
        if parsed is None:
            return Bad.of(name, path, "missing", f"no file at {self.folder / path}")
        row = supervision_row(*parsed, audio_filepath=path, part=part, split=split_of(part))
        return Found(row)
