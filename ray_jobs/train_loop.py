"""What every training worker does: the phases of a run, one after the other, from wherever the last checkpoint is.

No ray in here: the loop runs in any torch.distributed process group. All phases share the process and its group.
"""

import gc
import logging
import zlib
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError

from data import storage
from data.errors import RunError
from data.packing import Batch
from data.vocabulary import TEXT_BLOCK
from model.checkpoint import load_checkpoint
from model.checkpoint_files import CHECKPOINTS, complete_checkpoints, read_manifest, step_name, step_of
from model.checkpoint_retention import newest_intact, retire
from model.checkpoint_writer import CheckpointWriter
from model.engine import NotFiniteError, StepResult, resolve_dtype, run_step, start_engine
from model.export import INFO_FILE
from model.flops import FlopCount
from model.freezing import freeze
from model.loss_parts import LossParts
from model.schedule import PhasePlan, learning_rate
from model.train_step import TensorBatch, to_tensors
from ray_jobs.train_export import export_checkpoint
from ray_jobs.train_log import DataWait, TrainLog, flat_numbers
from ray_jobs.train_parts import TrainParts, base_of, first_model
from ray_jobs.train_sinks import Sink
from ray_jobs.train_stop import StopRequest
from ray_jobs.train_stream import read_batches, resume_stream, sampler_state, stream_fingerprint
from ray_jobs.train_validation import Validation
from ray_jobs.train_watchdog import Progress, run_watched

log = logging.getLogger("antiphon")

Report = Callable[[str, dict[str, Any]], None]
LAST_RESORT_S = 24 * 3600.0  # of waits for what may be long; the watchdog ends those in which nobody gets on


