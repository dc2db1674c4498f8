"""EnCodec, Mimi, DAC and X-codec behind one face: a wave to codes, codes to a wave, one recording at a time.

EnCodec: Défossez et al. 2022; Mimi: Défossez et al. 2024 (Moshi); DAC: Kumar et al. 2023; X-codec: Ye et al. 2024. The
models are those of transformers.

Shapes: N = samples, T = frames, K = codebooks (1 = batch and channel).

Long recordings: the convolutions at the rate of the samples, which need nearly all of the memory, run in pieces
(finite_reach), and so do Mimi's sliding-window transformer and the quantisers. What grows with a recording are its
samples and its latents, which EnCodec's LSTM reads at once. X-codec's semantic model attends to the whole recording:
there `tokenize.max_duration_s` is the bound.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from safetensors import SafetensorError

from data.errors import InputError
from model.audio_tokenizers.finite_reach import in_pieces, reach_of

PIECE_S = 10.0
PIECE_FRAMES = 2000


class Codec(Protocol):
    """A codec of any family."""

    sample_rate: int
    hop_samples: int
    num_codebooks: int
    codebook_size: int

    def codes(self, wave_11N: torch.Tensor, num_codebooks: int) -> torch.Tensor:
        """The first codebooks, or a few more: (K, T), T = N / hop_samples rounded up."""
        ...

    def wave(self, codes_KT: torch.Tensor) -> torch.Tensor:
        """Samples (N,) of the codes of the first K codebooks."""
        ...


class Encodec:
    """A convolutional encoder with an LSTM, causal (24 kHz) or not (32 kHz)."""

    def __init__(self, model: Any) -> None:
        self.model, config = model, model.config
        if config.normalize or config.chunk_length_s or config.audio_channels != 1:
            raise InputError(
                "this EnCodec is stereo, or scales each second by its loudness (as encodec_48khz does), and the scales "
                "are no codes: take a model like encodec_24khz or encodec_32khz"
            )
        self.sample_rate, self.hop_samples = config.sampling_rate, config.hop_length
        self.num_codebooks, self.codebook_size = config.num_quantizers, config.codebook_size
        layers = list(model.encoder.layers)
        recurrent = next(i for i, layer in enumerate(layers) if hasattr(layer, "lstm"))
        self._front, self._back = torch.nn.Sequential(*layers[:recurrent]), torch.nn.Sequential(*layers[recurrent:])
        self._in_pieces = config.norm_type != "time_group_norm"  # whose statistics run over the whole recording

    def codes(self, wave_11N: torch.Tensor, num_codebooks: int) -> torch.Tensor:
        piece = round(PIECE_S * self.sample_rate) if self._in_pieces else wave_11N.shape[-1]
        hidden_1CT = in_pieces(self._front, wave_11N, self.hop_samples, reach_of(self._front), piece)
        bandwidth = _bandwidth(self.model, num_codebooks)
        return _by_frames(lambda part: self.model.quantizer.encode(part, bandwidth)[:, 0], self._back(hidden_1CT))

    def wave(self, codes_KT: torch.Tensor) -> torch.Tensor:
        return self.model.decode(codes_KT[None, None], [None]).audio_values[0, 0]


class Mimi:
    """A causal convolutional encoder, a causal transformer with a sliding window, and one more halving of the rate."""

    def __init__(self, model: Any) -> None:
        self.model, config = model, model.config
        if config.audio_channels != 1:
            raise InputError(f"this Mimi has {config.audio_channels} channels, expected 1")
        self.sample_rate, self.hop_samples = config.sampling_rate, round(config.sampling_rate / config.frame_rate)
        self.num_codebooks, self.codebook_size = config.num_quantizers, config.codebook_size
        self._front_hop = self.sample_rate // config.encodec_frame_rate
        self._window = config.num_hidden_layers * config.sliding_window

    def codes(self, wave_11N: torch.Tensor, num_codebooks: int) -> torch.Tensor:
        encoder = self.model.encoder
        front = encoder.encoder_seanet
        piece = round(PIECE_S * self.sample_rate)
        hidden_1CF = in_pieces(front, wave_11N, self._front_hop, reach_of([front]), piece)
        hidden_1CF = in_pieces(self._attend, hidden_1CF, 1, self._window, PIECE_FRAMES)
        latents_1CT = encoder.downsample(hidden_1CF) if encoder.downsample is not None else hidden_1CF
        enough = max(num_codebooks, self.model.config.num_semantic_quantizers)
        return _by_frames(lambda part: self.model.quantizer.encode(part, enough)[:, 0], latents_1CT)

    def _attend(self, hidden_1CF: torch.Tensor) -> torch.Tensor:
        # Positions are rotary, so that those of a piece may start at 0 as well.
        attended = self.model.encoder.encoder_transformer(hidden_1CF.transpose(1, 2), use_cache=False)
        return attended.last_hidden_state.transpose(1, 2)

    def wave(self, codes_KT: torch.Tensor) -> torch.Tensor:
        return self.model.decode(codes_KT[None]).audio_values[0, 0]


class Dac:
    """Convolutions alone; the recording is filled up with silence to a whole frame, as its feature extractor does."""

    def __init__(self, model: Any) -> None:
        self.model, config = model, model.config
        self.sample_rate, self.hop_samples = config.sampling_rate, config.hop_length
        self.num_codebooks, self.codebook_size = config.n_codebooks, config.codebook_size

    def codes(self, wave_11N: torch.Tensor, num_codebooks: int) -> torch.Tensor:
        front, piece = self.model.encoder, round(PIECE_S * self.sample_rate)
        wave_11N = _whole_frames(wave_11N, self.hop_samples)
        latents_1CT = in_pieces(front, wave_11N, self.hop_samples, reach_of([front]), piece)
        return _by_frames(lambda part: self.model.quantizer(part, num_codebooks)[1][0], latents_1CT)

    def wave(self, codes_KT: torch.Tensor) -> torch.Tensor:
        return self.model.decode(audio_codes=codes_KT[None]).audio_values[0]


class Xcodec:
    """DAC's convolutions beside a HuBERT or WavLM that attends to the whole recording."""

    def __init__(self, model: Any) -> None:
        self.model, config = model, model.config
        self.sample_rate, self.hop_samples = config.sample_rate, config.hop_length
        self.num_codebooks, self.codebook_size = config.num_quantizers, config.codebook_size

    def codes(self, wave_11N: torch.Tensor, num_codebooks: int) -> torch.Tensor:
        wave_11N = _whole_frames(wave_11N, self.hop_samples)
        return self.model.encode(wave_11N, _bandwidth(self.model, num_codebooks)).audio_codes[0]

    def wave(self, codes_KT: torch.Tensor) -> torch.Tensor:
        return self.model.decode(codes_KT[None]).audio_values[0, 0]


