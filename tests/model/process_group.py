"""Runs a function on a group of gloo processes: how tests see several workers without a cluster."""

import multiprocessing
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from queue import Empty
from typing import Any

import psutil

TIMEOUT_S = 120

# The server imports once; each process is a fork of it, so a group starts in tenths of a second.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.model.process_imports"])


def run_group(world_size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `function(*arguments)` returns on each of `world_size` ranks. Fails with the first rank's traceback."""
    # The server must import DeepSpeed with these, and one thread keeps sums in one order.
    os.environ.update({"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "GLOO_SOCKET_IFNAME": "lo"})
    with tempfile.TemporaryDirectory() as folder:
        queue: Any = _CONTEXT.Queue()
        processes: list[Any] = [
            _CONTEXT.Process(target=_rank, args=(rank, world_size, folder, queue, function, arguments), daemon=True)
            for rank in range(world_size)
        ]
        for process in processes:
            process.start()
        try:
            results = dict(_checked(queue.get(timeout=TIMEOUT_S)) for _ in processes)
            for process in processes:
                process.join(TIMEOUT_S)
        finally:
            for process in processes:
                process.kill()
    return [results[rank] for rank in range(world_size)]


def watch_group(world_size: int, function: Callable[..., Any], *arguments: Any) -> dict[int, str | None]:
    """How each rank ended: None done, the text of its error, or "gone" for one that was killed.

    Ranks that neither end nor answer (stopped ones) are killed once all others have ended, and are "gone" too.
    """
    os.environ.update({"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "GLOO_SOCKET_IFNAME": "lo"})
    ended: dict[int, str | None] = {}
    with tempfile.TemporaryDirectory() as folder:
        queue: Any = _CONTEXT.Queue()
        processes: list[Any] = [
            _CONTEXT.Process(target=_rank, args=(rank, world_size, folder, queue, function, arguments), daemon=True)
            for rank in range(world_size)
        ]
        for process in processes:
            process.start()
        deadline = time.monotonic() + TIMEOUT_S
        try:
            while time.monotonic() < deadline and _may_answer(processes, ended):
                try:
                    rank, _, error = queue.get(timeout=0.1)
                    ended[rank] = error
                except Empty:
                    continue
        finally:
            for process in processes:
                process.kill()
    return {rank: ended.get(rank, "gone") for rank in range(world_size)}


def _may_answer(processes: list[Any], ended: dict[int, str | None]) -> bool:
    waited_for = [process for rank, process in enumerate(processes) if rank not in ended and process.is_alive()]
    return any(not _is_stopped(process) for process in waited_for)


def _is_stopped(process: Any) -> bool:
    try:
        return psutil.Process(process.pid).status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:  # ended since it was asked: the next look no longer waits for it
        return False


def _checked(answer: tuple[int, Any, str | None]) -> tuple[int, Any]:
    rank, result, error = answer
    if error:
        raise AssertionError(f"rank {rank} failed:\n{error}")
    return rank, result


def _rank(rank: int, world_size: int, folder: str, queue: Any, function: Callable[..., Any], arguments: Any) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)})
    try:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size
        )
        result = function(*arguments)
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
        queue.put((rank, result, None))
    except BaseException:
        queue.put((rank, None, traceback.format_exc()))