class TrainLoop:
    """The training of one worker into `folder`. `report(checkpoint, metrics)` is called by all after each save;
    `sinks` get worker 0's numbers beside those that the recipe names."""

    def __init__(self, parts: TrainParts, folder: str, report: Report, sinks: Iterable[Sink] = ()) -> None:
        self.parts, self.folder, self._report = parts, folder, report
        self.train = parts.recipe.train
        self.dtype = resolve_dtype(self.train.dtype)
        self.device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else "cpu"
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self._log = TrainLog(parts.recipe, folder, self.dtype, self.device, sinks) if self.rank == 0 else None
        self._checkpoints = storage.join(folder, CHECKPOINTS)
        self._saving: tuple[str, dict[str, Any]] | None = None
        self._progress, self._stop = Progress(), StopRequest(folder)

    def run(self) -> None:
        """Train every phase that is not done, and export each but the last when it is.

        Raises RunError, on all workers alike, where going on would help nothing: the loss is no number, a checkpoint
        cannot be written, none can be read, the run was asked to stop. So it is with InputError. Raises StalledError
        when no worker makes progress for `train.stall_s`.
        """
        try:
            run_watched(self._run, self._progress, self.train.stall_s)
        finally:
            self._stop.close()

    def _run(self) -> None:
        self._progress.at("meeting the other workers", 0)
        self._room = dist.new_group(backend="gloo", timeout=timedelta(seconds=LAST_RESORT_S))
        self._writer = CheckpointWriter(LAST_RESORT_S, self._retire, self._progress.beat)
        try:
            self._run_phases()
        finally:
            if self._log is not None:
                self._log.close()

    def _meet(self) -> None:
        """Wait for all workers, however long one of them works on."""
        dist.barrier(group=self._room)

    def _run_phases(self) -> None:
        self._progress.at("reading the newest checkpoint", 0)
        latest = newest_intact(self._checkpoints, self._progress.beat)
        self._clean(latest)
        for plan in self.parts.phases:
            done = read_manifest(latest)["step"] if latest else 0
            if done < plan.last_step:
                latest = self._run_phase(plan, latest if done > plan.first_step else None)
            if plan is not self.parts.phases[-1] and (done <= plan.last_step):
                self._export_phase(plan, str(latest))

    def _clean(self, latest: str | None) -> None:
        """Sets without a manifest are what a killed run left; rows after the checkpoint will be written again."""
        self._progress.at("clearing up after the run before", 0)
        if self._log is not None:
            root = self._checkpoints
            complete = complete_checkpoints(root)
            folders = {name.split("/")[0] for name in storage.list_files(root) if name.startswith("step-")}
            for name in sorted(folders):
                if storage.join(root, name) not in complete:
                    storage.delete(storage.join(root, name))
                    self._progress.beat()
            done = read_manifest(latest)["step"] if latest else 0
            self._log.start(done, self.parts.phases[-1].last_step)
        self._meet()

    def _run_phase(self, plan: PhasePlan, resume: str | None) -> str:
        """Train a phase from its start or from a checkpoint within it; the checkpoint at its end."""
        self._progress.at("drawing the held-out rows", plan.first_step)
        base, alive = base_of(self.parts, plan), self._progress.beat
        validation = Validation(
            self.parts, plan, self.device, lambda: first_model(self.parts, plan, self.folder, base), alive
        )
        self._progress.at("building the model", plan.first_step)
        lm = first_model(self.parts, plan, self.folder, base).to(self.device)
        freeze(lm, plan.config.trainable, self.parts.vocabulary.block(TEXT_BLOCK).size)
        flops, wait = FlopCount.of(lm), DataWait()
        stream = self.parts.stream(plan)
        sources = tuple(stream.sources.members)
        self._progress.at("starting the engine", plan.first_step)
        engine = start_engine(lm, self.train, self.dtype, plan.config, LossParts.of(sources, self.parts.vocabulary))
        self._seed(step_of(resume) if resume else plan.first_step)
        self._progress.at("loading the checkpoint", plan.first_step)
        first = load_checkpoint(resume, engine, alive)["step"] if resume else plan.first_step
        log.info("train: phase %s, steps %d to %d", plan.config.name, first + 1, plan.last_step)
        checkpoint = ""
        if resume:
            resume_stream(self.parts, stream, resume)
        identity = stream_fingerprint(self.parts, plan) if self.rank == 0 else {}
        if self._log is not None:
            self._log.start_phase(flops, self.parts.vocabulary.pad_id, wait)
        self._progress.at("waiting for its batch", first + 1)
        batches = read_batches(stream, plan, self.train, first, self.rank, self.world_size)
        for step, batch, batch_hash in wait.watch(batches):
            self._progress.at("a training step", step + 1)
            lr = learning_rate(plan.config, plan.steps, step - plan.first_step)
            result = self._step(engine, to_tensors(batch, self.device, sources), lr, step + 1, batch_hash)
            self._progress.at("taking held-out losses", step + 1)
            held_out = validation.after(step + 1, engine)
            if held_out:
                self._meet()  # worker 0 has decoded alone
            self._log_step(plan, step + 1, result, {"lr": lr, "batch_hash": batch_hash, **held_out}, batch)
            if (step + 1) % self.train.save_every == 0 or step + 1 == plan.last_step or result.stop:
                sampled = {"sampler": sampler_state(stream, step + 1 - plan.first_step), "fingerprint": identity}
                metrics = {"loss": result.loss, **flat_numbers(held_out)}
                checkpoint = self._save(engine, plan, step + 1, {"metrics": metrics, **sampled})
            if result.stop:
                self._finish_save()
                raise RunError(f"asked to stop, after step {step + 1}: {checkpoint} is saved; run this again to go on")
            self._progress.at("waiting for its batch", step + 2)
        self._finish_save()
        engine.destroy()
        del engine, lm
        gc.collect()
        return checkpoint

    def _seed(self, step: int) -> None:
        """What dropout draws after `step` depends on the run and the worker, not on what this process did before."""
        torch.manual_seed(zlib.crc32(f"{self.parts.recipe.seed} {step} {self.rank}".encode()))

    def _step(self, engine: Any, rows: TensorBatch, lr: float, step: int, batch_hash: str) -> StepResult:
        """One step. Raises RunError, which says where the numbers end, when there is no loss any more."""
        try:
            return run_step(engine, rows, self.train, lr, self.parts.vocabulary.pad_id, self._stop.seen)
        except NotFiniteError as error:
            self._finish_save()
            where = f" of {', '.join(error.sources)}" if error.sources else ""
            raise RunError(
                f"step {step}: {error}{where} (batch {batch_hash or 'of worker 0'}). The checkpoints before it are "
                "whole; lower the phase's lr, or look at what that batch shows"
            ) from None

    def _log_step(self, plan: PhasePlan, step: int, result: StepResult, found: dict[str, Any], batch: Batch) -> None:
        if self._log is None:
            return
        row = {
            "step": step,
            "phase": plan.config.name,
            "loss": result.loss,
            "grad_norm": result.grad_norm,
            "tokens": result.tokens,
            "losses": result.source_losses,
            "modality_losses": result.modality_losses,
            **found,
        }
        self._log.step(plan, row, to_tensors(batch))

    def _save(self, engine: Any, plan: PhasePlan, step: int, found: dict[str, Any]) -> str:
        checkpoint = storage.join(self._checkpoints, step_name(step))
        recipe = self.parts.recipe
        facts = {
            "step": step,
            "phase": plan.config.name,
            "phase_step": step - plan.first_step,
            "phase_steps": plan.steps,
            "cursor_rows": (step - plan.first_step) * self.train.global_batch_rows,
            "global_batch_rows": self.train.global_batch_rows,
            "schedule": plan.config.model_dump(mode="json"),
            "base": base_of(self.parts, plan),
            "dtype": self.dtype,
            "recipe": recipe.model_dump(mode="json"),
            **found,
        }
        if self._log is not None:
            self._log.flush()
        self._finish_save()
        self._progress.at("saving a checkpoint", step)
        self._writer.save(checkpoint, engine, facts)
        self._saving = checkpoint, {"step": step, "phase": plan.config.name, **found["metrics"]}
        return checkpoint

    def _finish_save(self) -> None:
        """Wait for the checkpoint that is being written, if one is, and report it."""
        if self._saving is not None:
            checkpoint, metrics = self._saving
            self._saving = None
            self._progress.at("finishing a checkpoint", metrics["step"])
            self._writer.finish()
            self._report(checkpoint, metrics)

    def _retire(self, checkpoint: str) -> None:
        retire(self._checkpoints, self.train.keep_checkpoints, self.train.keep_best)

    def _export_phase(self, plan: PhasePlan, checkpoint: str) -> None:
        """phases/NAME/, from which the next phase starts."""
        self._progress.at("exporting a phase", plan.last_step)
        target = storage.join(self.folder, "phases", plan.config.name)
        if self.rank == 0 and not storage.exists(storage.join(target, INFO_FILE)):
            try:
                export_checkpoint(self.parts, checkpoint, target, self._progress.beat)
            except (OSError, SafetensorError) as error:
                raise RunError(
                    f"cannot export phase {plan.config.name!r} to {target}: {error}; its checkpoint {checkpoint} is "
                    "whole: make room or mend the storage, then run this again"
                ) from error
        self._meet()
