"""The store that a training reads: in memory, or, where it is large, by a sidecar in the run's folder.

The process that holds the run folder's lease makes the sidecar, before workers start; they find it there. Without one,
everybody reads the store into memory.
"""

import logging
import time
from typing import Any

from data import storage
from data.config import GrammarConfig
from data.errors import InputError
from data.frozen import result_fields
from data.sidecar import Describe, Sidecar, build_sidecar, open_sidecar, sidecar_fingerprint

log = logging.getLogger("antiphon")

SIDECAR = "sidecar"
LARGE_STORE_BYTES = 512 * 2**20  # of shards; as records in memory they take several times as much on every worker
SPLIT = "train"


def is_large(store: str) -> bool:
    """Whether a store is better read by a sidecar."""
    sizes = storage.list_sizes(store)
    return sum(size for name, size in sizes.items() if name.endswith(".parquet")) >= LARGE_STORE_BYTES


def make_sidecar(store: str, run_folder: str, fingerprint: str, describe: Describe) -> None:
    """Make the sidecar of a large store in the run's folder, where none with this fingerprint is there."""
    if not is_large(store):
        return
    folder = storage.join(run_folder, SIDECAR)
    try:
        if open_sidecar(folder, fingerprint) is not None:
            return
    except InputError as error:
        log.info("train: %s; making it again", error)
    log.info("train: the store is large: its records are measured once, into %s", folder)
    started = time.monotonic()
    build_sidecar(store, folder, describe, fingerprint, SPLIT)
    log.info("train: measured in %.0f s", time.monotonic() - started)


def find_sidecar(run_folder: str | None, fingerprint: str) -> Sidecar | None:
    """The sidecar in a run's folder, None without one. Raises InputError for that of another store or recipe."""
    return None if run_folder is None else open_sidecar(storage.join(run_folder, SIDECAR), fingerprint)


def fingerprint_of(store: str, grammar: GrammarConfig, text_tokenizer: Any, base: Any) -> str:
    """What the lengths of records hang on: the store, the sequences, the text tokenizer, and the vocabulary (JSON)
    that is extended."""
    backend = getattr(text_tokenizer, "backend_tokenizer", None)
    tokenizer = sorted(text_tokenizer.get_vocab().items()) if backend is None else backend.to_str()
    return sidecar_fingerprint(store, {"grammar": result_fields(grammar), "tokenizer": tokenizer, "base": base})
