"""One place that joins or starts Ray, and says how its processes run."""

import logging
import os
from typing import Any

import ray

# One thread per process is the best use of few cores; the rest keeps Ray quiet and quick to notice results.
WORKER_ENV = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    # Decoding threads come and go, and glibc gives each a heap of its own: two heaps keep a worker's memory flat. Huge
    # pages spare a tenth of the time of a model on a CPU, which the kernel would spend on handing out small ones.
    "GLIBC_TUNABLES": "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1",
    # Packed documents give attention new shapes in every step, and oneDNN and PyTorch each keep the compiled products
    # of the last 1,024 shapes: 1.2 GB beside a model of 4 million weights. Compiling one anew takes 0.4 ms.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
    "LRU_CACHE_CAPACITY": "64",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # Who asks for no GPU sees none: Ray's default shows all of them, and every worker would load its model onto the
    # first, in another dtype than a CPU's.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
}


def start_ray(dashboard: bool = True) -> None:
    """Join the cluster that RAY_ADDRESS names, or start one on this machine. Does nothing when already joined.

    A cluster of this machine has no dashboard where a job does without: its processes hold 200 MB and some of a core.
    """
    if ray.is_initialized():
        return
    for name, value in WORKER_ENV.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {
        "runtime_env": {"env_vars": WORKER_ENV},
        "log_to_driver": bool(os.environ.get("ANTIPHON_WORKER_LOGS")),
        "logging_level": logging.ERROR,
    }
    if os.environ.get("RAY_ADDRESS", "local") != "local":
        ray.init(**quiet)
        return
    # A cluster of this process alone, on loopback: a token would guard nothing and has no one to hand it out.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    # Training wants the dashboard: without it Ray Train cannot clean up after a killed run.
    ray.init(include_dashboard=dashboard, dashboard_host="127.0.0.1", **quiet)
