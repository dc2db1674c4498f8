"""Configuration of corpora that are brought: one class per `kind`, on one common base."""

from typing import Annotated, Any, Literal

from pydantic import Field

from data.corpus.steps_config import CtcAlignment, VadSegmentation
from data.frozen import Frozen, placement


class BroughtCorpus(Frozen):
    """What every corpus that is not made here has in common."""

    kind: str
    fields: dict[str, str] = Field(
        {}, description="renames: our field -> the corpus' own, e.g. {text: transcription}; '' for none"
    )
    test: dict[str, list[Any]] = Field({}, description="hold out for testing: field -> values, e.g. {take: [8, 9]}")
    dev: dict[str, list[Any]] = Field({}, description="hold out for development, same form")
    normalize_text: bool = Field(False, description="lower-case the texts and drop punctuation but the apostrophe")
    check: Literal["none", "metadata", "decode"] = Field(
        "none",
        description="what prepare looks at: none: the listing alone; metadata: file headers as well; decode: all of "
        "the audio. What fails is quarantined, and lengths that the corpus leaves open are filled in",
    )
    check_workers: int = placement(2, "threads (metadata) or processes (decode) of the check", ge=1)
    alignment: CtcAlignment | None = Field(None, description="find word times where the corpus has none")
    segmentation: VadSegmentation | None = Field(None, description="cut long recordings; after the alignment")
    step_workers: int = placement(2, "workers that align and cut", ge=1)


class ManifestCorpus(BroughtCorpus):
    """Any JSONL manifest of recordings."""

    kind: Literal["manifest"]
    manifest: str = Field(description="path or URL of a JSONL manifest, one utterance a line (NeMo's names)")


class FolderCorpus(BroughtCorpus):
    """A corpus in a folder."""

    path: str = Field(description="folder of the corpus, as its publisher unpacks it")
    check: Literal["none", "metadata", "decode"] = Field(
        "metadata", description=BroughtCorpus.model_fields["check"].description
    )


class LibriSpeechCorpus(FolderCorpus):
    """LibriSpeech and Mini LibriSpeech (https://www.openslr.org/12, /31)."""

    kind: Literal["librispeech"]
    parts: tuple[str, ...] = Field((), description="parts such as train-clean-100; empty: all that are there")


class LibriLightCorpus(FolderCorpus):
    """Libri-Light (Kahn et al. 2019, arXiv 1912.07875)."""

    kind: Literal["librilight"]
    parts: tuple[str, ...] = Field((), description="folders such as small, medium; empty: all that are there")
    utterances: Literal["voice_activity", "recording"] = Field(
        "voice_activity", description="one utterance per stretch of speech as published, or per recording"
    )


class MlsCorpus(FolderCorpus):
    """Multilingual LibriSpeech (Pratap et al. 2020, arXiv 2012.03411)."""

    kind: Literal["mls"]
    languages: tuple[str, ...] = Field((), description="names such as polish; empty: all that are there")


class CommonVoiceCorpus(FolderCorpus):
    """Mozilla Common Voice (Ardila et al. 2019, arXiv 1912.06670)."""

    kind: Literal["commonvoice"]
    languages: tuple[str, ...] = Field((), description="codes such as pl; empty: all that are there")
    tables: tuple[str, ...] = Field(
        ("test", "dev", "train"), description="tables to read: train, dev, test, validated, other, …"
    )


class GigaSpeechCorpus(FolderCorpus):
    """GigaSpeech (Chen et al. 2021, arXiv 2106.06909)."""

    kind: Literal["gigaspeech"]
    subsets: tuple[str, ...] = Field(("XL", "DEV", "TEST"), description="subsets: XS, S, M, L, XL, DEV, TEST")


class VctkCorpus(FolderCorpus):
    """CSTR VCTK 0.80 and 0.92 (Yamagishi et al. 2019)."""

    kind: Literal["vctk"]
    microphone: Literal["mic1", "mic2"] = Field("mic1", description="which of the two of version 0.92")


class LjSpeechCorpus(FolderCorpus):
    """LJ Speech (Ito and Johnson 2017)."""

    kind: Literal["ljspeech"]


class MusicCapsCorpus(FolderCorpus):
    """MusicCaps (Agostinelli et al. 2023, arXiv 2301.11325): captions of ten-second clips that users fetch."""

    kind: Literal["musiccaps"]
    audio: Literal["clips", "whole"] = Field(
        "clips", description="clips: files hold the ten seconds alone; whole: the soundtrack they were taken from"
    )


class AudioFolderCorpus(FolderCorpus):
    """Hugging Face `audiofolder`: audio files, and metadata.csv, .jsonl or .parquet with `file_name`."""

    kind: Literal["audiofolder"]


class HfDatasetCorpus(FolderCorpus):
    """A Hugging Face dataset or dataset dictionary saved with `save_to_disk`."""

    kind: Literal["hf_dataset"]
    audio_column: str | None = Field(None, description="the column of audio; needed where there are several")


class WebDatasetCorpus(FolderCorpus):
    """WebDataset tars: files that share a name up to its first dot are one sample."""

    kind: Literal["webdataset"]


class KaldiCorpus(FolderCorpus):
    """A Kaldi data folder (wav.scp), or a folder of several."""

    kind: Literal["kaldi"]


class LhotseCorpus(FolderCorpus):
    """Lhotse cuts: a .jsonl or .jsonl.gz, or a folder of such files with `cuts` in their names."""

    kind: Literal["lhotse"]


FolderCorpusConfig = (
    LibriSpeechCorpus
    | LibriLightCorpus
    | MlsCorpus
    | CommonVoiceCorpus
    | GigaSpeechCorpus
    | VctkCorpus
    | LjSpeechCorpus
    | MusicCapsCorpus
    | AudioFolderCorpus
    | HfDatasetCorpus
    | WebDatasetCorpus
    | KaldiCorpus
    | LhotseCorpus
)
BroughtCorpusConfig = ManifestCorpus | FolderCorpusConfig


class SeveralCorpora(Frozen):
    """Corpora that are trained on together. Of equal ids the first is kept, in the order of the corpora's names."""

    kind: Literal["several"]
    corpora: dict[str, Annotated[BroughtCorpusConfig, Field(discriminator="kind")]] = Field(
        min_length=1, description="name -> corpus, each as `corpus` has it; utterances get the name as field `corpus`"
    )
