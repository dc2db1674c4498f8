"""Ray Data graph of tokenize_speech: shard plans in, a pool of actors that write shards, counts out.

What travels through the object store are plans and counts of some hundred bytes; audio is read, decoded and encoded
inside one actor, and codes leave it as Parquet.

The graph runs in an actor of its own, the conductor, beside the driver. It keeps the board that the workers report
to, so the driver can tell slow from stuck at any time; and everything it has started ends with it, so the driver can
give up on a stuck graph whatever it is stuck in.
"""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from data.config import TokenizeConfig
from ray_jobs.tokenize_shard import ShardPlan, ShardTokenizer, UtteranceEncoder
from ray_jobs.tokenize_watch import Board, Status, Watchdog, WorkerState

OPERATOR = "MapBatches(ShardActor)"
PLAN_FIELDS = tuple(ShardPlan.__dataclass_fields__)
POLL_S = 0.5
LOOP_S = 1.0  # between rounds of Ray Data's loop while no task ends; by its default of 0.1 it takes 4 % of a core
BEAT_S = 1.0
# More blocks than that cost the scheduler more than they give; a block then holds several plans.
MAX_BLOCKS = 4096


def tokenize_shards(
    plans: Sequence[ShardPlan],
    manifest_path: str,
    tokenizers: Mapping[str, str],
    folder: str,
    config: TokenizeConfig,
    encoder_kind: type[UtteranceEncoder] = UtteranceEncoder,
    show: Callable[[Status], None] = lambda status: None,
) -> None:
    """Write the shards of `plans` into `folder` on the cluster that Ray is joined to.

    An actor that dies is replaced and its shard begun anew (Ray Data retries system faults without end; the shard's
    second attempt is guarded, see ShardTokenizer.write). An exception in our own code fails the job. `show` gets the
    status several times a second. Raises StalledError when nothing has moved for config.stall_s.
    """
    if not plans:
        return
    # On the driver's node: it must not be lost with a node that the job would survive.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    conductor: Any = ray.remote(Conductor).options(num_cpus=0, max_concurrency=4, scheduling_strategy=here).remote()
    arguments = (manifest_path, dict(tokenizers), config.max_duration_s, config.batch_seconds, decode_threads(config))
    running = conductor.run.remote(list(plans), encoder_kind, arguments, folder, config.model_dump())
    watchdog = Watchdog(config.stall_s, OPERATOR)
    try:
        finished: list[Any] = []
        while not finished:
            finished, _ = ray.wait([running], timeout=POLL_S)
            status = ray.get(conductor.status.remote(), timeout=config.stall_s)
            show(status)
            if not finished:
                watchdog.check(status)
        ray.get(running)
    finally:
        ray.kill(conductor)


def decode_threads(config: TokenizeConfig) -> int:
    """Threads that decode in one actor."""
    return max(1, int(config.num_cpus))


class Conductor:
    """Runs the graph and keeps its board."""

    def __init__(self) -> None:
        self._board = Board()
        self._lock = threading.Lock()

    def run(
        self,
        plans: list[ShardPlan],
        encoder_kind: type[UtteranceEncoder],
        arguments: tuple[Any, ...],
        folder: str,
        config: dict[str, Any],
    ) -> None:
        """Write every shard. `config` are the fields of TokenizeConfig."""
        from ray.data import ActorPoolStrategy, DataContext, from_items
        from ray.data._internal.execution import streaming_executor_state

        streaming_executor_state.WAIT_FOR_TASK_COMPLETION_TIMEOUT_S = LOOP_S  # Ray has no setting for it
        context = DataContext.get_current()
        context.enable_progress_bars = False
        # Ray's own guard sees only whole shards come out, and would call a long one stuck.
        context.execution_no_progress_timeout_s = -1
        settings = TokenizeConfig(**config)
        actors = min(settings.num_workers, len(plans))
        me = ray.get_runtime_context().current_actor
        dataset = from_items([asdict(plan) for plan in plans], override_num_blocks=min(len(plans), MAX_BLOCKS))
        counts = dataset.map_batches(
            ShardActor,
            fn_constructor_args=(encoder_kind, arguments, folder, me),
            batch_size=1,
            # A pool of fixed size never replaces an actor that leaves by itself; a bounded one does.
            compute=ActorPoolStrategy(min_size=1, max_size=actors, initial_size=actors),
            num_cpus=settings.num_cpus,
            num_gpus=settings.num_gpus or None,
        )
        for row in counts.iter_rows():
            with self._lock:
                self._board.finish(row["shard"], row["seconds"])

    def report(self, state: WorkerState) -> None:
        """What a worker says of itself."""
        with self._lock:
            self._board.report(state)

    def status(self) -> Status:
        """How things stand."""
        with self._lock:
            return self._board.status()


class ShardActor:
    """A worker of the pool. `encoder_kind` lets tests put a faulty encoder in."""

    def __init__(
        self, encoder_kind: type[UtteranceEncoder], arguments: tuple[Any, ...], folder: str, conductor: Any
    ) -> None:
        import torch

        torch.set_num_threads(1)
        context = ray.get_runtime_context()
        self._name = f"actor {context.get_actor_id()} (pid {os.getpid()}, node {context.get_node_id()})"
        self._conductor = conductor
        self._tokenizer: ShardTokenizer | None = None
        threading.Thread(target=self._beat, daemon=True).start()
        self._tokenizer = ShardTokenizer(encoder_kind(*arguments), folder)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        assert self._tokenizer is not None
        plans = [ShardPlan(*(batch[name][i].item() for name in PLAN_FIELDS)) for i in range(len(batch["index"]))]
        parts = [self._tokenizer.write(plan) for plan in plans]
        return {
            "shard": [plan.name for plan in plans],
            "seconds": [float(part["seconds"]) for part in parts],
        }

    def _beat(self) -> None:
        """Tell the conductor what is done, once a second where it has changed: from a thread of its own, because a
        worker that hangs cannot say so itself."""
        last, pause = None, threading.Event()
        while True:
            state = self._state()
            if state != last:
                self._conductor.report.remote(state)
                last = state
            pause.wait(BEAT_S)

    def _state(self) -> WorkerState:
        if self._tokenizer is None:
            return WorkerState(self._name, "", "loading the audio tokenizers", 0.0)
        tokenizer = self._tokenizer
        return WorkerState(self._name, tokenizer.shard, tokenizer.encoder.doing, tokenizer.seconds)
