"""Features of a self-supervised speech encoder (HuBERT, mHuBERT, WavLM, wav2vec 2.0, data2vec) at one of its layers.

Shapes: N = samples, T = frames, D = features, B = clips of a batch.

Only the transformer sees padding, and only behind a mask. Everything before it that mixes frames treats each clip as if
it were alone: a front end with group norm (its statistics run over time), positional convolutions of more than one
layer, and those followed by a batch norm (zeros would not stay zeros). So a clip's features do not depend on its batch
beyond the rounding of the device's matrix products.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch.nn.utils import parametrize

from data.errors import InputError

MODEL_TYPES = ("hubert", "wavlm", "wav2vec2", "data2vec-audio")
_VARIANCE_FLOOR = 1e-7


@dataclass(frozen=True)
class ConvShape:
    """Kernels and strides of a convolutional front end without padding."""

    kernels: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def hop_samples(self) -> int:
        """Samples between frames."""
        return math.prod(self.strides)

    @property
    def field_samples(self) -> int:
        """Samples that one frame sees."""
        field, step = 1, 1
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            field += (kernel - 1) * step
            step *= stride
        return field

    def frames(self, num_samples: int) -> int:
        """Frames of a clip; 0 where it is shorter than one field."""
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            num_samples = max(0, (num_samples - kernel) // stride + 1)
        return num_samples


class SslEncoder:
    """The layers 1 to `layer` of a loaded model; `layer` outputs come without the final norm of pre-norm models."""

    def __init__(self, model: Any, layer: int) -> None:
        self.model = model.eval()
        self.layer = layer
        config = model.config
        self.conv = ConvShape(tuple(config.conv_kernel), tuple(config.conv_stride))
        self.dimension = int(config.hidden_size)
        self._post_norm = not getattr(config, "do_stable_layer_norm", False)
        self._per_clip_positions = config.model_type == "data2vec-audio" or getattr(
            config, "conv_pos_batch_norm", False
        )
        # Norms over the channels of a frame leave it alone; group norm runs over time.
        self.may_pad_front_end = config.model_type == "data2vec-audio" or config.feat_extract_norm == "layer"
        self.pad_front_end = self.may_pad_front_end and self.device.type != "cpu"  # there padding only costs time

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.model.device

    @torch.inference_mode()
    def features(self, waves: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """Features (T, D) on the device of float waves (N,) that each hold at least one field of samples."""
        frames = self._front_end([torch.from_numpy(np.ascontiguousarray(wave_N)) for wave_N in waves])
        lengths = [len(frames_TD) for frames_TD in frames]
        hidden_BTD = torch.nn.utils.rnn.pad_sequence(frames, batch_first=True)
        hidden_BTD = self._transform(hidden_BTD, lengths)
        return [hidden_TD[:length] for hidden_TD, length in zip(hidden_BTD, lengths, strict=True)]

    def _front_end(self, waves: list[torch.Tensor]) -> list[torch.Tensor]:
        """Frames (T, D) of waves (N,): in groups of equal length, or padded where that does no harm."""
        groups: dict[int, list[int]] = {}
        for i, wave_N in enumerate(waves):
            groups.setdefault(0 if self.pad_front_end else len(wave_N), []).append(i)
        frames: list[torch.Tensor] = [torch.empty(0)] * len(waves)
        for members in groups.values():
            group_BN = torch.nn.utils.rnn.pad_sequence([waves[i] for i in members], batch_first=True)
            group_BN = group_BN.to(self.device, self.model.dtype)
            projected = self.model.feature_projection(self.model.feature_extractor(group_BN).transpose(1, 2))
            # Hubert returns the projection alone, the others the frames before it as well
            group_BTD = projected if isinstance(projected, torch.Tensor) else projected[0]
            for row_TD, i in zip(group_BTD, members, strict=True):
                frames[i] = row_TD[: self.conv.frames(len(waves[i]))]
        return frames

    def _transform(self, hidden_BTD: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        encoder = self.model.encoder
        hidden_BTD = hidden_BTD + self._positions(hidden_BTD, lengths)
        if self._post_norm:
            hidden_BTD = encoder.layer_norm(hidden_BTD)
        places_T = torch.arange(hidden_BTD.shape[1], device=self.device)
        real_BT = places_T < torch.tensor(lengths, device=self.device)[:, None]
        mask_BT = None if min(lengths) == max(lengths) else real_BT
        if self.model.config.model_type == "wavlm":
            return self._wavlm_layers(hidden_BTD, mask_BT)
        mask_B11T = None if mask_BT is None else mask_BT[:, None, None]
        for layer in encoder.layers[: self.layer]:
            hidden_BTD = layer(hidden_BTD, attention_mask=mask_B11T)
        return hidden_BTD

    def _wavlm_layers(self, hidden_BTD: torch.Tensor, mask_BT: torch.Tensor | None) -> torch.Tensor:
        """WavLM hands its relative positions from layer to layer and takes the mask as it is."""
        bias = None
        for index, layer in enumerate(self.model.encoder.layers[: self.layer]):
            hidden_BTD, bias = layer(hidden_BTD, attention_mask=mask_BT, position_bias=bias, index=index)
        return hidden_BTD

    def _positions(self, hidden_BTD: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        """Positional embedding; beyond a clip's end its convolution sees zeros, as it would at the end of a batch."""
        embed = self.model.encoder.pos_conv_embed
        if not self._per_clip_positions or min(lengths) == max(lengths):
            return embed(hidden_BTD)
        rows = [embed(row_TD[None, :length])[0] for row_TD, length in zip(hidden_BTD, lengths, strict=True)]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def load_ssl_encoder(
    path: str, revision: str | None, layer: int, dtype: torch.dtype, device: torch.device
) -> SslEncoder:
    """The encoder at a local folder or hub id, cut after `layer`; safetensors only.

    Raises InputError for a model of another type, a layer it does not have, and weights that are incomplete.
    """
    from transformers import AutoModel
    from transformers.utils import logging as transformers_logging

    config = read_encoder_config(path, revision, layer)
    config.num_hidden_layers = layer
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # the layers that are cut off would be listed as unexpected
    try:
        model, loaded = AutoModel.from_pretrained(
            path,
            revision=revision,
            config=config,
            dtype=dtype,
            attn_implementation="eager" if config.model_type == "wavlm" else "sdpa",
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, SafetensorError) as error:  # the second: cut, or a pointer of git lfs
        raise InputError(
            f"{path!r} holds no model.safetensors that can be read: convert its weights first ({error})"
        ) from None
    finally:
        transformers_logging.set_verbosity(verbosity)
    missing = sorted(key for key in loaded["missing_keys"] if "masked_spec_embed" not in key)
    if missing or loaded["mismatched_keys"]:
        raise InputError(f"the weights of {path!r} lack {', '.join(missing[:3]) or 'tensors of the right shape'}")
    _settle_weight_norm(model)
    return SslEncoder(model.to(device), layer)


