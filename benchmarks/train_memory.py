"""What a training costs in memory at each zero_stage, on two workers, beside what the ZeRO paper says.

    python -m benchmarks.train_memory        one line of JSON

Model states after Rajbhandari et al. 2020, with Psi parameters and everything in float32: weights 4 Psi, gradients
4 Psi, Adam's moments 8 Psi, and from stage 1 on the partition's own copy of the weights; the stage says which of
them the workers share. Measured is resident memory, which also holds activations, buffers and the allocator's slack.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.train_legs import CONTEXT, ENVIRONMENT
from benchmarks.train_setup import FULL, Shape, Sizes, make_recipe

WORKERS = 2
TIMEOUT_S = 600.0
VOCABULARY_SIZE = 8192


def measure_memory(sizes: Sizes) -> dict[str, Any]:
    """Per zero_stage, of the worker that needs more: peak_mb above the level before the engine, peak_in_steps_mb
    without its start and first step, peak_with_model_mb above the level before the model, formula_mb."""
    found = {str(stage): _stage(sizes, stage) for stage in range(4)}
    names = ("peak_mb", "peak_in_steps_mb", "peak_with_model_mb", "formula_mb")
    result: dict[str, Any] = {name: {stage: row[name] for stage, row in found.items()} for name in names}
    return {**result, "memory_parameters": found["0"]["parameters"], "memory_workers": WORKERS}


def _stage(sizes: Sizes, zero_stage: int) -> dict[str, Any]:
    os.environ.update(ENVIRONMENT)
    with tempfile.TemporaryDirectory() as folder:
        queue: Any = CONTEXT.Queue()
        processes: list[Any] = [
            CONTEXT.Process(target=_worker, args=(sizes, zero_stage, rank, folder, queue), daemon=True)
            for rank in range(WORKERS)
        ]
        for process in processes:
            process.start()
        try:
            rows = [queue.get(timeout=TIMEOUT_S) for _ in processes]
        finally:
            for process in processes:
                process.kill()
                process.join(TIMEOUT_S)
    return max(rows, key=lambda row: row["peak_mb"])


def _worker(sizes: Sizes, zero_stage: int, rank: int, folder: str, queue: Any) -> None:
    """A few steps on random tokens. The level before counts what has been imported."""
    import torch
    import torch.distributed as dist

    from model.engine import resolve_dtype, run_step, start_engine
    from model.lm import count_parameters
    from model.ops import use_environment_ops

    torch.set_num_threads(1)
    use_environment_ops()
    import deepspeed  # noqa: F401 (what it takes to import is not the engine's)

    os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORKERS)})
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORKERS)
    train = make_recipe(
        sizes, sizes.memory_model, resolve_dtype("auto"), zero_stage=zero_stage, global_batch_rows=WORKERS,
        micro_batch_rows=1, sequence_length=sizes.memory_tokens,
    ).train  # fmt: skip
    before_mb = rss_mb()
    lm = build_model(sizes.memory_model, sizes.memory_tokens)
    parameters, before_engine_mb = count_parameters(lm), rss_mb()
    forget_peak()
    engine = start_engine(lm, train, train.dtype)
    del lm
    for step in range(sizes.memory_steps):
        run_step(engine, random_rows(sizes.memory_tokens, step * WORKERS + rank), train, 1e-4, 0)
        if not step:
            start_peak_mb = status_mb("VmHWM")
            forget_peak()
    steps_peak_mb = status_mb("VmHWM")
    peak_mb = max(start_peak_mb, steps_peak_mb)
    queue.put(
        {
            "parameters": parameters,
            "peak_mb": round(peak_mb - before_engine_mb, 1),
            "peak_in_steps_mb": round(steps_peak_mb - before_engine_mb, 1),
            "peak_with_model_mb": round(peak_mb - before_mb, 1),
            "formula_mb": round(states_bytes(parameters, zero_stage, WORKERS) / 1e6, 1),
        }
    )
    dist.barrier()


def states_bytes(parameters: int, zero_stage: int, workers: int) -> float:
    """Model states of one worker, all in float32 (see the head of this file)."""
    split = [1 / workers if zero_stage >= stage else 1.0 for stage in (3, 2, 1)]
    own_copy = 4 / workers if zero_stage else 0.0
    return parameters * (4 * split[0] + 4 * split[1] + 8 * split[2] + own_copy)


def build_model(shape: Shape, max_positions: int) -> Any:
    """A Llama of this shape, float32, with tied embeddings."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_heads,
        intermediate_size=shape.intermediate_size,
        max_position_embeddings=max_positions,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).float().train()


def random_rows(length: int, seed: int) -> Any:
    """One row of one document, every token a target."""
    import torch

    from model.train_step import TensorBatch

    ids_BT = torch.randint(1, VOCABULARY_SIZE, (1, length), generator=torch.Generator().manual_seed(seed))
    return TensorBatch(ids_BT, ids_BT.clone(), torch.arange(length)[None], torch.ones(1, length))


def rss_mb() -> float:
    """Resident memory of this process now."""
    return status_mb("VmRSS")


def status_mb(name: str) -> float:
    """A line of /proc/self/status in MB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024 / 1e6


def forget_peak() -> None:
    """VmHWM counts from here on (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(json.dumps(measure_memory(FULL)))
