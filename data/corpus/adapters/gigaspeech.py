"""GigaSpeech, by lhotse's reader of one recording.

lhotse's whole recipe needs the package speechcolab, which only iterates over GigaSpeech.json; that is done here.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data import storage
from data.corpus.adapters.base import Bad, Found
from data.corpus.adapters.folder import FolderAdapter
from data.corpus.adapters.supervisions import supervision_row
from data.errors import InputError
from data.manifest import RowError

_PUNCTUATION = {" <COMMA>": ",", " <PERIOD>": ".", " <QUESTIONMARK>": "?", " <EXCLAMATIONPOINT>": "!"}
_NO_WORDS = frozenset({"<SIL>", "<MUSIC>", "<NOISE>", "<OTHER>"})
_SPLITS = {"DEV": "dev", "TEST": "test"}


class GigaSpeechAdapter(FolderAdapter):
    """`corpus: {kind: gigaspeech, path: /data/GigaSpeech, subsets: [M, DEV, TEST]}`

    The text keeps its punctuation as signs. A segment tagged as music, noise or silence has no text, and the tag as
    `event`.
    """

    kind = "gigaspeech"
    title = "GigaSpeech"
    licence = "Apache 2.0 for the metadata; the audio for non-commercial research, after an agreement with its makers"
    layout = (
        "  GigaSpeech.json                          (audios, each with aid, path, segments)\n"
        "  audio/podcast/P0001/POD0000000001.opus   (as GigaSpeech.json names them)"
    )
    signs = ("GigaSpeech.json",)

    def rows(self) -> Iterator[Found | Bad]:
        """One row per segment of the chosen subsets."""
        self.check_layout()
        wanted = {f"{{{subset}}}": _SPLITS.get(subset, "train") for subset in self.config.subsets}
        try:
            audios = storage.read_json(self.folder / "GigaSpeech.json")["audios"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.folder / 'GigaSpeech.json'}: {type(error).__name__}: {error}") from None
        for audio in audios:
            yield from self._recording(audio, wanted)

    def _recording(self, audio: dict[str, Any], wanted: dict[str, str]) -> Iterator[Found | Bad]:
        from lhotse.recipes.gigaspeech import parse_utterance

        try:
            # The largest subset holds the smaller ones; a segment goes where the first match of the list puts it.
            subsets = {
                segment["sid"]: subset
                for segment in audio["segments"]
                for subset in reversed(wanted)
                if subset in segment["subsets"]
            }
            kept = [segment for segment in audio["segments"] if segment["sid"] in subsets]
            parsed = parse_utterance({**audio, "segments": kept}, Path()) if kept else None
        except (KeyError, TypeError, ValueError) as error:
            name, path = (audio.get(key) for key in ("aid", "path")) if isinstance(audio, dict) else (None, None)
            yield Bad.of(name, path, "bad_field", f"GigaSpeech.json: {type(error).__name__}: {error}")
            return
        recording, supervisions = parsed or (None, [])
        for supervision in supervisions:
            subset = subsets[supervision.id]
            text, event = _text(supervision.text or "")
            fields: dict[str, Any] = {"part": subset.strip("{}"), "split": wanted[subset], "text": text, "event": event}
            try:
                yield Found(supervision_row(recording, supervision, **fields))
            except RowError as error:
                yield Bad.of(supervision.id, audio["path"], "bad_field", error)


def _text(tagged: str) -> tuple[str | None, str | None]:
    """(text, event): punctuation tags as signs; of a segment without words, no text and the tag."""
    if tagged.strip() in _NO_WORDS:
        return None, tagged.strip().strip("<>").lower()
    for tag, sign in _PUNCTUATION.items():
        tagged = tagged.replace(tag, sign)
    return tagged, None
