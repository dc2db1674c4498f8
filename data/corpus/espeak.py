"""Drives the synthesis processes: one fresh process per shard, some at a time, finished shards kept on resume."""

import importlib.util
import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from data import storage
from data.errors import InputError

log = logging.getLogger("antiphon")

_ROOT = Path(__file__).resolve().parent.parent.parent


def synthesize(
    items: Sequence[dict[str, Any]],
    folder: str,
    sample_rate: int,
    shard_utterances: int,
    num_workers: int,
    phones: bool = False,
) -> list[dict[str, Any]]:
    """Speak `items` ({path, text, voice, rate, pitch}) into `folder`. Returns {path, duration, words} in their order,
    with {phones: [[ipa, start_s, end_s], …]} if asked for.

    The result of a finished shard is kept in `folder`/parts, so an interrupted run goes on where it stood.
    Raises InputError when espeak-ng is not installed or a voice is unknown, RuntimeError when a process fails.
    """
    if importlib.util.find_spec("espeakng_loader") is None:
        raise InputError(
            "corpus.kind=builtin speaks through espeak-ng, and the package espeakng-loader is not installed: "
            "pip install 'antiphon[demo]', or bring recordings with corpus.kind=manifest"
        )
    shards = [items[start : start + shard_utterances] for start in range(0, len(items), shard_utterances)]
    results: list[dict[str, Any]] = []
    pool = ThreadPoolExecutor(num_workers)
    try:
        jobs = [pool.submit(_shard, index, shard, folder, sample_rate, phones) for index, shard in enumerate(shards)]
        for index, job in enumerate(jobs):
            results += job.result()
            log.info("speech: shard %d/%d, %d/%d utterances", index + 1, len(jobs), len(results), len(items))
    finally:
        pool.shutdown(cancel_futures=True)
    return results


def _shard(
    index: int, items: Sequence[dict[str, Any]], folder: str, sample_rate: int, phones: bool
) -> list[dict[str, Any]]:
    part = storage.join(folder, "parts", f"speech-{index:05d}.jsonl")
    if storage.exists(part):
        return list(storage.read_jsonl(part))
    request = json.dumps(
        {
            "folder": os.path.abspath(folder) if not storage.is_url(folder) else folder,
            "sample_rate": sample_rate,
            "phones": phones,
            "items": list(items),
        }
    )
    done = subprocess.run(
        [sys.executable, "-m", "data.corpus.espeak_process"],
        input=request,
        capture_output=True,
        text=True,
        cwd=_ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    if done.returncode == 2:
        raise InputError(f"corpus.speech: {done.stderr.strip()}")
    if done.returncode:
        raise RuntimeError(f"synthesis of shard {index} failed with exit code {done.returncode}: {done.stderr[-2000:]}")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    storage.write_jsonl(part, rows)
    return rows
