"""Configuration of what only the job layer knows: the mixture search and the demo."""

from pydantic import Field

from data.frozen import Frozen, placement


class LicencesConfig(Frozen):
    """What the model card says of licences: SPDX ids in small letters, or words."""

    model: str | None = Field(
        None, description="of the weights; null: apache-2.0 where corpus and weights were made here, else unknown"
    )
    base_model: str | None = Field(None, description="of the model that was started from; null: unknown")
    data: str | None = Field(None, description="of the corpus; null: what its adapter knows")


class TuneConfig(Frozen):
    """tune: many short trainings that differ only in the mixture."""

    groups: tuple[str, ...] = Field(("asr", "tts", "lm", "music"), description="mixture groups searched over")
    num_trials: int = Field(8, ge=2, description="points of the simplex tried; the first is the uniform mixture")
    steps: int = Field(120, ge=2, description="optimizer steps of one trial at most")
    report_every: int = Field(30, ge=1, description="steps between evaluations, where ASHA may stop a trial")
    batch_rows: int = Field(4, ge=1, description="packed rows of one step")
    hidden_size: int = Field(96, ge=8, description="width of the proxy model")
    num_layers: int = Field(2, ge=1, description="layers of the proxy model")
    lr: float = Field(3e-3, gt=0)
    dev_rows: int = Field(16, ge=1, description="packed rows of held-out loss per task")
    max_concurrent_trials: int = placement(2, "trials at the same time", ge=1)
    workers_per_trial: int = placement(0, "0: a trial is one process; more: a worker group, for several GPUs", ge=0)
