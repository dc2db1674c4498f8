"""`fit_tokenizer`: training audio and texts -> audio tokenizers, one per stream, and the text tokenizer."""

import json
import logging
import math
import os
import sys
import tempfile
import time
from typing import Any, cast

from data import storage
from data.errors import InputError
from data.frozen import result_fields
from data.manifest import Utterance, read_manifest
from data.text_tokenizer import build_byte_words_tokenizer, frequent_words, load_text_tokenizer
from model.audio_tokenizers.base import (
    fit_audio_tokenizer,
    fits_utterances,
    is_brought,
    load_audio_tokenizer,
    tokenizer_class,
)
from model.audio_tokenizers.brought import brought_paths, content_ids
from model.audio_tokenizers.shared_kmeans import FIT_VERSION
from model.config import AudioTokenizerConfig, FramesConfig, SslUnits, UtterancesConfig
from ray_jobs import prepare
from ray_jobs.fit_chunks import Source
from ray_jobs.fit_codebook import fit_codebook
from ray_jobs.fit_compression import finish_stream
from ray_jobs.fit_frames import collect_frames, unit_word_agreement
from ray_jobs.fit_utterances import fit_on_utterances
from ray_jobs.job import Job, Run
from ray_jobs.job import main as run_main
from ray_jobs.recipe import Recipe
from ray_jobs.session import start_ray
from ray_jobs.tokenize_shard import kind_of_stream
from ray_jobs.weights import check_pins, pin_lines, weight_lines, weight_paths, with_pins

log = logging.getLogger("antiphon")


def work(run: Run) -> None:
    """Write one folder per stream, text/ and quality.json."""
    manifest = storage.join(run.inputs["prepare"], "manifest.jsonl")
    manifest = manifest if storage.is_url(manifest) else os.path.abspath(manifest)
    train = [utterance for utterance in read_manifest(manifest) if utterance.split == "train"]
    if not train:
        raise InputError(f"{manifest} has no utterance of split 'train': hold out less with corpus.test and corpus.dev")
    _save_text_tokenizer(run, train)  # first: what is brought may be refused, and the others take long
    quality = {}
    for stream in run.recipe.tokenizers:
        utterances = [utterance for utterance in train if utterance.kind == kind_of_stream(stream)]
        if utterances:
            quality[stream] = _make_stream(run, stream, utterances, manifest)
        else:
            _skip_stream(run.recipe, stream, manifest)
    storage.write_json(run.folder.file("quality.json"), quality)


def _make_stream(run: Run, stream: str, utterances: list[Utterance], manifest: str) -> dict[str, float]:
    """Bring or fit the tokenizer of a stream, then what comes after its codebook. Returns its quality."""
    config = run.recipe.tokenizers[stream]
    source = _source(run.recipe, utterances, manifest)
    if is_brought(config.kind):
        quality = _bring_stream(run, stream, utterances, manifest)
    elif fits_utterances(config.kind):
        quality = fit_on_utterances(source, cast(UtterancesConfig, config), run.folder.file(stream))
    else:
        quality = _fit_stream(run, stream, source)
    return quality | finish_stream(config, run.folder.file(stream), source, quality)


def _fit_stream(run: Run, stream: str, source: Source) -> dict[str, float]:
    recipe, config = run.recipe, cast(FramesConfig, run.recipe.tokenizers[stream])
    start_ray()
    started = time.monotonic()
    features_ND, words_N = collect_frames(source, config)
    collected = time.monotonic()
    tokenizer = fit_audio_tokenizer(config, features_ND, recipe.seed)
    quality = {"frames": len(features_ND), **tokenizer.quality(features_ND)}
    if tokenizer.num_codebooks == 1:
        quality |= unit_word_agreement(tokenizer.quantise(features_ND)[:, 0], words_N)
    tokenizer.save(run.folder.file(stream))
    log.info("fit_tokenizer: %s from %d frames: %.1f s of analysis, %.1f s of fit, %s", stream, len(features_ND),
             collected - started, time.monotonic() - collected, json.dumps(quality))  # fmt: skip
    return quality


def _source(recipe: Recipe, utterances: list[Utterance], manifest: str) -> Source:
    settings = recipe.tokenize
    return Source(
        utterances,
        manifest,
        settings.max_duration_s,
        recipe.seed,
        settings.num_workers,
        settings.stall_s,
        settings.num_gpus,
    )


def _bring_stream(run: Run, stream: str, utterances: list[Utterance], manifest: str) -> dict[str, float]:
    """Keep the weights that were brought, and fit the codebook over them where none was."""
    recipe, config, folder = run.recipe, run.recipe.tokenizers[stream], run.folder.file(stream)
    kind = tokenizer_class(config.kind)
    kind.bring(config, folder)
    quality: dict[str, float] = {}
    if isinstance(config, SslUnits) and kind.fits_codebook(config):
        centroids_KD, quality = fit_codebook(folder, config, utterances, manifest, recipe.tokenize, recipe.seed)
        kind.give_codebook(folder, centroids_KD)
    tokenizer = load_audio_tokenizer(folder)
    bits = tokenizer.num_codebooks * math.log2(tokenizer.codebook_size)
    quality["bitrate_bps"] = tokenizer.frame_rate_hz * bits
    if "entropy_bits" in quality:
        quality["entropy_bps"] = tokenizer.frame_rate_hz * quality["entropy_bits"]
    log.info("fit_tokenizer: %s brought: %d codebooks of %d codes at %g Hz, %s", stream, tokenizer.num_codebooks,
             tokenizer.codebook_size, tokenizer.frame_rate_hz, json.dumps(quality))  # fmt: skip
    return quality


