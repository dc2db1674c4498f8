"""Where a GPU is: the job against the most that the encoder alone does on it, both in bfloat16.

Shapes: B = clips of a batch, N = samples.
"""

import os
import time
from collections.abc import Callable
from typing import Any

from benchmarks.recordings import workload, write_workload
from benchmarks.tokenize_job import run_command_line, tokenize
from benchmarks.tokenize_setup import write_recipe
from data import storage
from data.manifest import Utterance

RATE_HZ = 16000
BATCH, CLIP_S, PASSES = 32, 10, 10
AUDIO_S, SHARD_UTTERANCES = 4 * 3600.0, 64
DECODING_CPUS = 8


def measure_gpu(folder: str, recordings: list[Utterance], tokenizer: dict[str, Any]) -> dict[str, Any]:
    """x real time of the job and its share of the encoder's own peak; a note instead where no GPU is visible."""
    import torch

    if not torch.cuda.is_available():
        return {"skipped": "no GPU is visible: nothing was measured on one"}
    manifest = write_workload(storage.join(folder, "gpu.jsonl"), workload(recordings, AUDIO_S))
    runs_dir = storage.join(folder, "gpu-runs")
    on_gpu = {**tokenizer, "dtype": "bf16"}
    recipe = write_recipe(storage.join(folder, "gpu.yaml"), runs_dir, manifest, on_gpu, SHARD_UTTERANCES)
    cpus = max(1, min(DECODING_CPUS, (os.cpu_count() or 1) - 1))
    settings = ["tokenize.num_gpus=1", f"tokenize.num_cpus={cpus}", "tokenize.batch_seconds=320"]
    run_command_line("fit_tokenizer", recipe, settings, on_gpu=True)
    job = tokenize(recipe, 1, settings, gpu=True)
    peak = encoder_peak(str(tokenizer["path"]))
    return {
        "device": torch.cuda.get_device_name(),
        "x_real_time": job.rate,
        "encoder_peak_x_real_time": peak,
        "share_of_encoder_peak": job.rate / peak,
    }


def encoder_peak(path: str) -> float:
    """x real time of the bare encoder on waves that lie on the GPU, all of one length: the best of several passes."""
    import torch
    from transformers import HubertModel

    model = HubertModel.from_pretrained(path, dtype=torch.bfloat16).eval().cuda()
    wave_BN = torch.randn(BATCH, CLIP_S * RATE_HZ, device="cuda", dtype=torch.bfloat16)

    def encode() -> None:
        with torch.inference_mode():
            model(wave_BN)
        torch.cuda.synchronize()

    encode()
    fastest_s = min(_seconds(encode) for _ in range(PASSES))
    return BATCH * CLIP_S / fastest_s


def _seconds(act: Callable[[], None]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started
