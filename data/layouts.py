"""How the codes of several codebooks become one sequence, and back: frame-major, and the delay pattern.

Shapes: T = frames, K = codebooks, L = codes in sequence order (T * K), S = steps of the delay pattern (T + K - 1).

Each inverse takes what a language model may have written, not only what was laid out: codes that make no whole frame
are dropped, and how many is returned beside the codes.
"""

import numpy as np


def frame_major(codes_TK: np.ndarray) -> np.ndarray:
    """Codes (L,): all codebooks of frame 0, then those of frame 1, … (AnyGPT, Zhan et al. 2024, for music)."""
    return _frames(codes_TK).reshape(-1)


def from_frame_major(codes_L: np.ndarray, num_codebooks: int) -> tuple[np.ndarray, int]:
    """Codes (T, K) of a frame-major sequence, and how many codes of a ragged last frame were dropped."""
    codes_L = np.asarray(codes_L).reshape(-1)
    num_frames, dropped = divmod(codes_L.size, num_codebooks)
    return codes_L[: num_frames * num_codebooks].reshape(num_frames, num_codebooks), dropped


def delay(codes_TK: np.ndarray, pad_code: int) -> np.ndarray:
    """Codes (S, K): codebook k shifted by k steps, `pad_code` where there is no code; no frame gives no step.

    The delay pattern of MusicGen (Copet et al. 2023, section 2.2): a step holds codebook k of frame s - k, so that all
    of its codes can be predicted at once from the steps before. Raises ValueError where `pad_code` is itself a code.
    """
    codes_TK = _frames(codes_TK)
    if (codes_TK == pad_code).any():
        raise ValueError(f"pad_code {pad_code} occurs among the codes: choose one outside the codebooks")
    num_frames, num_codebooks = codes_TK.shape
    num_steps = num_frames + num_codebooks - 1 if num_frames else 0
    delayed_SK = np.full((num_steps, num_codebooks), pad_code, dtype=codes_TK.dtype)
    for k in range(num_codebooks if num_frames else 0):
        delayed_SK[k : k + num_frames, k] = codes_TK[:, k]
    return delayed_SK


def from_delay(delayed_SK: np.ndarray, pad_code: int) -> tuple[np.ndarray, int]:
    """Codes (T, K) of a delay pattern, and how many codes outside of its whole frames were dropped.

    The frames end before the first one that lacks a code, so a sequence that was cut keeps all it can.
    """
    delayed_SK = _frames(delayed_SK)
    num_steps, num_codebooks = delayed_SK.shape
    length = max(0, num_steps - num_codebooks + 1)
    aligned_TK = np.stack([delayed_SK[k : k + length, k] for k in range(num_codebooks)], axis=1)
    ragged_T = (aligned_TK == pad_code).any(axis=1)
    num_frames = int(ragged_T.argmax()) if ragged_T.any() else length
    return aligned_TK[:num_frames], int((delayed_SK != pad_code).sum()) - num_frames * num_codebooks


def _frames(codes_TK: np.ndarray) -> np.ndarray:
    codes_TK = np.asarray(codes_TK)
    if codes_TK.ndim != 2 or not codes_TK.shape[1]:
        raise ValueError(f"codes have shape {codes_TK.shape}, expected (frames, codebooks)")
    return codes_TK
