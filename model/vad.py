"""Voice activity: how likely each 32 ms of a recording hold speech, by Silero VAD (Silero team 2024, MIT licence).

The weights lie in the wheel of `silero-vad`, as safetensors; the network is built here, so that the convolutions of
many windows run at once, and nothing of that package, which sets threads of the whole process, is imported.
Shapes: N samples, W windows, F bins, H hidden.
"""

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from data.errors import InputError

SAMPLE_RATE = 16000
WINDOW_SAMPLES = 512
WINDOW_RATE_HZ = SAMPLE_RATE / WINDOW_SAMPLES
_CONTEXT_SAMPLES = 64  # of the window before
_BINS, _HIDDEN = 129, 128
_STRIDES = (1, 2, 2, 1)
_WINDOWS_AT_ONCE = 1024  # fixed: results do not hang on how the audio arrives


class VoiceActivity(nn.Module):
    """The detector for 16 kHz audio."""

    def __init__(self) -> None:
        super().__init__()
        channels = (_BINS, 128, 64, 64, _HIDDEN)
        self.stft_conv = nn.Conv1d(1, 2 * _BINS, 256, stride=128, bias=False)
        for index, stride in enumerate(_STRIDES):
            self.add_module(f"conv{index + 1}", nn.Conv1d(channels[index], channels[index + 1], 3, stride, padding=1))
        self.lstm = nn.LSTM(_HIDDEN, _HIDDEN)
        self.final_conv = nn.Conv1d(_HIDDEN, 1, 1)

    @classmethod
    def from_wheel(cls) -> "VoiceActivity":
        """The published detector. Raises InputError where the package is not installed."""
        found = find_spec("silero_vad")
        if found is None or found.origin is None:
            raise InputError("corpus.segmentation.kind='vad' needs the package silero-vad: pip install silero-vad")
        weights = load_file(str(Path(found.origin).parent / "data" / "silero_vad_16k.safetensors"))
        model = cls()
        model.load_state_dict({_torch_name(name): tensor for name, tensor in weights.items()})
        return model.eval().requires_grad_(False)

    @torch.inference_mode()
    def probabilities(self, blocks: Iterable[np.ndarray]) -> tuple[np.ndarray, int]:
        """Probabilities (W,) of a recording at 16 kHz that comes in blocks (n,), and its number of samples N.

        Memory grows by 4 bytes a window. The last window is filled up with zeros.
        """
        state: tuple[torch.Tensor, torch.Tensor] | None = None
        context_N = np.zeros(_CONTEXT_SAMPLES, np.float32)
        found: list[np.ndarray] = [np.zeros(0, np.float32)]
        num_samples = 0
        for wave_N in _even_blocks(blocks, WINDOW_SAMPLES * _WINDOWS_AT_ONCE):
            num_samples += len(wave_N)
            filled_N = np.pad(wave_N, (0, -len(wave_N) % WINDOW_SAMPLES))
            samples_N = torch.from_numpy(np.concatenate([context_N, filled_N]))
            context_N = filled_N[-_CONTEXT_SAMPLES:]
            probability_W, state = self(samples_N, state)
            found.append(probability_W.numpy())
        return np.concatenate(found), num_samples

    def forward(
        self, samples_N: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Probabilities (W,) of whole windows with the context of the first before them, and the state after."""
        windows_WN = samples_N.unfold(0, _CONTEXT_SAMPLES + WINDOW_SAMPLES, WINDOW_SAMPLES)
        padded_W1N = nn.functional.pad(windows_WN[:, None], (0, 64), mode="reflect")
        parts_W2FT = self.stft_conv(padded_W1N).unflatten(1, (2, _BINS))
        hidden = parts_W2FT.square().sum(1).sqrt()
        for index in range(len(_STRIDES)):
            hidden = self.get_submodule(f"conv{index + 1}")(hidden).relu()
        output_W1H, state = self.lstm(hidden.transpose(1, 2), state)
        return torch.sigmoid(self.final_conv(output_W1H.relu().transpose(1, 2))).reshape(-1), state


def _torch_name(name: str) -> str:
    return f"{name.replace('lstm_cell', 'lstm')}_l0" if name.startswith("lstm_cell") else name


def _even_blocks(blocks: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same samples in blocks of `size`, the last one shorter."""
    waiting: list[np.ndarray] = []
    count = 0
    for block in blocks:
        waiting.append(block)
        count += len(block)
        while count >= size:
            whole = np.concatenate(waiting)
            yield whole[:size]
            waiting, count = [whole[size:]], count - size
    if count:
        yield np.concatenate(waiting)
