"""Plain loops over an encoder, each in a process of its own: the encoder alone, and the loop that people write.

    python -m benchmarks.tokenize_loops < request.json

Reads a request, loads, says "ready", waits for a line, runs, and prints {"audio_s", "wall_s"}: so several can begin
at one time.
Shapes: N = samples, B = clips of a batch, T = frames, D = features.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from data.manifest import Utterance, read_manifest

RATE_HZ = 16000
MAX_DURATION_S = 600.0
# One thread of a process, as a worker of the job has.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


def run_loops(requests: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Run loops at the same time, one process each; what every one of them has measured.

    A request is {"encoder": tokenizer's configuration, "manifest": path, "loop": "encoder" | "files", "batch": int}.
    """
    command = [sys.executable, "-m", "benchmarks.tokenize_loops"]
    environment = {**os.environ, **ONE_THREAD}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    processes = [subprocess.Popen(command, **pipes) for _ in requests]
    try:
        for process, request in zip(processes, requests, strict=True):
            _say(process, json.dumps(request))
        for process in processes:
            _hear(process)
        for process in processes:
            _say(process, "go")
        return [json.loads(_hear(process)) for process in processes]
    finally:
        for process in processes:
            process.stdin.close()  # type: ignore[union-attr]
            process.wait()


def _say(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def _hear(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a loop ended with {process.wait()} before it had measured anything; see above")
    return line


def encoder_loop(encode: Callable[[Any], Any], utterances: list[Utterance], batch: int) -> Callable[[], None]:
    """The encoder alone: waves decoded beforehand, the longest first, none padded (one clip a batch)."""
    waves = sorted((_decode(utterance) for utterance in utterances), key=len, reverse=True)

    def run() -> None:
        for wave_N in waves:
            encode(wave_N[None])

    return run


def file_loop(encode: Callable[[Any], Any], utterances: list[Utterance], batch: int) -> Callable[[], None]:
    """What people write: files in the manifest's order, decoded inline, batches padded to their longest with zeros."""
    import torch

    def run() -> None:
        for start in range(0, len(utterances), batch):
            waves = [_decode(utterance) for utterance in utterances[start : start + batch]]
            encode(torch.nn.utils.rnn.pad_sequence(waves, batch_first=True))

    return run


LOOPS = {"encoder": encoder_loop, "files": file_loop}


def _decode(utterance: Utterance) -> Any:
    """float32 samples (N,) of mean 0 and variance 1, as the encoder's feature extractor has them."""
    import torch

    from data.audio import load_audio

    wave_N = torch.from_numpy(load_audio(utterance.audio_filepath, RATE_HZ, max_duration_s=MAX_DURATION_S))
    return (wave_N - wave_N.mean()) / wave_N.std().clamp_min(1e-4)


def _load(tokenizer: dict[str, Any], assigns: bool) -> Callable[[Any], Any]:
    """The forward pass (B, N) -> features (B, T, D), or units (B * T,) where it `assigns`."""
    import torch
    from transformers import HubertModel

    from model.audio_tokenizers.assignment import assign
    from model.audio_tokenizers.ssl_units import read_centroids

    model = HubertModel.from_pretrained(tokenizer["path"]).eval()
    centroids_KD = read_centroids(tokenizer["kmeans_path"])

    def encode(wave_BN: Any) -> Any:
        with torch.inference_mode():
            features_BTD = model(wave_BN).last_hidden_state
            return assign(features_BTD.flatten(0, 1), centroids_KD) if assigns else features_BTD

    return encode


def main() -> int:
    """One loop."""
    import torch

    torch.set_num_threads(1)
    request = json.loads(sys.stdin.readline())
    encode = _load(request["encoder"], assigns=request["loop"] == "files")
    utterances = list(read_manifest(request["manifest"]))
    run = LOOPS[request["loop"]](encode, utterances, request["batch"])
    encode(_decode(utterances[0])[None])
    print("ready", flush=True)
    sys.stdin.readline()
    started = time.perf_counter()
    run()
    wall_s = time.perf_counter() - started
    print(json.dumps({"audio_s": sum(u.duration or 0.0 for u in utterances), "wall_s": wall_s}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
