"""Configuration of judges and evaluation."""

from pydantic import Field

from data.frozen import Frozen, placement
from model.config import ClapConfig


class JudgesConfig(Frozen):
    """Which judges score, and how they are fitted."""

    clap: ClapConfig | None = ClapConfig()
    recogniser: bool = Field(True, description="fit pocketsphinx' language model from training-text statistics")


class EvalConfig(Frozen):
    """run_eval: endpoint -> report."""

    tasks: tuple[str, ...] = Field(("asr", "tts", "music", "chain"), description="benchmark tasks to run")
    max_utterances: int | None = Field(None, ge=1, description="per condition; null for all of the test split")
    bootstrap_samples: int = Field(1000, ge=100)
    report_samples: int = Field(12, ge=0, description="samples with audio in report.html")
    concurrency: int = placement(8, "requests in flight", ge=1)
    num_workers: int = placement(2, "judge processes", ge=1)
    request_timeout_s: float = placement(120.0, "a slower answer counts as an error", gt=0)
