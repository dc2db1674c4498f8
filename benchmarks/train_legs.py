"""The legs of the training benchmark: one process each (two for two workers), alive all the time and let run by turns.

    job      the product: token stream, train step, DeepSpeed engine, log, on plain gloo processes
    bare     a plain PyTorch loop over the same packed batches, rendered beforehand; the same loss and optimizer
    trainer  Hugging Face's Trainer over the same documents, each batch padded to its longest

A process stops at the end of every chunk, says what it did, and goes on when told to.
"""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from benchmarks.train_setup import TASK
from data import storage
from ray_jobs.recipe import Recipe
from ray_jobs.session import WORKER_ENV
from ray_jobs.train_metrics import rows_after
from ray_jobs.train_parts import TrainParts, first_model, load_parts

TIMEOUT_S = 600.0
RENDERED_STEPS = 64
ENVIRONMENT = {
    **WORKER_ENV,
    "DS_ACCELERATOR": "cpu",
    "GLOO_SOCKET_IFNAME": "lo",
    "CUDA_VISIBLE_DEVICES": "",  # the legs compare loops on CPU cores
}
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["benchmarks.train_imports"])


class Leg:
    """The processes of one leg, seen from outside. `request` holds plain values: loop, recipe, inputs, workers, …"""

    def __init__(self, name: str, folder: str, request: Mapping[str, Any]) -> None:
        self.name = name
        os.environ.update(ENVIRONMENT)
        self._folder = tempfile.mkdtemp(dir=folder)
        self._connection, theirs = CONTEXT.Pipe()
        workers = request["workers"]
        self._processes: list[Any] = [
            CONTEXT.Process(
                target=run_process, args=(dict(request), self._folder, rank, None if rank else theirs), daemon=True
            )
            for rank in range(workers)
        ]
        for process in self._processes:
            process.start()
        theirs.close()

    def ready(self) -> None:
        """Returns when the leg waits at the start of a chunk. Raises RuntimeError when it does not come to that."""
        self._receive()

    def go(self) -> None:
        """Let it run one chunk."""
        self._connection.send("go")

    def rate(self) -> float:
        """Useful tokens per second of the chunk that was let run."""
        tokens, wall_s = self._receive()
        return tokens / wall_s

    def stop(self) -> None:
        """End its processes."""
        for process in self._processes:
            process.kill()
            process.join(TIMEOUT_S)

    def _receive(self) -> Any:
        if not self._connection.poll(TIMEOUT_S):
            raise RuntimeError(f"leg {self.name} said nothing for {TIMEOUT_S:.0f} s")
        try:
            return self._connection.recv()
        except EOFError:
            raise RuntimeError(f"leg {self.name} died: see its traceback above") from None


class Pacer:
    """Stands in a leg's loop: `pause` at the end of every chunk."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        connection.send("ready")
        connection.recv()
        self._started = time.perf_counter()

    def pause(self, tokens: int) -> None:
        """Say what the chunk did, and wait."""
        self._connection.send((tokens, time.perf_counter() - self._started))
        self._connection.recv()
        self._started = time.perf_counter()


def run_process(request: dict[str, Any], folder: str, rank: int, connection: Any) -> None:
    """What a process of a leg does until it is killed."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    world_size = request["workers"]
    parts = load_parts(Recipe.model_validate(request["recipe"]), request["inputs"])
    if request["loop"] == "job":
        os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)})
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world_size)
    LOOPS[request["loop"]](parts, request, folder, connection)


def job_loop(parts: TrainParts, request: dict[str, Any], folder: str, connection: Any) -> None:
    """The product's own loop. Worker 0 is paced by a sink; the others wait for it in the next step's first sum."""
    from ray_jobs.train_loop import TrainLoop

    sinks = [PacedSink(connection, folder)] if connection is not None else []
    TrainLoop(parts, folder, lambda checkpoint, metrics: None, sinks).run()


class PacedSink:
    """Gets its numbers at the end of every interval, which is a chunk."""

    def __init__(self, connection: Any, folder: str) -> None:
        self._connection, self._folder, self._pacer, self._seen = connection, folder, None, 0

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """See ray_jobs.train_sinks.Sink. The first chunk is start-up: no clock runs yet."""
        if self._pacer is None:
            self._pacer: Any = Pacer(self._connection)
        else:
            self._pacer.pause(sum(row["tokens"] for row in rows_after(self._folder, self._seen)))
        self._seen = step

    def close(self) -> None:
        """See ray_jobs.train_sinks.Sink."""


