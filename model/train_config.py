"""Configuration of training: the phases, the optimizer, and how the work lies on the workers."""

from typing import Any, Literal

from pydantic import Field, model_validator

from data.config import PhaseMixture
from data.frozen import Frozen, placement
from model.deepspeed_config import check_extra

Offload = Literal["none", "cpu", "nvme"]


class LoraConfig(Frozen):
    """Low-rank adapters (Hu et al. 2021) through peft."""

    r: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: tuple[str, ...] | str = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        description="names of the adapted modules, a regular expression of whole names, or all-linear",
    )
    exclude: tuple[str, ...] = Field((), description="names of modules left out of the targets")
    layers: tuple[int, ...] | None = Field(None, description="layers adapted, from 0; null: all")
    export: Literal["merged", "adapter"] = Field(
        "merged",
        description="merged: the model folder is a plain model; adapter: the adapters are in its adapter/ as well",
    )


class PhaseConfig(PhaseMixture):
    """One training phase. Each starts from the weights of the one before."""

    steps_fraction: float = Field(gt=0, le=1, description="share of train.steps")
    objective: Literal["lm"] = "lm"
    lr: float = Field(2e-3, gt=0)
    schedule: Literal["wsd", "cosine", "linear", "constant"] = Field(
        "wsd", description="after the warm-up: constant then linear decay, half a cosine, linear decay, or constant"
    )
    warmup_steps: int = Field(30, ge=0)
    warmup_ratio: float | None = Field(None, ge=0, le=0.5, description="warm-up as a share of the phase, not in steps")
    decay_fraction: float = Field(0.5, ge=0, le=1, description="wsd: final share of the phase with linear decay")
    min_lr_ratio: float = Field(0.03, ge=0, le=1, description="lr at the end of the phase / lr")
    lora: LoraConfig | None = None
    trainable: Literal["all", "new_rows", "embeddings", "lora"] | tuple[str, ...] | None = Field(
        None,
        description="what trains beside the adapters: all, new_rows (embedding rows after the text tokenizer's), "
        "embeddings, lora (nothing else), or regular expressions found in weights' names; null: lora where the phase "
        "has adapters, else all",
    )
    mixture_target: bool = Field(False, description="whether mixture=PATH replaces this phase's weights")
    start_from: str | None = Field(
        None,
        description="folder or hub id of the model to start from; null: what the phase before left",
        json_schema_extra={"absent_when_default": True},
    )
    validation: tuple[str, ...] | None = placement(
        None, "tasks whose held-out loss is taken every train.validate_every steps; null: those that it trains"
    )

    @model_validator(mode="after")
    def _trains_something(self) -> "PhaseConfig":
        if self.trainable == "lora" and self.lora is None:
            raise ValueError(f"phase {self.name!r} has trainable: lora and no adapters: give it a lora section")
        if self.trainable == "all" and self.lora is not None:
            raise ValueError(f"phase {self.name!r} has adapters and trainable: all: leave one of them out")
        # Not by model_fields_set: a recipe that is sent to a worker has every field set.
        if self.warmup_ratio is not None and self.warmup_steps != type(self).model_fields["warmup_steps"].default:
            raise ValueError(f"phase {self.name!r} has both warmup_steps and warmup_ratio: give one of them")
        return self

    @model_validator(mode="after")
    def _target_has_no_schedule(self) -> "PhaseConfig":
        if self.mixture_target and self.weight_schedule:
            raise ValueError(
                f"phase {self.name!r} has mixture_target and weight_schedule: a mixture that was searched for is one "
                "point; leave one of them out"
            )
        return self


class KeepBest(Frozen):
    """Which checkpoints are kept for their metrics, beside the newest."""

    metric: str = Field("loss", description="a number of the checkpoint's metrics")
    mode: Literal["min", "max"] = "min"
    count: int = Field(1, ge=1)