def _skip_stream(recipe: Recipe, stream: str, manifest: str) -> None:
    """A stream without audio is left out, unless the recipe trains on it."""
    users = [
        task
        for task, template in recipe.grammar.templates.items()
        if f"{{{stream}}}" in template or f".{stream}}}" in template
    ]
    users += [task for task, form in recipe.grammar.formats.items() if form.streams() == {stream}]
    if users:
        raise InputError(
            f"stream {stream!r} of tokenizers is used by the tasks {', '.join(users)}, but {manifest} has no "
            f"training utterance of kind {kind_of_stream(stream)!r}: take the stream out of tokenizers and grammar, "
            "or add such audio"
        )
    log.info("fit_tokenizer: no training audio of kind %r, stream %s left out", kind_of_stream(stream), stream)


def _save_text_tokenizer(run: Run, train: list[Utterance]) -> None:
    config = run.recipe.text
    if config.kind == "pretrained":
        tokenizer = _pretrained_text_tokenizer(str(config.path))
    else:
        texts = [text for utterance in train for text in (utterance.text, utterance.caption) if text]
        tokenizer = build_byte_words_tokenizer(frequent_words(texts, config.max_words))
    with tempfile.TemporaryDirectory() as local:
        tokenizer.save_pretrained(local)
        storage.copy_folder(local, run.folder.file("text"))
    log.info("fit_tokenizer: text tokenizer of %d ids", len(tokenizer))


def _pretrained_text_tokenizer(path: str) -> Any:
    try:
        return load_text_tokenizer(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"text.path={path!r} holds no text tokenizer that can be had from here ({str(error).splitlines()[0]}): "
            "give a folder, or the id of a model on the hub (log in where it asks for that)"
        ) from None


def fields(recipe: Recipe) -> dict[str, Any]:
    """What changes the result beside the corpus. A pretrained text tokenizer in a folder enters by content."""
    text = result_fields(recipe.text)
    if _is_text_folder(recipe):
        del text["path"]
    return {
        "tokenizers": {
            name: _fields_of_tokenizer(config, recipe.tokenize.num_gpus) for name, config in recipe.tokenizers.items()
        },
        "text": text,
        "max_duration_s": recipe.tokenize.max_duration_s,
        "seed": recipe.seed,
    }


def _fields_of_tokenizer(config: AudioTokenizerConfig, num_gpus: float) -> dict[str, Any]:
    """Its fields, with the dtype in use; paths of brought weights are left to `raw_inputs`, which has their content."""
    fields = {name: value for name, value in result_fields(config).items() if name not in brought_paths(config)}
    if isinstance(config, SslUnits) and config.dtype == "auto":
        fields["dtype"] = "bf16" if num_gpus else "fp32"
    if isinstance(config, SslUnits) and config.kmeans_path is None:
        fields["fit_version"] = FIT_VERSION
    return fields


def raw_inputs(recipe: Recipe) -> list[str]:
    """The hashes of brought weights and of a brought text tokenizer's files."""
    text = [storage.hash_folder(recipe.text.path)] if recipe.text.path and _is_text_folder(recipe) else []
    return text + [content for _, config in sorted(recipe.tokenizers.items()) for content in content_ids(config)]


def _is_text_folder(recipe: Recipe) -> bool:
    """Whether text.path is a folder or URL rather than a hub id."""
    return recipe.text.path is not None and storage.exists(recipe.text.path)


def inspect(recipe: Recipe) -> list[str]:
    """Where weights and the text tokenizer come from."""
    return with_pins(lambda: weight_lines(_weights_named(recipe)), _tokenizers_by_key(recipe))


def ready(recipe: Recipe) -> None:
    """Raises InputError where weights are not there or have no commit: to prepare a corpus for them may take days."""
    weight_lines(_weights_named(recipe))
    if pin_lines(_tokenizers_by_key(recipe)) and not JOB.folder(recipe).done:
        check_pins(_tokenizers_by_key(recipe))


def _weights_named(recipe: Recipe) -> dict[str, str | None]:
    named = weight_paths("text", recipe.text)
    for key, config in _tokenizers_by_key(recipe).items():
        named |= weight_paths(key, config)
    return named


def _tokenizers_by_key(recipe: Recipe) -> dict[str, AudioTokenizerConfig]:
    return {f"tokenizers.{name}": config for name, config in recipe.tokenizers.items()}


def plan(recipe: Recipe) -> list[str]:
    """What is fitted, on how many frames, and what is brought."""
    return [_plan_line(name, config) for name, config in recipe.tokenizers.items()]


def _plan_line(stream: str, config: AudioTokenizerConfig) -> str:
    if is_brought(config.kind):
        then = ""
        if isinstance(config, SslUnits) and config.kmeans_path is None:
            then = f"; fits {config.codebook_size} codes on at most {config.max_frames} frames"
        return f"brings  {stream}: {config.kind} from {getattr(config, 'path', None) or 'its settings'}{then}"
    frames = cast(FramesConfig, config)
    return (
        f"fits    {stream}: {frames.kind}, {frames.codebook_size} codes at {frames.frame_rate_hz:g} Hz, "
        f"at most {frames.max_frames} frames"
    )


JOB = Job(
    name="fit_tokenizer",
    version=1,
    work=work,
    fields=fields,
    upstream=lambda recipe: [prepare.JOB],
    raw_inputs=raw_inputs,
    plan=plan,
    inspect=inspect,
    ready=ready,
)


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    return run_main(JOB, argv)


if __name__ == "__main__":
    sys.exit(main())