# model_type of config.json -> class of transformers, family
FAMILIES: dict[str, tuple[str, type]] = {
    "encodec": ("EncodecModel", Encodec),
    "mimi": ("MimiModel", Mimi),
    "dac": ("DacModel", Dac),
    "xcodec": ("XcodecModel", Xcodec),
}


def load_codec(path: str, revision: str | None) -> Codec:
    """The codec at a local folder or hub id, its family by the `model_type` of its config.json; safetensors only.

    Raises InputError for another family, weights that are missing or incomplete, and codecs that codes alone do not
    describe.
    """
    import transformers
    from transformers.utils import logging as transformers_logging

    try:
        config = transformers.AutoConfig.from_pretrained(path, revision=revision)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path!r} holds no config.json of a codec: {str(error).splitlines()[0]} (known are {', '.join(FAMILIES)})"
        ) from None
    if config.model_type not in FAMILIES:
        raise InputError(f"{path!r} is a model of type {config.model_type!r}, expected one of {', '.join(FAMILIES)}")
    name, family = FAMILIES[config.model_type]
    transformers_logging.disable_progress_bar()  # a job has its own lines of progress
    try:
        model, loaded = getattr(transformers, name).from_pretrained(
            path, revision=revision, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, SafetensorError) as error:  # the second: cut, or a pointer of git lfs
        raise InputError(
            f"{path!r} gives no safetensors ({str(error).splitlines()[0]}): fetch its weights and convert them, "
            "python -m model.convert SRC DST, then name DST"
        ) from None
    absent = sorted(loaded["missing_keys"])
    if absent or loaded["mismatched_keys"]:
        raise InputError(
            f"the weights of {path!r} lack {', '.join(absent[:3]) or 'tensors of the right shape'} "
            f"({len(absent)} missing): they are of another model than its config.json"
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return family(model.eval().to(device))


def _bandwidth(model: Any, num_codebooks: int) -> float:
    """The least of a model's bandwidths that gives `num_codebooks`."""
    choices = sorted(model.config.target_bandwidths)
    enough = (b for b in choices if model.quantizer.get_num_quantizers_for_bandwidth(b) >= num_codebooks)
    return next(enough, choices[-1])


def _by_frames(quantise: Callable[[torch.Tensor], torch.Tensor], latents_1CT: torch.Tensor) -> torch.Tensor:
    """Codes (K, T), some frames at a time: their scores against a codebook need more memory than they do."""
    return torch.cat([quantise(part) for part in latents_1CT.split(PIECE_FRAMES, dim=-1)], dim=-1)


def _whole_frames(wave_11N: torch.Tensor, hop_samples: int) -> torch.Tensor:
    return torch.nn.functional.pad(wave_11N, (0, -wave_11N.shape[-1] % hop_samples))
