"""SIGTERM to a training: the driver asks, by a file in the run folder; the workers save and end.

The file reaches workers on any node, and `touch`ing it oneself does the same.
"""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch.distributed as dist

from data import storage
from data.errors import RunError
from model.checkpoint_files import CHECKPOINTS, newest_readable

log = logging.getLogger("antiphon")

STOP = "stop.json"
LOOK_EVERY_S = 0.5


@contextmanager
def saving_on_sigterm(folder: str, grace_s: float) -> Iterator[None]:
    """While this lasts, SIGTERM asks the workers to save and end. Raises RunError at its end where that was asked, and
    `grace_s` after an asking in vain; both name the newest checkpoint.

    In another thread than the main one signals cannot be caught: nothing changes there.
    """
    path = storage.join(folder, STOP)
    storage.delete(path)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            return  # a second one gives no more time
        asked.set()
        signal.setitimer(signal.ITIMER_REAL, grace_s)
        log.warning("train: SIGTERM: saving after this step, within %.0f s", grace_s)
        try:
            storage.write_json(path, {"signal": "SIGTERM"})
        except OSError as error:
            raise RunError(f"SIGTERM: the workers cannot be asked to save: {error}; {_newest(folder)}") from None

    def end(number: int, frame: FrameType | None) -> None:
        raise RunError(f"SIGTERM: no checkpoint within train.grace_s={grace_s:g}; {_newest(folder)}")

    before = signal.signal(signal.SIGTERM, ask), signal.signal(signal.SIGALRM, end)
    try:
        yield
        if asked.is_set():  # too late for the workers to see
            raise RunError(f"asked to stop, after the last step: {_newest(folder)}; run this again to go on")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGALRM, before[1])
        storage.delete(path)


def _newest(folder: str) -> str:
    try:
        found = newest_readable(storage.join(folder, CHECKPOINTS))
    except OSError:  # what is said of the stop must not be lost to a storage that does not answer
        return f"the checkpoints in {folder} stay as they are"
    return f"the newest whole checkpoint is {found[0]}" if found else "there is no checkpoint yet"


class StopRequest:
    """Whether the run is asked to stop, as worker 0 sees it; it looks in a thread of its own."""

    def __init__(self, folder: str) -> None:
        self._path = storage.join(folder, STOP)
        self._seen, self._closed = threading.Event(), threading.Event()
        if dist.get_rank() == 0:
            threading.Thread(target=self._look, daemon=True).start()

    @property
    def seen(self) -> bool:
        """True on worker 0 once it is asked, False on the others."""
        return self._seen.is_set()

    def close(self) -> None:
        """Look no more."""
        self._closed.set()

    def _look(self) -> None:
        while not self._closed.wait(LOOK_EVERY_S):
            try:
                asked = storage.exists(self._path)
            except OSError as error:  # a storage that fails once must not make the run deaf
                log.warning("train: cannot look for %s, will look again: %s", self._path, error)
                continue
            if asked:
                self._seen.set()
                return
