"""Hugging Face datasets saved to disk. Their audio is bytes inside Arrow files: `prepare` writes it out as it is."""

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from data.corpus.adapters.base import AUDIO_SUFFIXES, Bad, Found, split_of
from data.corpus.adapters.folder import FolderAdapter
from data.errors import InputError


class HfDatasetAdapter(FolderAdapter):
    """`corpus: {kind: hf_dataset, path: /data/saved, audio_column: audio, fields: {text: sentence}}`

    Audio is never decoded by `datasets`. Utterances without a column `id` are named by split and row number.
    """

    kind = "hf_dataset"
    title = "a dataset saved with save_to_disk"
    licence = "the dataset card's"
    layout = (
        "  dataset_dict.json, train/state.json, train/dataset_info.json, train/data-00000-of-00001.arrow   (several)\n"
        "  state.json, dataset_info.json, data-00000-of-00001.arrow                                         (one)"
    )
    signs = ("dataset_dict.json", "state.json")
    hidden_by_size = frozenset({*AUDIO_SUFFIXES, ".arrow"})  # state.json holds the fingerprint of their content

    def rows(self) -> Iterator[Found | Bad]:
        """One row per row of every split."""
        self.check_layout()
        from datasets import Audio, DatasetDict, load_from_disk

        try:
            loaded = load_from_disk(str(self.folder))
        except Exception as error:  # datasets raises whatever a broken file makes it stumble over
            raise InputError(
                f"corpus.path={self.config.path!r} cannot be opened by datasets ({type(error).__name__}: {error}): "
                "save it anew with save_to_disk"
            ) from None
        splits = dict(loaded) if isinstance(loaded, DatasetDict) else {"train": loaded}
        for name in sorted(splits):
            dataset = splits[name]
            column = self._audio_column(dataset.features)
            for number, row in enumerate(dataset.cast_column(column, Audio(decode=False))):
                yield self._row(name, number, row, column)

    def _audio_column(self, features: Any) -> str:
        from datasets import Audio

        columns = [name for name, feature in features.items() if isinstance(feature, Audio)]
        wanted = self.config.audio_column
        if wanted in columns or (wanted is None and len(columns) == 1):
            return str(wanted or columns[0])
        seen = f"column {wanted!r} of type Audio" if wanted else "one column of type Audio"
        error = self.unlike([f"{seen} (found {', '.join(columns) or 'none'} among {', '.join(features)})"])
        raise type(error)(f"{error}\nor choose with corpus.audio_column")

    def _row(self, split: str, number: int, row: dict[str, Any], column: str) -> Found | Bad:
        audio = row.pop(column) or {}
        name = f"{split}/{number:08d}"
        content, path = audio.get("bytes"), audio.get("path") or ""
        rest = json.loads(json.dumps(row, default=str))  # dates and arrays have no JSON form
        own = rest.pop("id", None)
        fields = {"id": name if own in (None, "") else own, "split": split_of(split), **rest}
        if content is not None:
            return Found({**fields, "audio_filepath": name + PurePosixPath(path).suffix}, bytes(content))
        if path:
            return Found({**fields, "audio_filepath": str(Path(path).absolute())})
        return Bad.of(str(fields["id"]), None, "empty", f"column {column!r} has neither bytes nor a path")
