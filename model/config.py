"""Configuration of everything that has weights."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from data.frozen import Frozen


class DedupCompression(Frozen):
    """Runs of equal units as one code; how long they were is kept beside the codes."""

    kind: Literal["dedup"]


class _Merges(Frozen):
    dedup: bool = Field(False, description="deduplicate before merging: the codes alone then lose the durations")
    max_piece_units: int = Field(16, ge=2, description="units of the longest piece")
    max_codes: int = Field(1_000_000, ge=1, description="training units the pieces are fitted on, at most")


class BpeCompression(_Merges):
    """Byte pair encoding over units (Sennrich et al. 2016)."""

    kind: Literal["bpe"]
    vocabulary_size: int = Field(1000, ge=3, le=32767, description="single units and merged pieces together")


class UnigramCompression(_Merges):
    """A unigram model of pieces over units (Kudo 2018)."""

    kind: Literal["unigram"]
    vocabulary_size: int = Field(5000, ge=3, le=32767, description="single units and merged pieces together")


CompressionConfig = Annotated[DedupCompression | BpeCompression | UnigramCompression, Field(discriminator="kind")]


def loses_durations(compression: DedupCompression | BpeCompression | UnigramCompression) -> bool:
    """Whether the compressed codes alone do not say how long each unit lasts."""
    return isinstance(compression, DedupCompression) or compression.dedup


class CompressibleUnits(Frozen):
    """Units of one codebook, which the token store may hold compressed."""

    compression: CompressionConfig | None = Field(None, description="dedup, bpe or unigram; null stores every frame")


class KMeansUnits(CompressibleUnits):
    """MFCC k-means units: one codebook over mean- and variance-normalised cepstra."""

    kind: Literal["kmeans_units"]
    sample_rate: int = Field(16000, description="Hz")
    frame_rate_hz: float = Field(25.0, gt=0, description="units per second")
    codebook_size: int = Field(200, ge=2, le=32768, description="number of clusters")
    iterations: int = Field(30, ge=1, description="Lloyd iterations at most")
    max_frames: int = Field(100_000, ge=1, description="frames sampled for the fit")


class ResidualKMeans(Frozen):
    """Residual k-means over log-mel frames: several codebooks, decodable to audio."""

    kind: Literal["residual_kmeans"]
    sample_rate: int = Field(16000, description="Hz")
    frame_rate_hz: float = Field(25.0, gt=0, description="frames per second")
    num_codebooks: int = Field(4, ge=1, description="codes per frame")
    codebook_size: int = Field(256, ge=2, le=32768, description="clusters per codebook")
    iterations: int = Field(20, ge=1, description="Lloyd iterations at most")
    max_frames: int = Field(100_000, ge=1, description="frames sampled for the fit")


class SslUnits(CompressibleUnits):
    """Units of a self-supervised encoder's layer: k-means over HuBERT, WavLM, wav2vec 2.0 or data2vec features."""

    kind: Literal["ssl_units"]
    path: str = Field(description="folder, URL or hub id of the encoder, with safetensors weights")
    revision: str | None = Field(None, description="the commit of a hub id, which needs one")
    layer: int = Field(ge=1, description="layer whose output is quantised; the first transformer layer is 1")
    codebook_size: int = Field(500, ge=2, le=32768, description="number of clusters")
    kmeans_path: str | None = Field(None, description="safetensors file with 'centroids' (K, D); null fits them here")
    sample_rate: int = Field(16000, description="Hz; what the encoder hears")
    normalize: bool | None = Field(
        None, description="whether each recording gets mean 0 and variance 1; null: what the feature extractor says"
    )
    chunk_s: float = Field(30.0, gt=0, description="longer recordings are encoded in overlapping chunks of this length")
    overlap_s: float = Field(2.0, ge=0, description="overlap of neighbouring chunks")
    dtype: Literal["auto", "bf16", "fp32"] = Field("auto", description="auto: bf16 on a GPU, fp32 on a CPU")
    batch_s: float | None = Field(
        None,
        gt=0,
        description="padded audio of a forward pass, of at most tokenize.batch_seconds; null: 320 s on a GPU, 5 s on a "
        "CPU",
    )
    iterations: int = Field(50, ge=1, description="Lloyd iterations at most")
    max_frames: int = Field(500_000, ge=1, description="frames sampled for the fit; the workers share and keep them")
    frame_share: float = Field(
        0.5, gt=0, le=1, description="share of an utterance's frames in the sample; less means more utterances"
    )

    @model_validator(mode="after")
    def _chunks_move_on(self) -> "SslUnits":
        if self.overlap_s >= self.chunk_s:
            raise ValueError(f"overlap_s is {self.overlap_s:g}, expected less than chunk_s, which is {self.chunk_s:g}")
        return self


