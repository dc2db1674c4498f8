"""What every training worker does: the phases of a run, one after the other, from wherever the last checkpoint is.

No ray in here: the loop runs in any torch.distributed process group. All phases share the process and its group.
"""

import gc
import logging
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist

from data import storage
from data.packing import Batch
from data.vocabulary import TEXT_BLOCK
from model.checkpoint import (
    complete_checkpoints,
    load_checkpoint,
    read_manifest,
    save_checkpoint,
    step_name,
)
from model.engine import StepResult, resolve_dtype, run_step, start_engine
from model.export import INFO_FILE
from model.flops import FlopCount
from model.freezing import freeze
from model.loss_parts import LossParts
from model.schedule import PhasePlan, learning_rate
from model.train_step import to_tensors
from ray_jobs.train_log import DataWait, TrainLog
from ray_jobs.train_parts import TrainParts, base_of, export_checkpoint, first_model
from ray_jobs.train_sinks import Sink
from ray_jobs.train_stream import read_batches, resume_stream, sampler_state, stream_fingerprint
from ray_jobs.train_validation import Validation

log = logging.getLogger("antiphon")

CHECKPOINTS = "checkpoints"
Report = Callable[[str, dict[str, Any]], None]


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

    def run(self) -> None:
        """Train every phase that is not done, and export each but the last when it is."""
        self._clean()
        for plan in self.parts.phases:
            latest = next(reversed(complete_checkpoints(storage.join(self.folder, CHECKPOINTS))), None)
            done = read_manifest(latest)["step"] if latest else 0
            if done < plan.last_step:
                latest = self._run_phase(plan, latest if done > plan.first_step else None)
            if plan is not self.parts.phases[-1] and (done <= plan.last_step):
                self._export_phase(plan, str(latest))
        if self._log is not None:
            self._log.close()

    def report_again(self, known: set[str]) -> None:
        """Tell of the checkpoints that an earlier run left and that are not among the names `known`."""
        for checkpoint in complete_checkpoints(storage.join(self.folder, CHECKPOINTS)):
            if checkpoint.rsplit("/", 1)[-1] not in known:
                manifest = read_manifest(checkpoint)
                self._report(checkpoint, {"step": manifest["step"], "phase": manifest["phase"], **manifest["metrics"]})

    def _clean(self) -> None:
        """Sets without a manifest are what a killed run left; rows after the checkpoint will be written again."""
        if self._log is not None:
            root = storage.join(self.folder, CHECKPOINTS)
            complete = complete_checkpoints(root)
            folders = {name.split("/")[0] for name in storage.list_files(root) if name.startswith("step-")}
            for name in sorted(folders):
                if storage.join(root, name) not in complete:
                    storage.delete(storage.join(root, name))
            done = read_manifest(complete[-1])["step"] if complete else 0
            self._log.start(done, self.parts.phases[-1].last_step)
        dist.barrier()

    def _run_phase(self, plan: PhasePlan, resume: str | None) -> str:
        """Train a phase from its start or from a checkpoint within it; the checkpoint at its end."""
        base = base_of(self.parts, plan)
        validation = Validation(self.parts, plan, self.device, lambda: first_model(self.parts, plan, self.folder, base))
        lm = first_model(self.parts, plan, self.folder, base).to(self.device)
        freeze(lm, plan.config.trainable, self.parts.vocabulary.block(TEXT_BLOCK).size)
        flops, wait = FlopCount.of(lm), DataWait()
        stream = self.parts.stream(plan)
        sources = tuple(stream.sources.members)
        engine = start_engine(lm, self.train, self.dtype, plan.config, LossParts.of(sources, self.parts.vocabulary))
        first = load_checkpoint(resume, engine)["step"] if resume else plan.first_step
        log.info("train: phase %s, steps %d to %d", plan.config.name, first + 1, plan.last_step)
        checkpoint = ""
        if resume:
            resume_stream(self.parts, stream, resume)
        identity = stream_fingerprint(self.parts, plan) if self.rank == 0 else {}
        if self._log is not None:
            self._log.start_phase(flops, self.parts.vocabulary.pad_id, wait)
        batches = read_batches(stream, plan, self.train, first, self.rank, self.world_size)
        for step, batch, batch_hash in wait.watch(batches):
            local = step - plan.first_step
            lr = learning_rate(plan.config, plan.steps, local)
            rows = to_tensors(batch, self.device, sources)
            result = run_step(engine, rows, self.train, lr, self.parts.vocabulary.pad_id)
            found = {"lr": lr, "batch_hash": batch_hash, **validation.after(step + 1, engine)}
            self._log_step(plan, step + 1, result, found, batch)
            if (step + 1) % self.train.save_every == 0 or step + 1 == plan.last_step:
                sampled = {"sampler": sampler_state(stream, local + 1), "fingerprint": identity}
                checkpoint = self._save(engine, plan, step + 1, result, sampled)
        engine.destroy()
        del engine, lm
        gc.collect()
        return checkpoint

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

    def _save(self, engine: Any, plan: PhasePlan, step: int, result: StepResult, sampled: dict[str, Any]) -> str:
        checkpoint = storage.join(self.folder, CHECKPOINTS, step_name(step))
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
            "metrics": {"loss": result.loss},
            **sampled,
        }
        if self._log is not None:
            self._log.flush()
        save_checkpoint(checkpoint, engine, facts)
        self._report(checkpoint, {"step": step, "phase": plan.config.name, "loss": result.loss})
        return checkpoint

    def _export_phase(self, plan: PhasePlan, checkpoint: str) -> None:
        """phases/NAME/, from which the next phase starts."""
        target = storage.join(self.folder, "phases", plan.config.name)
        if self.rank == 0 and not storage.exists(storage.join(target, INFO_FILE)):
            export_checkpoint(self.parts, checkpoint, target)
        dist.barrier()
