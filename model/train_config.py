"""Configuration of training: the phases, the optimizer, and how the work lies on the workers."""

from typing import Literal

from pydantic import Field, model_validator

from data.frozen import Frozen, placement


class LoraConfig(Frozen):
    """Low-rank adapters (Hu et al. 2021) through peft, merged into the model on export."""

    r: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        description="names of the adapted modules",
    )


class PhaseConfig(Frozen):
    """One training phase. Each starts from the weights of the one before."""

    name: str
    steps_fraction: float = Field(gt=0, le=1, description="share of train.steps")
    weights: dict[str, float] = Field(description="mixture group -> share of the tokens; they sum to 1")
    objective: Literal["lm"] = "lm"
    lr: float = Field(2e-3, gt=0)
    warmup_steps: int = Field(30, ge=0)
    decay_fraction: float = Field(0.5, ge=0, le=1, description="final share of the phase with linear decay")
    min_lr_ratio: float = Field(0.03, ge=0, le=1, description="lr at the end of the phase / lr")
    loss_weights: dict[str, float] = Field({}, description="task -> weight of its target tokens (default 1)")
    crop_probability: float = Field(
        0.0,
        ge=0,
        le=1,
        description="chance that a speech-text record is cut to a span of words at its first visits",
    )
    crop_end_fraction: float = Field(
        0.5, ge=0, le=1, description="share of the phase's steps after which cropping ends"
    )
    lora: LoraConfig | None = None
    mixture_target: bool = Field(False, description="whether mixture=PATH replaces this phase's weights")

    @model_validator(mode="after")
    def _weights_sum_to_one(self) -> "PhaseConfig":
        total = sum(self.weights.values())
        if abs(total - 1) > 1e-6 or any(weight < 0 for weight in self.weights.values()):
            raise ValueError(
                f"weights of phase {self.name!r} sum to {total:g}: give non-negative weights that sum to 1"
            )
        return self


class TrainConfig(Frozen):
    """train: token store -> checkpoints -> model folder."""

    steps: int = Field(1500, ge=1, description="optimizer steps over all phases")
    phases: tuple[PhaseConfig, ...]
    sequence_length: int = Field(512, ge=16, description="tokens of one packed row")
    global_batch_rows: int = Field(8, ge=1, description="packed rows of one step over all workers")
    micro_batch_rows: int = placement(2, "rows of one forward pass on one worker", ge=1)
    weight_decay: float = Field(0.05, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    clip_grad_norm: float = Field(1.0, gt=0)
    dtype: Literal["auto", "bf16", "fp32"] = Field("auto", description="auto: bf16 where the device computes it fast")
    zero_stage: int = Field(2, ge=0, le=3, description="DeepSpeed ZeRO stage")
    num_workers: int = placement(2, "training processes", ge=1)
    save_every: int = placement(200, "steps between checkpoints", ge=1)
    keep_checkpoints: int = placement(2, "checkpoints kept", ge=1)
    max_failures: int = placement(3, "worker failures survived before the job fails", ge=0)
    num_cpus: float = placement(1.0, "CPUs of one worker", ge=0)
    num_gpus: float = placement(0.0, "GPUs of one worker", ge=0)

    @model_validator(mode="after")
    def _fractions_sum_to_one(self) -> "TrainConfig":
        total = sum(phase.steps_fraction for phase in self.phases)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train.phases[*].steps_fraction sum to {total:g}: they must sum to 1")
        return self
