"""A codebook over the features of a brought encoder, fitted where the features are.

Each Ray actor computes the features of its share of the sample and keeps them; centroids go out, sums and counts come
back. An actor that dies is started anew and computes its share again.
"""

import logging
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray
import torch

from data import storage
from data.config import TokenizeConfig
from data.errors import InputError
from data.manifest import Utterance
from data.quarantine import PassedOver
from model.audio_tokenizers.base import CONFIG_NAME, usage_of_counts
from model.audio_tokenizers.shared_kmeans import Call, fit_shared_kmeans, shared_quality
from model.audio_tokenizers.shared_seeding import merged
from model.config import SslUnits
from ray_jobs.bounded_wait import ready_of, results_of
from ray_jobs.fit_frames import unit_word_agreement
from ray_jobs.frame_share import FrameShare, limits_of, plan_groups
from ray_jobs.session import start_ray
from ray_jobs.tokenize_graph import decode_threads

log = logging.getLogger("antiphon")

OPERATOR = "Actor(FrameShare)"
_RESTARTS = 3


def fit_codebook(
    folder: str,
    config: SslUnits,
    utterances: Sequence[Utterance],
    manifest_path: str,
    tokenize: TokenizeConfig,
    seed: int,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Centroids (codebook_size, D) for the encoder in `folder`, and what is to be said of their quality.

    The same bits for any tokenize.num_workers, on machines that multiply alike. Raises InputError where no file can be
    read, and StalledError where the actors do nothing for tokenize.stall_s; once they have their frames, for as much
    longer as these took.
    """
    start_ray()
    started = time.monotonic()
    rate_hz = storage.read_json(storage.join(folder, CONFIG_NAME))["frame_rate_hz"]
    groups = plan_groups(utterances, config, rate_hz, tokenize.max_duration_s, seed)
    workers = min(tokenize.num_workers, len(groups))
    dealt = [{group: groups[group] for group in range(worker, len(groups), workers)} for worker in range(workers)]
    shares = _start_shares(tokenize, dealt, folder, manifest_path, config, seed)
    try:
        limits = limits_of(_load(shares, dealt, tokenize.stall_s), config.max_frames)
        # An actor that is started anew is silent while it computes all its frames again.
        patience_s = tokenize.stall_s + time.monotonic() - started
        call = _call(shares, limits, patience_s)
        passed = PassedOver()
        asked = [share.passed_over.remote() for share in shares]
        for of_share in results_of(asked, patience_s, f"{OPERATOR}.passed_over"):
            passed.merge(of_share)
        log.info("fit_tokenizer: %s", passed)
        collected = time.monotonic()
        centroids_KD = _fit(call, sum(limits.values()), config, seed)
        quality = {"frames": float(sum(limits.values())), **_quality(call, centroids_KD)}
        if any(utterance.words for utterance in utterances):
            asked = [share.words.remote(limits) for share in shares]
            words = merged(results_of(asked, patience_s, f"{OPERATOR}.words"))
            quality |= _agreement(merged(call("codes", centroids_KD)), words)
    finally:
        for share in shares:
            ray.kill(share)
    log.info("fit_tokenizer: %d frames on %d workers: %.1f s of features, %.1f s of fit", quality["frames"], workers,
             collected - started, time.monotonic() - collected)  # fmt: skip
    return centroids_KD, quality


def _start_shares(
    tokenize: TokenizeConfig, dealt: list[dict[int, Any]], folder: str, manifest_path: str, config: SslUnits, seed: int
) -> list[Any]:
    """An actor for each worker's groups."""
    share_on: Any = ray.remote(FrameShare).options(
        num_cpus=tokenize.num_cpus,
        num_gpus=tokenize.num_gpus or None,
        max_restarts=_RESTARTS,
        max_task_retries=_RESTARTS,
    )
    threads = decode_threads(tokenize)
    return [
        share_on.remote(folder, groups, manifest_path, config, tokenize.max_duration_s, seed, threads)
        for groups in dealt
    ]


def _load(shares: list[Any], dealt: list[dict[int, Any]], stall_s: float) -> dict[int, int]:
    """Frames of every group, computed by the actors one group after another. Raises StalledError where none is."""
    running = {share.load.remote(group): group for share, groups in zip(shares, dealt, strict=True) for group in groups}
    total = len(running)
    sizes: dict[int, int] = {}
    while running:
        done = ready_of(list(running), stall_s, f"{OPERATOR}.load, {len(sizes)} of {total} groups done,")
        for reference in done:
            sizes[running.pop(reference)] = ray.get(reference)
        log.info("fit_tokenizer: features of %d/%d groups, %d frames", len(sizes), total, sum(sizes.values()))
    return sizes


def _call(shares: list[Any], limits: dict[int, int], stall_s: float) -> Call:
    def call(method: str, *arguments: Any) -> list[Any]:
        shared = [ray.put(value) if isinstance(value, torch.Tensor) else value for value in arguments]
        asked = [share.call.remote(limits, method, *shared) for share in shares]
        return results_of(asked, stall_s, f"{OPERATOR}.{method}")

    return call


def _fit(call: Call, frames: int, config: SslUnits, seed: int) -> torch.Tensor:
    if not frames:
        raise InputError(f"audio tokenizer {config.kind}: no audio to fit it on; see the quarantine of prepare")
    fit = fit_shared_kmeans(
        call,
        config.codebook_size,
        config.iterations,
        seed,
        progress=lambda step, distortion: log.info("fit_tokenizer: k-means step %d, distortion %.6g", step, distortion),
    )
    return fit.centroids_KD


def _quality(call: Call, centroids_KD: torch.Tensor) -> dict[str, float]:
    relative, counts_K = shared_quality(call, centroids_KD)
    return {"relative_distortion": relative, **usage_of_counts(counts_K.numpy())}


def _agreement(codes: dict[int, np.ndarray], words: dict[int, np.ndarray]) -> dict[str, float]:
    """What the units say about the words, both by group."""
    order = sorted(codes)
    return unit_word_agreement(
        np.concatenate([codes[group] for group in order]), np.concatenate([words[group] for group in order])
    )
