"""The memory of a training that has not started: what its dry run says, for machines that are not here."""

import copy
from typing import Any

import psutil
import torch

from data import storage
from data.errors import InputError
from data.vocabulary import Block, Vocabulary
from model.freezing import freeze
from model.lm import add_lora, build_language_model
from model.memory import ModelShape, advise, estimate_memory
from model.schedule import PhasePlan
from ray_jobs.recipe import Recipe
from ray_jobs.train_parts import phases_to_run

GPU_GB = (24, 40, 80, 141)  # what one has; a twentieth is left to the driver and to fragments
CODEC_CODES = 8 * 1024  # of a stream whose codec's config.json is not read here
MARKER_IDS = 256


def memory_lines(recipe: Recipe, phases: tuple[PhasePlan, ...]) -> list[str]:
    """What a worker of the hungriest phase needs, and the knob to turn where that would not fit."""
    train = recipe.train
    model = _empty_model(recipe)
    if model is None:
        path = first_weights(recipe)
        return [
            f"memory  not known: {path} is a hub id whose config.json is not at hand; nothing is fetched for a dry run"
        ]
    shapes = [_shape(recipe, model, plan) for plan in phases]
    gpu = train.num_gpus > 0
    shape = max(shapes, key=lambda one: estimate_memory(one, train, train.num_workers, train.dtype, gpu).device)
    found = estimate_memory(shape, train, train.num_workers, train.dtype, gpu)
    lines = [
        f"memory  about {found.line()}; {shape.parameters / 1e6:.1f} M weights, {shape.trainable / 1e6:.1f} M train"
    ]
    host = psutil.virtual_memory().available // train.num_workers
    sizes = [int(0.95e9 * size) for size in GPU_GB] if gpu else [host]
    advice = [advise(shape, train, train.num_workers, train.dtype, gpu, size, max(host, found.host)) for size in sizes]
    if not gpu:
        return [*lines, f"        {advice[0] or 'fits the free memory of this machine'}"]
    fitting = [size for size, text in zip(GPU_GB, advice, strict=True) if text is None]
    if fitting:
        lines.append(f"        fits GPUs of {fitting[0]} GB and more")
    lines += [
        f"        for GPUs of {size} GB: {text}" for size, text in zip(GPU_GB, advice, strict=True) if text is not None
    ]
    return lines


def first_weights(recipe: Recipe) -> str | None:
    """The folder or hub id that the first phase starts from; None for a new model."""
    return phases_to_run(recipe)[0].config.start_from or recipe.model or recipe.lm.path


def _empty_model(recipe: Recipe) -> Any:
    """The recipe's model without values, its vocabulary guessed from the recipe; None where its config is not here."""
    codes = sum(_codes(config) for config in recipe.tokenizers.values())
    path = first_weights(recipe)
    with torch.device("meta"):
        if path is None:
            text = 256 + recipe.text.max_words
            vocabulary = Vocabulary(
                (Block("text", 0, text), Block("marker", text, MARKER_IDS), Block("codes.0", text + MARKER_IDS, codes)),
                tuple(f"[{index}]" if index > 1 else ("[pad]", "[eos]")[index] for index in range(MARKER_IDS)),
            )
            return build_language_model(recipe.lm, vocabulary)
        from transformers import AutoModelForCausalLM

        config = _config_at_hand(path)
        if config is None:
            return None
        if recipe.model is None:
            config.vocab_size += MARKER_IDS + codes
        return AutoModelForCausalLM.from_config(config)


def _config_at_hand(path: str) -> Any:
    """The configuration of a folder, or of a hub id that was fetched before. Raises InputError for a folder of none."""
    from transformers import AutoConfig

    if storage.exists(path):
        try:
            return AutoConfig.from_pretrained(str(storage.local_folder(path)))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path!r} holds no causal language model: give a model folder or a hub id ({error})"
            ) from None
    try:
        return AutoConfig.from_pretrained(path, local_files_only=True)
    except OSError:
        return None


def _codes(config: Any) -> int:
    if getattr(config, "compression", None) is not None and hasattr(config.compression, "vocabulary_size"):
        return int(config.compression.vocabulary_size)
    size = getattr(config, "codebook_size", None)
    return size * getattr(config, "num_codebooks", 1) if size else CODEC_CODES


def _shape(recipe: Recipe, model: Any, plan: PhasePlan) -> ModelShape:
    """Of one phase: with its adapters and what it freezes. Adapters are put on a copy."""
    model = copy.deepcopy(model)
    if plan.config.lora is not None:
        model = add_lora(model, plan.config.lora, recipe.seed)
    trainable = plan.config.trainable
    freeze(model, "embeddings" if trainable == "new_rows" else trainable, 0)
    return ModelShape.of(model)
