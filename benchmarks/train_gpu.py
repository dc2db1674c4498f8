"""The train step on one GPU: a 0.5 B Qwen-shaped model, 33k vocabulary, packed documents, rows of 2048, bf16.

    python -m benchmarks.train_gpu [rows]

Needs torch and transformers, and takes DeepSpeed's engine where it is installed: no Ray, no token store. Ends in one
line of JSON: MFU by the formula of model/flops.py, tokens per second, peak memory, and where the time goes.
"""

import argparse
import importlib.util
import json
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

VOCABULARY_SIZE, LENGTH = 33_024, 2048
ROWS, ROUNDS = 16, 2  # of one forward pass, and such passes of one step
WARMUP_STEPS, STEPS, PROFILED_STEPS = 20, 30, 3
# Documents of speech units: lognormal seconds, 25 a second.
MEDIAN_S, SIGMA, SHORTEST_S, LONGEST_S, FRAME_RATE_HZ = 6.0, 0.7, 1.0, 30.0, 25.0
TABLE_ROWS = 15


def measure_gpu(rows: int = ROWS) -> dict[str, Any]:
    """What the step reaches on the first GPU; a note instead where none is visible."""
    import torch

    if not torch.cuda.is_available():
        return {"skipped": "no GPU is visible: nothing was measured on one"}
    from model.flops import FORMULA, FlopCount, document_sizes, peak_flops

    lm = build_model()
    flops = FlopCount.of(lm)
    parameters = sum(parameter.numel() for parameter in lm.parameters())
    batches = [packed_rows(rows * ROUNDS, seed) for seed in range(4)]
    on_device = [batch.rows(0, rows * ROUNDS) for batch in map(_to_gpu, batches)]
    step, kind = build_step(lm, rows)
    for index in range(WARMUP_STEPS):
        step(on_device[index % 4])
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    for index in range(STEPS):
        step(on_device[index % 4])
    torch.cuda.synchronize()
    passed_s = time.perf_counter() - started
    needed = sum(flops.of_batch(batches[index % 4], 0) for index in range(STEPS))
    tokens = sum(document_sizes(batches[index % 4], 0)[0] for index in range(STEPS))
    peak, source = peak_flops("cuda", "bf16")
    return {
        "device": torch.cuda.get_device_name(),
        "mfu": needed / passed_s / peak,
        "mfu_formula": FORMULA,
        "peak_tflops": peak / 1e12,
        "peak_source": source,
        "tokens_per_s": tokens / passed_s,
        "peak_memory_gb": torch.cuda.max_memory_allocated() / 1e9,
        "parameters": parameters,
        "rows": rows,
        "rounds": ROUNDS,
        "engine": kind,
        "attention": lm.config._attn_implementation,
        "profile_ms_per_step": profile(step, on_device),
    }


def build_model() -> Any:
    """Qwen2.5 0.5 B's body with a vocabulary of its text's most frequent pieces and some codebooks, random weights."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=896,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        intermediate_size=4864,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
    )
    with torch.device("cuda"):
        return Qwen2ForCausalLM(config).float().train()


def packed_rows(num_rows: int, seed: int) -> Any:
    """Rows of packed documents on the CPU; all but each document's first token are targets; 0 is padding."""
    import numpy as np
    import torch

    from data.packing import BestFitPacker, PackedDocument, pack_batch
    from model.train_step import TensorBatch

    rng = np.random.default_rng(seed)
    packer: Any = BestFitPacker(LENGTH)
    while packer.pending_tokens < 2 * num_rows * LENGTH:
        seconds = float(np.clip(rng.lognormal(np.log(MEDIAN_S), SIGMA), SHORTEST_S, LONGEST_S))
        ids = rng.integers(1, VOCABULARY_SIZE, round(seconds * FRAME_RATE_HZ))
        packer.add(len(ids), PackedDocument(ids, np.ones(len(ids), dtype=bool), 1.0, "units"))
    batch = pack_batch([packer.next_row() for _ in range(num_rows)], num_rows, LENGTH, 0)
    arrays = (batch.ids_BT, batch.labels_BT, batch.position_ids_BT, batch.weights_BT)
    return TensorBatch(*(torch.as_tensor(array) for array in arrays))


def build_step(lm: Any, rows: int) -> tuple[Callable[[Any], None], str]:
    """One optimizer step as a function of a batch, and what runs it: DeepSpeed's engine or a plain loop."""
    if importlib.util.find_spec("deepspeed") is None:
        return _plain_step(lm, rows), "plain loop (DeepSpeed is not installed)"
    import torch.distributed as dist

    from model.engine import run_step, start_engine
    from model.train_config import TrainConfig

    os.environ.update({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"})
    meet = os.path.join(tempfile.mkdtemp(), "meet")
    dist.init_process_group("nccl", init_method=f"file://{meet}", rank=0, world_size=1)
    train = TrainConfig.model_validate(
        {
            "phases": [{"name": "units", "steps_fraction": 1.0, "weights": {"lm": 1.0}}],
            "sequence_length": LENGTH,
            "global_batch_rows": rows * ROUNDS,
            "micro_batch_rows": rows,
            "zero_stage": 0,
            "dtype": "bf16",
            "num_workers": 1,
        }
    )
    engine = start_engine(lm, train, "bf16")

    def step(batch: Any) -> None:
        run_step(engine, batch, train, 1e-4, 0)

    return step, "DeepSpeed, zero_stage 0"


def _plain_step(lm: Any, rows: int) -> Callable[[Any], None]:
    import torch

    from model.attention import choose_attention
    from model.cross_entropy import choose_cross_entropy
    from model.train_step import StepLoss, target_weight

    attention = choose_attention("auto", lm.config, torch.device("cuda"), "bf16", LENGTH)
    cross_entropy = choose_cross_entropy("auto", rows * LENGTH, VOCABULARY_SIZE, plain_loss=True)
    module = StepLoss(lm, True, attention, cross_entropy)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True)

    def step(batch: Any) -> None:
        total = target_weight(batch).float()
        for start in range(0, rows * ROUNDS, rows):
            loss, _ = module(batch.rows(start, start + rows), total)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def profile(step: Callable[[Any], None], batches: list[Any]) -> dict[str, float]:
    """Milliseconds on the GPU per step of the kernels that take longest, and of all others together."""
    import torch
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    with record(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        for index in range(PROFILED_STEPS):
            step(batches[index % len(batches)])
        torch.cuda.synchronize()
    # Kernels alone: what the CPU's side of an operation is charged with would count them twice.
    times = {
        event.key: event.self_device_time_total / 1e3 / PROFILED_STEPS
        for event in found.key_averages()
        if event.self_device_time_total and not event.self_cpu_time_total and not event.is_user_annotation
    }
    longest = sorted(times, key=lambda name: -times[name])[:TABLE_ROWS]
    table = {name[:80]: round(times[name], 3) for name in longest}
    return {**table, "others": round(sum(times.values()) - sum(times[name] for name in longest), 3)}


def _to_gpu(batch: Any) -> Any:
    from model.train_step import to_tensors

    return to_tensors(batch, "cuda")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="?", type=int, default=ROWS, help=f"of one forward pass; default: {ROWS}")
    print(json.dumps(measure_gpu(parser.parse_args().rows)))
