"""Fixtures of the endpoint's tests."""

import numpy as np
import pytest

from tests.tiny_model import make_tiny_model_folder


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One tiny random model folder for the whole room."""
    return make_tiny_model_folder(tmp_path_factory.mktemp("model"))


def tone(duration_s: float, sample_rate: int = 16000, frequency_hz: float = 220.0) -> np.ndarray:
    """A sine."""
    time_N = np.arange(int(duration_s * sample_rate)) / sample_rate
    return (0.3 * np.sin(2 * np.pi * frequency_hz * time_N)).astype(np.float32)


@pytest.fixture(name="tone", scope="session")
def _tone():
    return tone