def bare_loop(parts: TrainParts, request: dict[str, Any], folder: str, connection: Any) -> None:
    """Forward, backward, clip, step."""
    import torch

    from model.engine import build_optimizer
    from model.train_step import StepLoss, target_weight, to_tensors

    train, (plan,) = parts.recipe.train, parts.phases
    stream = parts.stream(plan)
    batches = [to_tensors(stream.rows(step)) for step in range(RENDERED_STEPS)]
    module = StepLoss(first_model(parts, plan, folder, None), autocast=train.dtype == "bf16")
    optimizer = build_optimizer(module, train)
    for group in optimizer.param_groups:
        group["lr"] = plan.config.lr
    weights = [parameter for parameter in module.parameters() if parameter.requires_grad]
    pad_id, tokens = parts.vocabulary.pad_id, 0
    pacer = Pacer(connection)
    for step in range(plan.steps):
        batch = batches[step % RENDERED_STEPS]
        total = target_weight(batch).float()
        for start in range(0, train.global_batch_rows, train.micro_batch_rows):
            loss, _ = module(batch.rows(start, start + train.micro_batch_rows), total)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, train.clip_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        tokens += int((batch.ids_BT != pad_id).sum())
        if (step + 1) % request["chunk_steps"] == 0:
            pacer.pause(tokens)
            tokens = 0


def trainer_loop(parts: TrainParts, request: dict[str, Any], folder: str, connection: Any) -> None:
    """Trainer with a collator that pads each batch to its longest document; `sampling` may group like lengths."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    train, (plan,) = parts.recipe.train, parts.phases
    collator = PaddingCollator(parts.vocabulary.pad_id)
    arguments = TrainingArguments(
        output_dir=storage.join(folder, "trainer"),
        use_cpu=True,
        bf16=train.dtype == "bf16",
        max_steps=plan.steps,
        per_device_train_batch_size=request["documents"],
        gradient_accumulation_steps=request["accumulation"],
        train_sampling_strategy=request["sampling"],
        learning_rate=plan.config.lr,
        lr_scheduler_type="constant",
        weight_decay=train.weight_decay,
        adam_beta1=train.beta1,
        adam_beta2=train.beta2,
        max_grad_norm=train.clip_grad_norm,
        optim="adamw_torch",
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
    )

    class Paced(TrainerCallback):  # type: ignore[misc]
        """Pauses at the end of every chunk."""

        pacer: Any = None

        def on_step_end(self, arguments: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """The first chunk is start-up: no clock runs yet."""
            if state.global_step % request["chunk_steps"]:
                return
            if self.pacer is None:
                self.pacer = Pacer(connection)
            else:
                self.pacer.pause(collator.tokens)
            collator.tokens = 0

    grammar = parts.grammars[TASK]
    documents = [{"input_ids": grammar.tokens(record)[0].tolist()} for record in parts.records]
    lm = first_model(parts, plan, folder, None)
    Trainer(
        model=lm, args=arguments, train_dataset=Documents(documents), data_collator=collator, callbacks=[Paced()]
    ).train()


class Documents:
    """A map-style dataset."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._rows[index]


class PaddingCollator:
    """input_ids, attention_mask and labels (B, longest of B); counts the tokens that are no padding."""

    def __init__(self, pad_id: int) -> None:
        self._pad_id, self.tokens = pad_id, 0

    def __call__(self, rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
        """One micro-batch."""
        import torch

        documents = [torch.tensor(row["input_ids"]) for row in rows]
        self.tokens += sum(len(document) for document in documents)
        pad = torch.nn.utils.rnn.pad_sequence
        mask_BT = pad([torch.ones_like(document) for document in documents], batch_first=True)
        ids_BT = pad(documents, batch_first=True, padding_value=self._pad_id)
        return {"input_ids": ids_BT, "attention_mask": mask_BT, "labels": ids_BT.masked_fill(mask_BT == 0, -100)}


LOOPS: dict[str, Callable[..., None]] = {"job": job_loop, "bare": bare_loop, "trainer": trainer_loop}
