"""What training's configuration refuses, and the DeepSpeed JSON that it becomes."""

from typing import Any

import pytest
from pydantic import ValidationError

from data.errors import InputError
from model.deepspeed_config import check_saved, check_understood, deepspeed_config, merge, padded_rows
from model.train_config import PhaseConfig
from tests.model.tiny_training import train_config


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"zero_stage": 2, "optimizer": "muon"}, "train.zero_stage=0"),
        ({"zero_stage": 1, "dtype": "fp16"}, "bf16 or fp32"),
        ({"zero_stage": 0, "dtype": "fp16", "num_gpus": 1}, "train.zero_stage 1 to 3"),
        ({"zero_stage": 0, "offload_optimizer": "cpu"}, "train.zero_stage 1 to 3"),
        ({"zero_stage": 2, "offload_parameters": "cpu"}, "train.zero_stage=3"),
        ({"zero_stage": 3, "offload_optimizer": "nvme"}, "train.offload_path"),
        ({"zero_stage": 3, "compile": True}, "use 0 to 2"),
        ({"zero_stage": 3, "offload_path": "/nvme"}, "train.offload_optimizer=nvme"),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_field_to_change(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        train_config(**fields)


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"train_batch_size": 8}, "train.global_batch_rows"),
        ({"optimizer": {"type": "Adam"}}, "train.optimizer"),
        ({"scheduler": {}}, "schedule"),
        ({"zero_optimization": {"stage": 1}}, "train.zero_stage"),
        ({"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}, "train.offload_optimizer"),
        ({"zero_optimization": {"round_robin_gradients": True}}, "silently"),
        ({"zero_optimization": {"compute_grad_norm": False}}, "gradient's norm"),
        ({"managed_gradient_accumulation": False}, "every forward pass would become a step"),
        ({"gradient_allreduce_op": "sum"}, "gradients that are averaged"),
        ({"zero_optimization": 3}, "train.zero_stage"),
        ({"bf16": {"enabled": True}}, "train.dtype"),
    ],
)
def test_a_key_that_a_field_of_ours_decides_is_named(extra: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        train_config(0, deepspeed=extra)


def test_other_deepspeed_keys_pass_through_beside_ours() -> None:
    extra = {
        "zero_optimization": {"overlap_comm": True, "offload_optimizer": {"ratio": 0.5}},
        "prescale_gradients": True,
    }
    config = deepspeed_config(train_config(2, offload_optimizer="cpu", deepspeed=extra), 2)
    assert config["zero_optimization"] == {
        "stage": 2, "overlap_comm": True, "offload_optimizer": {"device": "cpu", "pin_memory": False, "ratio": 0.5},
    }  # fmt: skip
    assert config["prescale_gradients"] is True
    assert config["train_batch_size"] == 6


def test_a_value_where_a_section_belongs_is_refused() -> None:
    with pytest.raises(InputError, match="expected a section"):
        merge({"zero_optimization": {"stage": 1}}, {"zero_optimization": 3})


def test_a_key_that_deepspeed_does_not_know_is_named_before_workers_start() -> None:
    wrong = train_config(2, deepspeed={"zero_optimization": {"reduce_bucket_sise": 1}})
    with pytest.raises(InputError, match=r"look at train.deepspeed: (.|\n)*reduce_bucket_sise"):
        check_understood(wrong)
    check_understood(train_config(2, deepspeed={"zero_optimization": {"reduce_bucket_size": 1}}))


def test_a_key_that_deepspeed_passes_over_in_silence_is_told(caplog: pytest.LogCaptureFixture) -> None:
    keys = {"zero_optimisation": {}, "prescale_gradients": True, "aio": {}, "comms_logger": {"enabled": False}}
    check_understood(train_config(2, deepspeed=keys))
    assert [message for message in caplog.messages if "train.deepspeed sets" in message] == [
        "train.deepspeed sets 'zero_optimisation', which DeepSpeed does not read: is it spelt right?"
    ]


def test_states_on_nvme_are_refused_since_they_cannot_be_saved() -> None:
    with pytest.raises(InputError, match=r"train.offload_path='/nvme': .*no checkpoint can be saved.* offload to cpu"):
        check_saved(train_config(3, offload_optimizer="nvme", offload_path="/nvme"))
    check_saved(train_config(3, offload_optimizer="cpu"))


def test_offload_to_nvme_says_where_and_fp16_scales_its_loss() -> None:
    train = train_config(3, offload_parameters="nvme", offload_path="/nvme", num_gpus=1, dtype="fp16")
    config = deepspeed_config(train, 1)
    assert config["zero_optimization"]["offload_param"]["nvme_path"] == "/nvme"
    assert config["fp16"] == {"enabled": True}


def test_rows_are_padded_to_whole_rounds_of_micro_batches() -> None:
    assert [padded_rows(6, 3, workers) for workers in (1, 2, 3)] == [6, 6, 9]
    assert deepspeed_config(train_config(2, micro_batch_rows=4), 2)["train_batch_size"] == 8


@pytest.mark.parametrize(
    "fields", [{"trainable": "lora"}, {"trainable": "all", "lora": {}}, {"warmup_steps": 3, "warmup_ratio": 0.1}]
)
def test_a_phase_that_contradicts_itself_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="phase 'only'"):
        PhaseConfig(name="only", steps_fraction=1.0, weights={"asr": 1.0}, **fields)


def test_a_phase_with_a_warmup_ratio_survives_the_way_to_a_worker() -> None:
    phase = PhaseConfig(name="p", steps_fraction=1.0, weights={"asr": 1.0}, warmup_ratio=0.1)
    assert PhaseConfig.model_validate(phase.model_dump(mode="json")) == phase