class TrainConfig(Frozen):
    """train: token store -> checkpoints -> model folder."""

    steps: int = Field(1500, ge=1, description="optimizer steps over all phases")
    phases: tuple[PhaseConfig, ...]
    sequence_length: int = Field(512, ge=16, description="tokens of one packed row")
    over_long: Literal["drop", "split", "error"] = Field(
        "drop",
        description="documents longer than a row: drop counts and leaves them out; split cuts those of tasks without a "
        "prompt into rows (and drops others); error ends the run",
    )
    global_batch_rows: int = Field(8, ge=1, description="packed rows of one step over all workers")
    micro_batch_rows: int = placement(2, "rows of one forward pass on one worker", ge=1)
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw", description="muon: for the matrices of the layers; embeddings, heads and norms keep AdamW"
    )
    muon_momentum: float = Field(0.95, ge=0, lt=1)
    weight_decay: float = Field(0.05, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    clip_grad_norm: float = Field(1.0, gt=0)
    z_loss: float = Field(0.0, ge=0, description="weight of the squared log partition function (1e-4 is usual)")
    dtype: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto", description="auto: bf16 where the device computes it fast; fp16 needs GPUs"
    )
    zero_stage: int = Field(2, ge=0, le=3, description="DeepSpeed ZeRO stage")
    offload_optimizer: Offload = placement("none", "where the optimizer's state lies (zero_stage 1 to 3)")
    offload_parameters: Offload = placement("none", "where the weights lie between uses (zero_stage 3)")
    offload_path: str | None = placement(
        None, "local folder on NVMe for what is offloaded there: planned by --dry-run, refused at the start (untested)"
    )
    activation_checkpointing: bool = placement(False, "compute activations again in the backward pass, to keep fewer")
    compile: bool = placement(False, "torch.compile of the layers; pays for itself after minutes")
    attention: Literal["auto", "packed", "varlen", "flex", "sdpa", "eager"] = placement(
        "auto", "how packed documents attend: auto: varlen (FlashAttention) on GPUs that have it, else packed"
    )
    cross_entropy: Literal["auto", "whole", "chunked", "liger"] = placement(
        "auto", "auto: whole logits while they are small, chunked beyond; liger only when asked for"
    )
    deepspeed: dict[str, Any] = Field({}, description="further DeepSpeed configuration, passed through")
    num_workers: int = placement(2, "training processes", ge=1)
    loader_threads: int = placement(
        1, "threads of a worker that render batches, each of a step of its own", ge=1, le=32
    )
    resume_anyway: bool = placement(
        False, "go on from a checkpoint although the store, the mixture or the vocabulary has changed since"
    )
    save_every: int = placement(200, "steps between checkpoints", ge=1)
    keep_checkpoints: int = placement(2, "newest checkpoints kept", ge=1)
    keep_best: KeepBest | None = placement(None, "checkpoints kept beside the newest, for a metric")
    max_failures: int = placement(3, "worker failures survived before the job fails", ge=0)
    stall_s: float = placement(900.0, "seconds without progress after which a worker has stalled", gt=0)
    start_s: float = placement(300.0, "seconds the cluster may take to give the workers their places", gt=0)
    grace_s: float = placement(25.0, "seconds after SIGTERM within which a checkpoint is saved", gt=0)
    num_cpus: float = placement(1.0, "CPUs of one worker", ge=0)
    num_gpus: float = placement(0.0, "GPUs of one worker", ge=0)
    log_every: int = placement(20, "steps between progress lines", ge=1)
    sinks: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = placement(
        ("tensorboard",), "where the numbers of metrics.jsonl go as well"
    )
    validate_every: int = placement(
        0, "steps between held-out losses, which are also taken at a phase's end; 0: never", ge=0
    )
    validation_rows: int = placement(8, "packed rows of held-out records per task, at most", ge=1)
    probe_utterances: int = placement(0, "held-out records per task that are decoded beside the losses", ge=0)
    probe_tasks: tuple[str, ...] = placement(("asr", "tts"), "which of the validated tasks the probe decodes")
    probe_tokens: int = placement(200, "tokens that the probe decodes per record, at most", ge=1)

    @model_validator(mode="after")
    def _fits_together(self) -> "TrainConfig":
        stage = self.zero_stage
        if self.optimizer == "muon" and stage:
            raise ValueError(f"train.optimizer muon needs whole matrices: set train.zero_stage=0 (it is {stage})")
        if self.dtype == "fp16" and not (self.num_gpus and stage):
            raise ValueError(
                "train.dtype fp16 needs train.num_gpus above 0 and train.zero_stage 1 to 3: use bf16 or fp32"
            )
        if self.compile and stage == 3:
            raise ValueError("train.compile was not shown to work at train.zero_stage=3: use 0 to 2")
        if self.offload_optimizer != "none" and not stage:
            raise ValueError("train.offload_optimizer needs train.zero_stage 1 to 3: it is 0")
        if self.offload_parameters != "none" and stage != 3:
            raise ValueError(f"train.offload_parameters needs train.zero_stage=3: it is {stage}")
        if "nvme" in (self.offload_optimizer, self.offload_parameters):
            if stage != 3 or self.offload_path is None:
                raise ValueError("offloading to nvme needs train.zero_stage=3 and train.offload_path (a local folder)")
        elif self.offload_path is not None:
            raise ValueError("train.offload_path is for nvme: set train.offload_optimizer=nvme, or leave it out")
        check_extra(self.deepspeed)
        return self

    @model_validator(mode="after")
    def _fractions_sum_to_one(self) -> "TrainConfig":
        total = sum(phase.steps_fraction for phase in self.phases)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train.phases[*].steps_fraction sum to {total:g}: they must sum to 1")
        return self
