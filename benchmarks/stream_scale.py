"""What a store of millions of utterances costs: time to the first batch, memory, and the making of its sidecar.

    python -m benchmarks.stream_scale < request.json

A process of its own: {"part": "start" | "sidecar", "folder": …} in, one line of JSON out.
"""

import json
import resource
import sys
import time
from typing import Any

import numpy as np
import psutil

from benchmarks.stream_corpus import UNIT_ALONE, order_of_ids, unit_tables
from benchmarks.stream_speed import make_grammars, make_stream
from data import storage
from data.lengths import Lengths
from data.sidecar import build_sidecar, measured_lengths, open_sidecar, sidecar_fingerprint, store_lengths, store_rows

FINGERPRINT = "generated"
STEPS = 300  # after the first batch, before memory is read


def generate_sidecar(folder: str, count: int) -> None:
    """The sidecar of a store that was never written: `count` rows of units alone."""
    rows = store_rows(folder, unit_tables(count, np.random.default_rng(7)), UNIT_ALONE)
    grammars, _ = make_grammars(("unit_lm",), UNIT_ALONE, [])
    store_lengths(folder, Lengths(order_of_ids(count), measured_lengths(rows, grammars, "train")), FINGERPRINT, {})


def measure_start(folder: str) -> dict[str, Any]:
    """Seconds from nothing but imports to the first batch, and the process's peak memory after some more."""
    import tokenizers  # noqa: F401
    import transformers  # noqa: F401

    imported_mb = _peak_mb()
    started = time.perf_counter()
    grammars, _ = make_grammars(("unit_lm",), UNIT_ALONE, [])
    opened = open_sidecar(folder, FINGERPRINT)
    assert opened is not None
    stream = make_stream(opened[0], grammars, "unit_lm", opened[1])
    stream.rows(0)
    startup_s = time.perf_counter() - started
    used, begun = 0, time.perf_counter()
    for step in range(1, STEPS):
        stream.rows(step)
        used += sum(document.num_tokens for row in stream.plan(step) for document in row)
    tokens_per_s = used / (time.perf_counter() - begun)
    now = psutil.Process().memory_full_info()
    return {
        "utterances": len(opened[0].records),
        "startup_s": startup_s,
        "tokens_per_s": tokens_per_s,
        "peak_mb": _peak_mb(),
        "imported_mb": imported_mb,
        "unshared_mb": now.uss / 2**20,
    }


def measure_sidecar(folder: str) -> dict[str, Any]:
    """Seconds that the sidecar of a stored store takes, for units and for texts."""
    grammars, _ = make_grammars(
        ("unit_lm", "text_lm"), UNIT_ALONE, storage.read_json(storage.join(folder, "words.json"))
    )
    started = time.perf_counter()
    side = storage.join(folder, "sidecar")
    fingerprint = sidecar_fingerprint(folder, None)
    build_sidecar(folder, side, lambda _: (grammars, {}), fingerprint, "train")
    wall_s = time.perf_counter() - started
    opened = open_sidecar(side, fingerprint)
    assert opened is not None
    return {"utterances": len(opened[0].records), "wall_s": wall_s, "peak_mb": _peak_mb()}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    """One measurement."""
    request = json.loads(sys.stdin.readline())
    found = {"start": measure_start, "sidecar": measure_sidecar}[request["part"]](request["folder"])
    print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
