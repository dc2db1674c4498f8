"""What `train --dry-run` says before anything is made or fetched: phases, tokens, workers, memory."""

from typing import Any

from data import storage
from model.deepspeed_config import deepspeed_config
from model.engine import estimate_bytes
from ray_jobs.recipe import Recipe
from ray_jobs.train_parts import phases_to_run

MIB, GIB = 2**20, 2**30


def plan_lines(recipe: Recipe) -> list[str]:
    """The lines of a recipe whose dtype is settled."""
    return [*_phase_lines(recipe), *_work_lines(recipe), *_memory_lines(recipe), *_watch_lines(recipe)]


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
        f"batch   {rounds} forward passes of {train.micro_batch_rows} rows on each worker{empty}",
    ]


def _memory_lines(recipe: Recipe) -> list[str]:
    train = recipe.train
    size, source = count_parameters_of(recipe)
    if size is None:
        return [f"memory  not known: {source}"]
    states = estimate_bytes(size, train, train.phases[0], train.num_workers)
    parts = ", ".join(f"{name} {_amount(value)}" for name, value in states.items())
    return [
        f"memory  about {_amount(sum(states.values()))} of model states per worker ({parts}), for {size / 1e6:.1f} M "
        f"parameters ({source}); activations are not counted"
    ]


def _amount(size_bytes: float) -> str:
    return f"{size_bytes / GIB:.1f} GiB" if size_bytes >= GIB else f"{size_bytes / MIB:.0f} MiB"


def count_parameters_of(recipe: Recipe) -> tuple[int | None, str]:
    """(parameters, where the number is from); None, and why, for a hub id whose config.json is not at hand."""
    first = phases_to_run(recipe)[0].config
    path = first.start_from or recipe.model or recipe.lm.path
    shape = recipe.lm
    codes = sum(_codes(config) for config in recipe.tokenizers.values())
    if path is None:
        layer = 4 * shape.hidden_size**2 + 3 * shape.hidden_size * shape.intermediate_size + 2 * shape.hidden_size
        rows = 256 + recipe.text.max_words + codes
        return shape.num_layers * layer + (rows + 1) * shape.hidden_size, f"about {rows} embedding rows, tied"
    config = _config_at_hand(path)
    if config is None:
        return None, f"{path} is a hub id whose config.json is not at hand; nothing is fetched for a dry run"
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    body = sum(parameter.numel() for parameter in model.parameters())
    tables = 1 if getattr(config, "tie_word_embeddings", False) else 2
    return body + tables * codes * config.hidden_size, f"{path} and about {codes} embedding rows"


def _config_at_hand(path: str) -> Any:
    """The configuration of a folder, or of a hub id that was fetched before."""
    from transformers import AutoConfig

    if storage.exists(path):
        return AutoConfig.from_pretrained(str(storage.local_folder(path)))
    try:
        return AutoConfig.from_pretrained(path, local_files_only=True)
    except OSError:
        return None


def _codes(config: Any) -> int:
    """Ids of a stream's codes, where the recipe says how many; a brought codec's are in its own files."""
    return int(getattr(config, "codebook_size", 0) * getattr(config, "num_codebooks", 1))


def _watch_lines(recipe: Recipe) -> list[str]:
    train = recipe.train
    lines = [f"saves   every {train.save_every} steps, the newest {train.keep_checkpoints} kept"]
    if train.validate_every:
        every, rows = train.validate_every, train.validation_rows
        probed = f", {train.probe_utterances} decoded for {list(train.probe_tasks)}" if train.probe_utterances else ""
        lines.append(f"checks  held-out losses every {every} steps, {rows} rows of each task{probed}")
    return [*lines, f"logs    every {train.log_every} steps to metrics.jsonl, {', '.join(train.sinks) or 'no sink'}"]