def _settle_weight_norm(model: Any) -> None:
    """Compute normed weights once; they would be computed anew at every call."""
    for module in model.modules():
        if isinstance(module, torch.nn.Conv1d) and parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")


def read_encoder_config(path: str, revision: str | None, layer: int) -> Any:
    """The transformers configuration of an encoder. Raises InputError as `load_ssl_encoder` does."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(path, revision=revision)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path!r} holds no config.json of an encoder: {str(error).splitlines()[0]} "
            f"(known are {', '.join(MODEL_TYPES)})"
        ) from None
    if config.model_type not in MODEL_TYPES:
        raise InputError(f"{path!r} is a {config.model_type!r} model, expected one of {', '.join(MODEL_TYPES)}")
    if not 1 <= layer <= config.num_hidden_layers:
        raise InputError(f"layer is {layer}, but {path!r} has layers 1 to {config.num_hidden_layers}")
    return config


def read_front_settings(path: str, revision: str | None) -> dict[str, Any]:
    """`sampling_rate` and `do_normalize` of the model's preprocessor_config.json, or what transformers assumes."""
    from transformers import AutoFeatureExtractor, Wav2Vec2FeatureExtractor

    try:
        extractor = AutoFeatureExtractor.from_pretrained(path, revision=revision)
    except (OSError, ValueError):  # none there: the class that all these models share has defaults
        extractor = Wav2Vec2FeatureExtractor()
    return {"sampling_rate": int(extractor.sampling_rate), "do_normalize": bool(extractor.do_normalize)}


def normalised(wave_N: np.ndarray) -> np.ndarray:
    """float64 samples of mean 0 and variance 1, as the feature extractors of these models make them."""
    wave_N = np.asarray(wave_N, dtype=np.float64)
    return (wave_N - wave_N.mean()) / np.sqrt(wave_N.var() + _VARIANCE_FLOOR)