class PitchVQ(Frozen):
    """Pitch codes: a small VQ-VAE over speaker-normalised log-F0 contours."""

    kind: Literal["pitch_vq"]
    sample_rate: int = Field(16000, description="Hz")
    frame_rate_hz: float = Field(12.5, gt=0, description="codes per second")
    codebook_size: int = Field(64, ge=2, le=32768, description="codes")
    min_hz: float = Field(60.0, gt=0, description="lowest F0 looked for")
    max_hz: float = Field(500.0, gt=0, description="highest F0 looked for")
    channels: int = Field(32, ge=4)
    steps: int = Field(500, ge=1, description="steps of the VQ-VAE's training")
    batch_size: int = Field(32, ge=1, description="crops of one step")
    crop_codes: int = Field(24, ge=1, description="codes of one training crop")
    lr: float = Field(2e-3, gt=0)
    max_frames: int = Field(200_000, ge=1, description="frames (100 Hz) of training contours")

    @model_validator(mode="after")
    def _band_is_one(self) -> "PitchVQ":
        if not self.min_hz < self.max_hz <= self.sample_rate / 2:
            raise ValueError(f"min_hz {self.min_hz:g} and max_hz {self.max_hz:g} are no band below sample_rate / 2")
        return self


class Style(Frozen):
    """Style codes: k-means over speaker-normalised statistics of whole seconds."""

    kind: Literal["style"]
    sample_rate: int = Field(16000, description="Hz")
    frame_rate_hz: float = Field(1.0, gt=0, description="codes per second; it divides 100")
    codebook_size: int = Field(100, ge=2, le=32768, description="number of clusters")
    iterations: int = Field(30, ge=1, description="Lloyd iterations at most")
    max_frames: int = Field(20_000, ge=1, description="frames (frame_rate_hz) sampled for the fit")


class NeuralCodec(Frozen):
    """Codes of EnCodec, Mimi, DAC or X-codec through transformers; the family is read off the model's config.json."""

    kind: Literal["neural_codec"]
    path: str = Field(description="folder, URL or hub id of the codec, with safetensors weights")
    revision: str | None = Field(None, description="the commit of a hub id, which needs one")
    codebooks: tuple[int, ...] | None = Field(
        None, description="which of the codec's codebooks form this stream, ascending; null takes all"
    )


class SpeechTokenizerUnits(Frozen):
    """Codes of SpeechTokenizer: codebook 0 is semantic, the others acoustic."""

    kind: Literal["speech_tokenizer"]
    path: str = Field(description="folder or URL with config.json and safetensors, made by python -m model.convert")
    codebooks: tuple[int, ...] | None = Field(
        None, description="which codebooks form this stream, ascending: [0] semantic, [1, ..., 7] acoustic; null: all"
    )


# Kinds that are fitted on whole utterances and who speaks in them.
UtterancesConfig = PitchVQ | Style
# Kinds that are fitted on frames which their class' `features_of` makes of one wave.
FramesConfig = KMeansUnits | ResidualKMeans
AudioTokenizerConfig = Annotated[
    KMeansUnits | ResidualKMeans | SslUnits | PitchVQ | Style | NeuralCodec | SpeechTokenizerUnits,
    Field(discriminator="kind"),
]


NewRows = Literal["mean", "mean_covariance", "random"]


class LanguageModelConfig(Frozen):
    """Shape of a Llama made from scratch, or the folder of a pretrained one."""

    path: str | None = Field(None, description="folder or hub id to start from; null makes a new model")
    new_rows: NewRows = Field(
        "mean_covariance",
        description="how a pretrained model's embedding rows of new ids are drawn: at the mean of the known rows, "
        "from their normal distribution, or around zero",
    )
    rope_theta: float | None = Field(
        None,
        gt=0,
        description="base of the rotary positions of a pretrained model; null: as it was trained",
        json_schema_extra={"absent_when_default": True},
    )
    hidden_size: int = Field(192, ge=8)
    num_layers: int = Field(4, ge=1)
    num_heads: int = Field(4, ge=1)
    intermediate_size: int = Field(512, ge=8)
    max_positions: int = Field(2048, ge=16)


class VocoderConfig(Frozen):
    """train_vocoder: units and a speaker -> log-mel -> waveform."""

    kind: Literal["unit_mel"] = "unit_mel"
    sample_rate: int = Field(16000, description="Hz")
    steps: int = Field(1500, ge=1)
    batch_size: int = Field(16, ge=1)
    crop_codes: int = Field(40, ge=1, description="codes of one training example; a shorter utterance is used whole")
    max_utterances: int = Field(4000, ge=1, description="training utterances at most, drawn by the seed")
    lr: float = Field(1e-3, gt=0)
    channels: int = Field(192, ge=8)
    griffin_lim_iterations: int = Field(40, ge=1)


class ClapConfig(Frozen):
    """fit_judges: a dual encoder that scores music against captions, with clips and a seed of its own."""

    steps: int = Field(600, ge=1)
    batch_size: int = Field(32, ge=2)
    lr: float = Field(2e-3, gt=0)
    train_clips: int = Field(600, ge=2, description="clips synthesised for the judge alone")
    seed: int = Field(90210, description="its own: the judge never sees the corpus' clips")
