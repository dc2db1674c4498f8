"""Benchmark tasks by name. A new one is one module and one entry here."""

from eval.tasks import asr, chain, music, tts
from eval.tasks.base import Task

TASKS: dict[str, Task] = {"asr": asr, "tts": tts, "music": music, "chain": chain}
