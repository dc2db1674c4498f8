"""What `train --dry-run` says before anything is made or fetched: phases, tokens, workers, memory."""

from model.deepspeed_config import NVME, deepspeed_config
from ray_jobs.recipe import Recipe
from ray_jobs.train_memory import memory_lines
from ray_jobs.train_parts import phases_to_run


def plan_lines(recipe: Recipe) -> list[str]:
    """The lines of a recipe whose dtype is settled."""
    return [
        *_phase_lines(recipe),
        *_work_lines(recipe),
        *memory_lines(recipe, phases_to_run(recipe)),
        *_watch_lines(recipe),
    ]


def _phase_lines(recipe: Recipe) -> list[str]:
    lines = []
    for plan in phases_to_run(recipe):
        phase = plan.config
        lines.append(
            f"phase   {phase.name}: {plan.steps} steps ({plan.first_step + 1} to {plan.last_step}), lr {phase.lr:g}, "
            f"{'LoRA, ' if phase.lora else ''}{phase.weights}"
            + (f", starts from {phase.start_from}" if phase.start_from else "")
        )
    return lines


def _work_lines(recipe: Recipe) -> list[str]:
    train = recipe.train
    config = deepspeed_config(train, train.num_workers)
    rows, all_rows = train.global_batch_rows, config["train_batch_size"]
    tokens = rows * train.sequence_length
    rounds = all_rows // (train.micro_batch_rows * train.num_workers)
    empty = f"; {all_rows - rows} of {all_rows} rows computed are empty" if all_rows > rows else ""
    return [
        f"step    {rows} rows of {train.sequence_length} = {tokens} tokens; {train.steps} steps = "
        f"{train.steps * tokens / 1e6:.4g} million tokens",
        f"workers {train.num_workers} x {train.num_cpus:g} CPU, {train.num_gpus:g} GPU = "
        f"{train.num_workers * train.num_cpus:g} CPU, {train.num_workers * train.num_gpus:g} GPU that the cluster must "
        f"have; zero_stage {train.zero_stage}, {train.dtype}",
        *([f"nvme    {NVME}: train will refuse to start"] if train.offload_path else []),
        f"batch   {rounds} forward passes of {train.micro_batch_rows} rows on each worker{empty}",
    ]


def _watch_lines(recipe: Recipe) -> list[str]:
    train = recipe.train
    lines = [f"saves   every {train.save_every} steps, the newest {train.keep_checkpoints} kept"]
    if train.validate_every:
        every, rows = train.validate_every, train.validation_rows
        probed = f", {train.probe_utterances} decoded for {list(train.probe_tasks)}" if train.probe_utterances else ""
        lines.append(f"checks  held-out losses every {every} steps, {rows} rows of each task{probed}")
    return [*lines, f"logs    every {train.log_every} steps to metrics.jsonl, {', '.join(train.sinks) or 'no sink'}"]
